//! A reader of the pickles that hold tensors. Nothing is run: it knows the few names that PyTorch and numpy write for tensors
//! and numbers, and refuses every other by its name.
//!
//! Values lie in one list and refer to each other by their place in it, so that neither depth nor sharing nor a circle
//! costs stack or memory. There are never more of them than the pickle has bytes.

mod machine;

use self::machine::Machine;
use super::tensor::DType;

/// Bytes of a pickle, at most: a tensor's values lie outside of it, so real ones have some kilobytes.
pub const MOST_BYTES: usize = 4 << 20;

/// A value's place in the list.
pub type Id = usize;

/// What a pickle can hold.
#[derive(Clone, Debug)]
pub enum Value {
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    /// The bytes of an entry of the archive.
    Storage {
        key: String,
        dtype: DType,
        count: usize,
    },
    Tensor(TensorRef),
    /// None, a truth value, a floating-point number or a number of numpy, none of which is looked at.
    Other,
}

/// The names that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    Size,
    /// What a number of numpy is written with: its type, the number itself, and a text that stands for its bytes.
    NumpyType,
    NumpyNumber,
    Encode,
    Storage(DType),
}

/// A view of a storage: all counts are of values, not of bytes.
#[derive(Clone, Debug)]
pub struct TensorRef {
    pub key: String,
    pub dtype: DType,
    /// Values of the whole storage.
    pub count: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl Name {
    fn of(module: &str, name: &str) -> Result<Name, String> {
        let dtype = match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => return Ok(Name::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => return Ok(Name::RebuildParameter),
            ("collections", "OrderedDict") => return Ok(Name::OrderedDict),
            ("torch", "Size") => return Ok(Name::Size),
            ("numpy", "dtype") => return Ok(Name::NumpyType),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => return Ok(Name::NumpyNumber),
            ("_codecs", "encode") => return Ok(Name::Encode),
            ("torch", "BoolStorage") => DType::Bool,
            ("torch", "ByteStorage") => DType::U8,
            ("torch", "CharStorage") => DType::I8,
            ("torch", "ShortStorage") => DType::I16,
            ("torch", "IntStorage") => DType::I32,
            ("torch", "LongStorage") => DType::I64,
            ("torch", "HalfStorage") => DType::F16,
            ("torch", "BFloat16Storage") => DType::BF16,
            ("torch", "FloatStorage") => DType::F32,
            ("torch", "DoubleStorage") => DType::F64,
            _ => {
                return Err(format!(
                    "it asks for {module}.{name}, which is not needed for tensors, so it was not read any further; save \
                     plain tensors"
                ));
            }
        };
        Ok(Name::Storage(dtype))
    }
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads a pickle of protocol 2 to 5. Errors are sentences about it.
    pub fn parse(bytes: &[u8]) -> Result<Pickle, String> {
        if bytes.len() > MOST_BYTES {
            return Err(format!("its pickle has {} bytes, expected at most {MOST_BYTES}", bytes.len()));
        }
        let (values, root) = Machine::run(bytes)?;
        Ok(Pickle { values, root })
    }

    pub fn root(&self) -> &Value {
        &self.values[self.root]
    }

    /// The value at `id`, which a container of this pickle holds.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The value of a dict under a text.
    pub fn entry<'a>(&'a self, dict: &[(Id, Id)], key: &str) -> Option<&'a Value> {
        let found = dict.iter().rev().find(|(k, _)| matches!(self.get(*k), Value::Text(text) if text == key));
        found.map(|&(_, value)| self.get(value))
    }

    /// The texts of a list or tuple of texts.
    pub fn texts(&self, value: &Value) -> Option<Vec<String>> {
        let (Value::List(items) | Value::Tuple(items)) = value else { return None };
        let text = |&id: &Id| if let Value::Text(text) = self.get(id) { Some(text.clone()) } else { None };
        items.iter().map(text).collect()
    }
}
