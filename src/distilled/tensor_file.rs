//! `distilled.safetensors`: `images` u8 (N, 3, H, W) and `labels` i64 (N), everything else as one JSON in its metadata.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{DistilledSet, Provenance};
use crate::data::{Class, ImageSet, Normalization};
use crate::error::{Error, Result};
use crate::fail;

/// The metadata's only key: with several, the file's bytes would follow a hash map's order.
const KEY: &str = "distill";
const FORMAT: u32 = 1;
const PIXELS: &str =
    "RGB, 0 to 255, neither normalized nor whitened: divide by 255, subtract the mean, divide by the std";

/// What stands under [`KEY`].
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    pixels: String,
    normalization: Normalization,
    images_per_class: Vec<usize>,
    provenance: Provenance,
    /// By label.
    classes: Vec<Class>,
    /// By image.
    indices: Vec<u32>,
}

/// Only the version, which says whether the rest can be read.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// The file's bytes: the same for the same set.
pub fn encode(set: &DistilledSet) -> Result<Vec<u8>> {
    let (n, size) = (set.images.len(), set.images.size);
    let header = Header {
        format: FORMAT,
        pixels: PIXELS.into(),
        normalization: set.provenance.dataset.normalization(),
        images_per_class: set.images_per_class(),
        provenance: set.provenance.clone(),
        classes: set.images.classes.to_vec(),
        indices: set.indices.clone(),
    };
    let header = serde_json::to_string(&header).map_err(|e| Error::Failed(format!("provenance: {e}")))?;
    let pixels = planar(&set.images.pixels, size * size, 3);
    let labels: Vec<u8> = set.images.labels.iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
    let tensors = || {
        let images = TensorView::new(Dtype::U8, vec![n, 3, size, size], &pixels)?;
        let labels = TensorView::new(Dtype::I64, vec![n], &labels)?;
        safetensors::serialize([("images", images), ("labels", labels)], Some(HashMap::from([(KEY.into(), header)])))
    };
    tensors().map_err(|e| Error::Failed(format!("{}: {e}", super::TENSOR_FILE)))
}

/// Reads a file's bytes and checks that shapes, labels, classes and counts agree; `file` is for messages.
pub fn decode(bytes: &[u8], file: &Path) -> Result<DistilledSet> {
    let refuse = |what: String| Error::Failed(format!("{}: {what}; make it again with distill sample", file.display()));
    let unreadable = |e| refuse(format!("not a whole safetensors file ({e})"));
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let Some(json) = metadata.metadata().as_ref().and_then(|m| m.get(KEY)) else {
        return Err(refuse(format!("no \"{KEY}\" in its metadata, so it is no distilled set")));
    };
    let bad_json = |e| refuse(format!("its \"{KEY}\" metadata cannot be read ({e})"));
    let Version { format } = serde_json::from_str(json).map_err(bad_json)?;
    if format != FORMAT {
        fail!("{}: format {format}, but this version reads {FORMAT}; use the version that wrote it", file.display());
    }
    let header: Header = serde_json::from_str(json).map_err(bad_json)?;

    let tensor = |name: &str, dtype| match tensors.tensor(name) {
        Ok(tensor) if tensor.dtype() == dtype => Ok(tensor),
        Ok(tensor) => Err(refuse(format!("\"{name}\" is {:?}, expected {dtype:?}", tensor.dtype()))),
        Err(_) => Err(refuse(format!("it has no tensor \"{name}\""))),
    };
    let (images, labels) = (tensor("images", Dtype::U8)?, tensor("labels", Dtype::I64)?);
    let &[n, 3, size, width] = images.shape() else {
        return Err(refuse(format!("\"images\" has shape {:?}, expected (N, 3, H, W)", images.shape())));
    };
    if n == 0 || size == 0 || size != width || labels.shape() != [n] || header.indices.len() != n {
        return Err(refuse(format!(
            "{n} images of {size}x{width}, labels of shape {:?} and {} indices: expected square images, a label and an \
             index for each",
            labels.shape(),
            header.indices.len()
        )));
    }
    let labels = read_labels(labels.data(), header.classes.len()).map_err(refuse)?;
    let pixels = planar(images.data(), 3, size * size);
    let images = ImageSet { pixels, labels, size, classes: Arc::new(header.classes) };
    let set = DistilledSet { images, indices: header.indices, provenance: header.provenance };
    if set.images_per_class() != header.images_per_class {
        return Err(refuse("the counts per class in its metadata are not those of its labels".into()));
    }
    Ok(set)
}

/// Little-endian i64 labels, each below `classes`.
fn read_labels(bytes: &[u8], classes: usize) -> std::result::Result<Vec<u16>, String> {
    let label = |(i, bytes): (usize, &[u8])| {
        let label = bytes.iter().rev().fold(0i64, |value, &byte| value << 8 | i64::from(byte));
        match u16::try_from(label) {
            Ok(label) if usize::from(label) < classes => Ok(label),
            _ => Err(format!("image {i} has label {label}, but there are {classes} classes")),
        }
    };
    bytes.chunks_exact(8).enumerate().map(label).collect()
}

/// Transposes the (rows, columns) matrix of each image: (H x W, 3) to (3, H x W), or back.
fn planar(pixels: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let images = pixels.chunks_exact(rows * columns);
    images.flat_map(|image| (0..columns).flat_map(move |c| (0..rows).map(move |r| image[r * columns + c]))).collect()
}
