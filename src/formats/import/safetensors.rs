//! Safetensors files: tensors by name, as Python's `safetensors` writes them. They have no place for class names.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::tensor::{self, DType, Tensor, in_file};
use super::{Found, IMAGES, LABELS, Reading, SOFT_LABELS, both_labels};
use crate::distilled::safetensors_header;
use crate::error::{AtPath, Result};
use crate::fail;

/// Reads the tensors that are called as [`IMAGES`], [`LABELS`] and [`SOFT_LABELS`] say.
pub fn read(path: &Path, reading: &Reading) -> Result<Found> {
    let refuse = in_file(path);
    let mut file = BufReader::new(File::open(path).at(path)?);
    let length = file.get_ref().metadata().at(path)?.len();
    let (header, start) = safetensors_header(&mut file, length)
        .map_err(|what| refuse(format!("not a whole safetensors file ({what}); get the file again")))?;
    let find = |keys: &[&str]| keys.iter().find_map(|key| header.info(key));
    let Some(images) = find(&IMAGES) else {
        let mut names = header.offset_keys();
        names.sort();
        fail!("{}: expected a tensor \"images\" or \"data\"; it has {}", path.display(), names.join(", "));
    };
    let images =
        tensor_of(&mut file, start, images).and_then(|images| tensor::images(images, reading)).map_err(&refuse)?;
    let labels = match find(&LABELS) {
        Some(info) => Some(tensor_of(&mut file, start, info).and_then(tensor::labels).map_err(&refuse)?),
        None => None,
    };
    let soft = match find(&SOFT_LABELS) {
        Some(info) => Some(tensor_of(&mut file, start, info).and_then(tensor::soft).map_err(&refuse)?),
        None => None,
    };
    let (labels, soft_labels) = both_labels(labels, soft);
    Ok(Found { images, labels, soft_labels, warnings: Vec::new(), classes: None })
}

/// A tensor, whose place and size the header's reader has checked.
fn tensor_of<'a>(
    file: &'a mut BufReader<File>,
    start: u64,
    info: &TensorInfo,
) -> std::result::Result<Tensor<'a>, String> {
    let dtype = match info.dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        other => return Err(format!("a tensor is of type {other:?}, expected whole or floating-point numbers")),
    };
    let (from, to) = info.data_offsets;
    file.seek(SeekFrom::Start(start + from as u64)).map_err(|e| format!("a tensor cannot be read ({e})"))?;
    Ok(Tensor { dtype, shape: info.shape.clone(), data: Box::new(file.take((to - from) as u64)) })
}
