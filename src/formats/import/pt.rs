//! PyTorch files: a tensor, a pair of images and labels, or a dict of them, as `torch.save` writes them since 1.6.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use super::pickle::{Pickle, TensorRef, Value};
use super::tensor::{self, Tensor, count, in_file};
use super::zip::ZipIn;
use super::{CLASS_IDS, CLASSES, Found, IMAGES, LABELS, Reading, SOFT_LABELS, both_labels, classes_of};
use crate::error::{AtPath, Result};
use crate::fail;

const REMEDY: &str = "files of the time before PyTorch 1.6 are none: load it there and write it again with torch.save";

/// Reads `path`, and labels from the file that `reading` names or that lies beside it.
pub fn read(path: &Path, reading: &Reading) -> Result<Found> {
    let mut file = PtFile::open(path)?;
    let parts = file.parts()?;
    let Some(images) = parts.images else {
        fail!(
            "{}: expected a tensor, a pair of images and labels, or a dict with \"images\" or \"data\": tensors, or in \
             \"data\" a list of such pairs",
            path.display()
        );
    };
    let images = tensor::images(file.tensor(&images)?, reading).map_err(in_file(path))?;
    let labels = match reading.labels.clone().or_else(|| labels_beside(path).filter(|_| parts.labels.is_none())) {
        Some(other) => {
            let mut file = PtFile::open(&other)?;
            let parts = file.parts()?;
            let Some(labels) = parts.labels.or(parts.images) else {
                fail!("{}: expected a tensor of labels", other.display());
            };
            Some(tensor::labels(file.tensor(&labels)?).map_err(in_file(&other))?)
        }
        None => match parts.labels {
            Some(labels) => Some(tensor::labels(file.tensor(&labels)?).map_err(in_file(path))?),
            None => None,
        },
    };
    let soft = match parts.soft {
        Some(soft) => Some(tensor::soft(file.tensor(&soft)?).map_err(in_file(path))?),
        None => None,
    };
    let (labels, soft_labels) = both_labels(labels, soft);
    let mut warnings = Vec::new();
    if parts.more > 0 {
        warnings.push(format!("the first of {} sets in the file is read", parts.more + 1));
    }
    Ok(Found { images, labels, soft_labels, warnings, classes: parts.names.map(|names| classes_of(names, parts.ids)) })
}

/// "images_best.pt" -> "labels_best.pt", where that exists.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let other = path.with_file_name(name.replacen("images", "labels", 1));
    (name.contains("images") && other.is_file()).then_some(other)
}

struct PtFile {
    path: PathBuf,
    zip: ZipIn,
    /// The folder that all entries lie in.
    prefix: String,
}

/// What was found in a file.
#[derive(Default)]
struct Parts {
    images: Option<TensorRef>,
    labels: Option<TensorRef>,
    soft: Option<TensorRef>,
    names: Option<Vec<String>>,
    ids: Option<Vec<String>>,
    /// Sets beside it, where the file has a list of them.
    more: usize,
}

impl PtFile {
    fn open(path: &Path) -> Result<Self> {
        let mut zip = ZipIn::open(path, REMEDY)?;
        let names = zip.names();
        let Some(prefix) = names.iter().find_map(|name| name.strip_suffix("data.pkl")).map(str::to_string) else {
            fail!("{}: expected a PyTorch archive, but it holds no data.pkl; {REMEDY}", path.display());
        };
        let order = format!("{prefix}byteorder");
        if names.contains(&order) {
            let mut text = String::new();
            zip.entry(&order)?.take(16).read_to_string(&mut text).at(path)?;
            if text != "little" {
                fail!("{}: its byte order is {text:?}, expected little; save it on another machine", path.display());
            }
        }
        Ok(PtFile { path: path.into(), zip, prefix })
    }

