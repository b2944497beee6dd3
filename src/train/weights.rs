//! Weights on disk: safetensors files with one JSON key of metadata, written whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checksums::sha256;
use crate::error::{AtPath, Error, Result};
use crate::fail;
use crate::fs::write_atomic;

/// The one metadata key: several would be written in an order that changes from run to run.
const METADATA_KEY: &str = "distill";
/// The version of a weights file's layout; a file of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Writes tensors as f32 with `metadata` beside them; returns the SHA-256 of the file.
pub fn save_weights(path: &Path, tensors: &[(String, Tensor)], metadata: &impl Serialize) -> Result<String> {
    let bytes = encode_weights(path, tensors, metadata)?;
    write_atomic(path, &bytes)?;
    Ok(sha256(&bytes))
}

/// The bytes of the weights file that is to stand at `path`: the same for the same tensors and metadata.
pub fn encode_weights(path: &Path, tensors: &[(String, Tensor)], metadata: &impl Serialize) -> Result<Vec<u8>> {
    let mut buffers = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        buffers.push((name, tensor.dims().to_vec(), bytes));
    }
    let mut views = Vec::with_capacity(buffers.len());
    for (name, dims, bytes) in &buffers {
        let view = TensorView::new(safetensors::Dtype::F32, dims.clone(), bytes);
        views.push((name, view.map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?));
    }
    let json = serde_json::to_string(metadata).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
    let metadata = HashMap::from([(METADATA_KEY.to_string(), json)]);
    safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::Failed(format!("{}: cannot be written as safetensors: {e}", path.display())))
}

/// Reads all tensors of a safetensors file by name.
pub fn load_weights(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::read(path).at(path)?;
    let file = parse(path, &bytes)?;
    let mut out = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != safetensors::Dtype::F32 {
            fail!("{}: tensor {name} is {:?}, expected F32", path.display(), view.dtype());
        }
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        out.insert(name.to_string(), Tensor::from_vec(values, view.shape(), device)?);
    }
    Ok(out)
}

/// The metadata that [`save_weights`] put beside the tensors.
pub fn read_metadata<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).at(path)?;
    parse(path, &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| Error::Failed(format!("{}: is not a whole safetensors file: {e}", path.display())))?;
    let Some(json) = header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)) else {
        fail!("{}: has no `{METADATA_KEY}` metadata; it was not written by distill", path.display());
    };
    serde_json::from_str(json)
        .map_err(|e| Error::Failed(format!("{}: its metadata is of another version of distill: {e}", path.display())))
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| {
        Error::Failed(format!(
            "{}: is not a whole safetensors file ({e}); it was cut short or damaged, restore it or train again",
            path.display()
        ))
    })
}
