//! The opcodes of a pickle.

use std::collections::BTreeMap;

use super::{Id, Name, TensorRef, Value};

/// Items of what is copied and bytes of a name, at most: many copies of something long would fill the memory.
const MOST_ITEMS: usize = 8;
const MOST_NAME: usize = 256;

/// The stack machine that a pickle is a program for.
#[derive(Default)]
pub struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Every value that the pickle makes, and which of them it stands for.
    pub fn run(bytes: &'a [u8]) -> Result<(Vec<Value>, Id), String> {
        let mut machine = Machine { bytes, ..Machine::default() };
        while let Some(op) = machine.next_op()? {
            machine.step(op)?;
        }
        let root = machine.pop()?;
        Ok((machine.values, root))
    }

    /// The next opcode; none at the end, `STOP`.
    fn next_op(&mut self) -> Result<Option<u8>, String> {
        let op = self.take(1)?[0];
        Ok(Some(op).filter(|&op| op != b'.'))
    }

    fn step(&mut self, op: u8) -> Result<(), String> {
        match op {
            0x80 => match self.take(1)?[0] {
                2..=5 => Ok(()),
                version => Err(format!("its pickle has protocol {version}, expected 2 to 5")),
            },
            0x95 => self.take(8).map(|_| ()), // FRAME: a hint for buffering
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(op),
            b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | 0x8a | b'G' | b'X' | 0x8c | 0x8d => self.literal(op),
            b')' | 0x85..=0x87 | b't' | b']' | b'l' | b'}' | b'd' => self.container(op),
            b'a' | b'e' | b's' | b'u' => self.fill(op),
            b'c' | 0x93 => self.name(op),
            b'Q' => self.storage(),
            b'R' => self.call(),
            b'b' => self.set_state(),
            _ => Err(format!("its pickle uses opcode 0x{op:02x}, which tensors don't need; save plain tensors")),
        }
    }

    fn literal(&mut self, op: u8) -> Result<(), String> {
        let value = match op {
            b'N' | 0x88 | 0x89 => Value::Other,
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            b'J' => Value::Int(i64::from(self.number(4)? as u32 as i32)),
            0x8a => Value::Int(self.long()?),
            b'G' => self.take(8).map(|_| Value::Other)?,
            _ => {
                let len = self.number(match op {
                    0x8c => 1,
                    b'X' => 4,
                    _ => 8,
                })?;
                let bytes = self.take(usize::try_from(len).map_err(|_| CUT)?)?;
                Value::Text(std::str::from_utf8(bytes).map_err(|_| "its pickle has a text that is not UTF-8")?.into())
            }
        };
        self.push(value);
        Ok(())
    }

    /// A LONG1: a little-endian number with a sign, of at most 8 bytes here, or 9 where the last one is the sign alone.
    fn long(&mut self) -> Result<i64, String> {
        let len = self.number(1)? as usize;
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        if bytes.iter().skip(8).any(|&b| b != fill) {
            return Err("its pickle has a number of more than 64 bits".into());
        }
        let mut eight = [fill; 8];
        for (to, from) in eight.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(i64::from_le_bytes(eight))
    }

    fn container(&mut self, op: u8) -> Result<(), String> {
        let value = match op {
            b')' => Value::Tuple(Vec::new()),
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(op - 0x84)).filter(|&from| from >= self.floor());
                Value::Tuple(self.stack.split_off(from.ok_or(EMPTY)?))
            }
            b't' => Value::Tuple(self.down_to_mark()?),
            b']' => Value::List(Vec::new()),
            b'l' => Value::List(self.down_to_mark()?),
            b'}' => Value::Dict(Vec::new()),
            _ => Value::Dict(pairs(&self.down_to_mark()?)?),
        };
        self.push(value);
        Ok(())
    }

    /// Puts values from the stack into the list or dict below them.
    fn fill(&mut self, op: u8) -> Result<(), String> {
        let new = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.down_to_mark()?,
        };
        let target = *self.stack.last().ok_or(EMPTY)?;
        match (&mut self.values[target], op) {
            (Value::List(items), b'a' | b'e') => items.extend(new),
            (Value::Dict(entries), b's' | b'u') => entries.extend(pairs(&new)?),
            _ => return Err("its pickle fills something that is neither a list nor a dict".into()),
        }
        Ok(())
    }

    fn memo(&mut self, op: u8) -> Result<(), String> {
        let key = match op {
            b'q' | b'h' => self.number(1)?,
            b'r' | b'j' => self.number(4)?,
            _ => self.memo.len() as u64,
        };
        if matches!(op, b'h' | b'j') {
            let value = *self.memo.get(&key).ok_or("its pickle refers to a value that it has not stored")?;
            self.stack.push(value);
        } else {
            self.memo.insert(key, *self.stack.last().ok_or(EMPTY)?);
        }
        Ok(())
    }

    fn name(&mut self, op: u8) -> Result<(), String> {
        let (module, name) = if op == b'c' {
            (self.line()?.to_string(), self.line()?.to_string())
        } else {
            let name = self.pop_text()?;
            (self.pop_text()?, name)
        };
        self.push(Value::Name(Name::of(&module, &name)?));
        Ok(())
    }

    /// A persistent id: ("storage", its type, its key, its device, its number of values).
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Tuple(parts) = &self.values[id] else { return Err("its pickle has a strange storage".into()) };
        let parts: Vec<&Value> = parts.iter().map(|&id| &self.values[id]).collect();
        let [Value::Text(kind), Value::Name(Name::Storage(dtype)), Value::Text(key), _, Value::Int(count)] = parts[..]
        else {
            return Err("its pickle has a strange storage".into());
        };
        if kind != "storage" || key.len() > MOST_NAME {
            return Err("its pickle has a strange storage".into());
        }
        let count = usize::try_from(*count).map_err(|_| format!("a storage claims {count} values"))?;
        let storage = Value::Storage { key: key.clone(), dtype: *dtype, count };
        self.push(storage);
        Ok(())
    }

    /// REDUCE: what is called is known, so its result is made here.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Err("its pickle calls something without a tuple".into());
        };
        if arguments.len() > MOST_ITEMS {
            return Err(format!("its pickle calls something with {} arguments", arguments.len()));
        }
        let parts: Vec<&Value> = arguments.iter().map(|&id| &self.values[id]).collect();
        let value = match (&self.values[function], &parts[..]) {
            (Value::Name(Name::OrderedDict), []) => Value::Dict(Vec::new()),
            (Value::Name(Name::Size), [Value::Tuple(items)]) if items.len() <= MOST_ITEMS => {
                Value::Tuple(items.clone())
            }
            (Value::Name(Name::NumpyType | Name::NumpyNumber | Name::Encode), _) => Value::Other,
            (Value::Name(Name::RebuildParameter), [Value::Tensor(tensor), ..]) => Value::Tensor(tensor.clone()),
            (
                Value::Name(Name::RebuildTensor),
                [
                    Value::Storage { key, dtype, count },
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ..,
                ],
            ) => Value::Tensor(TensorRef {
                key: key.clone(),
                dtype: *dtype,
                count: *count,
                offset: usize::try_from(*offset).map_err(|_| format!("a tensor begins at {offset}"))?,
                shape: self.sizes(shape)?,
                strides: self.sizes(strides)?,
            }),
            (other, _) => return Err(format!("its pickle calls {other:?} with arguments that tensors don't have")),
        };
        self.push(value);
        Ok(())
    }

    /// BUILD: the state of a numpy type, which is not looked at. Nothing else here has one.
    fn set_state(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last().map(|&id| &self.values[id]) {
            Some(Value::Other) => Ok(()),
            _ => Err("its pickle uses opcode 0x62 on something that has no state; save plain tensors".into()),
        }
    }

    fn sizes(&self, ids: &[Id]) -> Result<Vec<usize>, String> {
        let size = |&id: &Id| match self.values[id] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let sizes = if ids.len() <= MOST_ITEMS { ids.iter().map(size).collect() } else { None };
        sizes.ok_or_else(|| "a tensor's shape is not a few whole numbers".into())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// The height below which the stack belongs to what is outside of the open mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self.stack.len() <= self.floor() {
            return Err(EMPTY.into());
        }
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn pop_text(&mut self) -> Result<String, String> {
        let id = self.pop()?;
        match &self.values[id] {
            Value::Text(text) if text.len() <= MOST_NAME => Ok(text.clone()),
            _ => Err("its pickle names something by no short text".into()),
        }
    }

    fn down_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("its pickle closes what it has not opened")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A little-endian number of up to 8 bytes.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.bytes.iter().take(MOST_NAME).position(|&b| b == b'\n').ok_or(CUT)?;
        let line = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(line)
    }
}

const CUT: &str = "its pickle is cut off";
const EMPTY: &str = "its pickle takes a value that is not there";

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    if !items.len().is_multiple_of(2) {
        return Err("its pickle has a key without a value".into());
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