    fn parts(&mut self) -> Result<Parts> {
        let mut bytes = Vec::new();
        let entry = self.zip.entry(&format!("{}data.pkl", self.prefix))?;
        entry.take(super::pickle::MOST_BYTES as u64 + 1).read_to_end(&mut bytes).at(&self.path)?;
        let pickle = Pickle::parse(&bytes).map_err(in_file(&self.path))?;
        let tensor = |value: Option<&Value>| match value {
            Some(Value::Tensor(tensor)) => Some(tensor.clone()),
            _ => None,
        };
        let pair = |value: &Value| match value {
            Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => Parts {
                images: tensor(Some(pickle.get(pair[0]))),
                labels: tensor(Some(pickle.get(pair[1]))),
                ..Parts::default()
            },
            _ => Parts::default(),
        };
        Ok(match pickle.root() {
            root @ Value::Tensor(_) => Parts { images: tensor(Some(root)), ..Parts::default() },
            root @ (Value::Tuple(_) | Value::List(_)) => pair(root),
            Value::Dict(dict) => {
                let any = |keys: &[&str]| keys.iter().find_map(|key| pickle.entry(dict, key));
                let texts = |keys: &[&str]| any(keys).and_then(|value| pickle.texts(value));
                // As the dataset-condensation code saves its experiments.
                if let Some(Value::List(sets)) = any(&IMAGES)
                    && let Some(&first) = sets.first()
                {
                    return Ok(Parts { more: sets.len() - 1, ..pair(pickle.get(first)) });
                }
                Parts {
                    images: tensor(any(&IMAGES)),
                    labels: tensor(any(&LABELS)),
                    soft: tensor(any(&SOFT_LABELS)),
                    names: texts(&CLASSES),
                    ids: texts(&CLASS_IDS),
                    more: 0,
                }
            }
            _ => Parts::default(),
        })
    }

    /// The tensor, whose storage must be as long as it says and hold all of its values.
    fn tensor(&mut self, of: &TensorRef) -> Result<Tensor<'_>> {
        let TensorRef { key, dtype, count: stored, offset, shape, strides } = of;
        let path = self.path.clone();
        let refuse = |what: String| in_file(&path)(what);
        let n = count(shape).map_err(refuse)?;
        let reach = shape.iter().zip(strides).try_fold(*offset, |reach, (&n, &stride)| {
            n.saturating_sub(1).checked_mul(stride).and_then(|steps| reach.checked_add(steps))
        });
        if n == 0 {
            return Err(refuse(format!("there is no image or label in a tensor of shape {shape:?}")));
        }
        if strides.len() != shape.len() || n > *stored || reach.is_none_or(|last| last >= *stored) {
            return Err(refuse(format!("a tensor of shape {shape:?} does not fit into its {stored} values")));
        }
        let mut entry = self.zip.entry(&format!("{}data/{key}", self.prefix))?;
        let width = dtype.width();
        if (*stored as u64).checked_mul(width as u64) != Some(entry.len) {
            return Err(refuse(format!("a tensor has {} bytes, expected {stored} values of {width}", entry.len)));
        }
        let contiguous =
            (0..shape.len()).all(|d| shape[d] == 1 || strides[d] == shape[d + 1..].iter().product::<usize>());
        if contiguous && *offset == 0 && n == *stored {
            return Ok(Tensor { dtype: *dtype, shape: shape.clone(), data: Box::new(entry) });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).at(&path)?;
        let data = Cursor::new(gather(&bytes, width, of, n));
        Ok(Tensor { dtype: *dtype, shape: shape.clone(), data: Box::new(data) })
    }
}

/// The values of a view in row-major order. The caller has checked that all of them lie in `bytes`.
fn gather(bytes: &[u8], width: usize, view: &TensorRef, n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..n {
        let mut rest = i;
        let mut at = view.offset;
        for (&extent, &stride) in view.shape.iter().zip(&view.strides).rev() {
            at += rest % extent * stride;
            rest /= extent;
        }
        out.extend(&bytes[at * width..][..width]);
    }
    out
}
