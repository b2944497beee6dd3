//! NumPy's `.npz`: a zip archive of `.npy` arrays. Arrays of Python objects, which need pickle, are refused.

use std::io::Read;
use std::path::Path;

use super::tensor::{self, DType, Tensor, count, in_file};
use super::zip::{Entry, ZipIn};
use super::{CLASS_IDS, CLASSES, Found, IMAGES, LABELS, Reading, SOFT_LABELS, both_labels, classes_of};
use crate::error::{Error, Result};
use crate::fail;

const REMEDY: &str = "write it with numpy.savez";
/// Bytes of an array's header and of an array of texts, at most.
const MOST_HEADER: u64 = 1 << 16;
const MOST_TEXT: u64 = 64 << 20;

/// Reads the arrays that are called as [`IMAGES`], [`LABELS`], [`CLASSES`] and [`CLASS_IDS`] say.
pub fn read(path: &Path, reading: &Reading) -> Result<Found> {
    let mut zip = ZipIn::open(path, REMEDY)?;
    let names = zip.names();
    let find = |keys: &[&str]| keys.iter().map(|key| format!("{key}.npy")).find(|name| names.contains(name));
    let refuse = in_file(path);
    let Some(images) = find(&IMAGES) else {
        fail!("{}: expected an array \"images\" or \"data\"; it has {}", path.display(), names.join(", "));
    };
    let images = tensor_of(zip.entry(&images)?).map_err(&refuse)?;
    let images = tensor::images(images, reading).map_err(&refuse)?;
    let labels = match find(&LABELS) {
        Some(name) => Some(tensor_of(zip.entry(&name)?).and_then(tensor::labels).map_err(&refuse)?),
        None => None,
    };
    let soft = match find(&SOFT_LABELS) {
        Some(name) => Some(tensor_of(zip.entry(&name)?).and_then(tensor::soft).map_err(&refuse)?),
        None => None,
    };
    let (labels, soft_labels) = both_labels(labels, soft);
    let mut texts = |keys: &[&str]| match find(keys) {
        Some(name) => Ok::<_, Error>(Some(texts_of(zip.entry(&name)?).map_err(&refuse)?)),
        None => Ok(None),
    };
    let (names, ids) = (texts(&CLASSES)?, texts(&CLASS_IDS)?);
    Ok(Found { images, labels, soft_labels, warnings: Vec::new(), classes: names.map(|names| classes_of(names, ids)) })
}

/// An array of numbers.
fn tensor_of(mut entry: Entry<'_>) -> std::result::Result<Tensor<'_>, String> {
    let Header { descr, shape, bytes } = Header::read(&mut entry)?;
    let dtype = match descr.as_str() {
        "|b1" => DType::Bool,
        "|u1" => DType::U8,
        "|i1" => DType::I8,
        "<i2" => DType::I16,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        other => return Err(format!("an array is of type {other}, expected whole or floating-point numbers")),
    };
    check_len(&entry, bytes, &shape, dtype.width())?;
    Ok(Tensor { dtype, shape, data: Box::new(entry) })
}

/// An array of texts: UTF-32, each filled up with zeros to one length.
fn texts_of(mut entry: Entry<'_>) -> std::result::Result<Vec<String>, String> {
    let Header { descr, shape, bytes } = Header::read(&mut entry)?;
    let length = descr.strip_prefix("<U").and_then(|n| n.parse::<usize>().ok()).filter(|&n| (1..=1 << 20).contains(&n));
    let Some(length) = length else {
        return Err(format!("the class names are of type {descr}, expected text"));
    };
    check_len(&entry, bytes, &shape, length * 4)?;
    if entry.len > MOST_TEXT {
        return Err(format!("the class names fill {} bytes, expected at most {MOST_TEXT}", entry.len));
    }
    let mut data = Vec::new();
    entry.read_to_end(&mut data).map_err(|e| format!("the class names cannot be read ({e})"))?;
    let text = |bytes: &[u8]| {
        let codes = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        codes.take_while(|&code| code != 0).map(|code| char::from_u32(code).unwrap_or('\u{fffd}')).collect()
    };
    Ok(data.chunks_exact(length * 4).map(text).collect())
}

/// Checks that an array, whose header took `header` bytes, fills its entry.
fn check_len(entry: &Entry, header: u64, shape: &[usize], width: usize) -> std::result::Result<(), String> {
    let values = (count(shape)? as u64).checked_mul(width as u64);
    match values.and_then(|values| values.checked_add(header)) {
        Some(expected) if expected == entry.len => Ok(()),
        _ => Err(format!("an array of shape {shape:?} fills {} bytes, expected {width} for each value", entry.len)),
    }
}

/// The head of a `.npy` array.
struct Header {
    descr: String,
    shape: Vec<usize>,
    /// Bytes before the values.
    bytes: u64,
}

impl Header {
    fn read(entry: &mut Entry) -> std::result::Result<Self, String> {
        let bad = |what: &str| format!("an array has {what}; {REMEDY}");
        let mut start = [0; 8];
        let cut = |e| format!("an array cannot be read ({e})");
        entry.read_exact(&mut start).map_err(cut)?;
        let width = match start {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _] => 2,
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _] => 4,
            _ => return Err(bad("no NumPy header")),
        };
        let mut len = [0; 4];
        entry.read_exact(&mut len[..width]).map_err(cut)?;
        let len = u64::from(u32::from_le_bytes(len));
        if len > MOST_HEADER {
            return Err(bad("a header of more than 64 KiB"));
        }
        let mut text = String::new();
        entry.take(len).read_to_string(&mut text).map_err(cut)?;
        let value = |key: &str| Some(text.split_once(key)?.1.trim_start().strip_prefix(':')?.trim_start());
        let quoted = |rest: &str| {
            rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(word, _)| word.to_string())
        };
        let Some(descr) = value("'descr'").and_then(quoted) else { return Err(bad("no plain type")) };
        let shape = value("'shape'").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
        let numbers =
            |list: &str| list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect();
        let shape: Option<Vec<usize>> = shape.and_then(|(list, _)| numbers(list));
        let Some(shape) = shape else { return Err(bad("no plain shape")) };
        if shape.len() > 1 && value("'fortran_order'").is_none_or(|rest| !rest.starts_with("False")) {
            return Err(bad("its values in Fortran's order"));
        }
        Ok(Header { descr, shape, bytes: 8 + width as u64 + len })
    }
}
