//! Weights and training states on disk: safetensors files with one JSON key of metadata, written whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{AtPath, Error, Result};
use crate::fail;
use crate::fs::{sync_folder, write_atomic};

/// The one metadata key: several would be written in an order that changes from run to run.
const METADATA_KEY: &str = "distill";
/// The version of a checkpoint's layout; a file of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Writes tensors as f32 with `metadata` beside them.
pub fn save_weights(path: &Path, tensors: &[(String, Tensor)], metadata: &impl Serialize) -> Result<()> {
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
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::Failed(format!("{}: cannot be written as safetensors: {e}", path.display())))?;
    write_atomic(path, &bytes)
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

/// The folder in which a checkpoint is made. There is one, so that a save that was cut off is cleared by the next.
const UNFINISHED: &str = ".tmp-step";

/// What a training run needs to go on, besides tensors. All randomness follows from the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// Steps in all, once they are fixed.
    pub total: Option<u64>,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The mean loss that the last log line stated.
    pub loss: f64,
    pub recent: Recent,
}

impl Default for Checkpoint {
    /// The state before the first step.
    fn default() -> Self {
        Checkpoint { version: FORMAT_VERSION, step: 0, total: None, seconds: 0.0, loss: 0.0, recent: Recent::default() }
    }
}

/// Sums of the loss and the gradient's norm since the last log line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    loss: f64,
    norm: f64,
    count: u64,
}

impl Recent {
    pub fn add(&mut self, loss: f64, norm: f64) {
        self.loss += loss;
        self.norm += norm;
        self.count += 1;
    }

    /// The mean loss.
    pub fn loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }

    /// The mean loss and norm; the sums start again.
    pub fn take(&mut self) -> (f64, f64) {
        let means = (self.loss(), self.norm / self.count.max(1) as f64);
        *self = Recent::default();
        means
    }
}

/// The tensors of a checkpoint, by file: (file stem, live tensors).
pub type Parts<'a> = [(&'a str, Vec<(String, Tensor)>)];

impl Checkpoint {
    /// Writes a folder `step-0001000` under `dir`, then removes older ones.
    pub fn save(&self, dir: &Path, parts: &Parts) -> Result<()> {
        let target = dir.join(format!("step-{:07}", self.step));
        let unfinished = dir.join(UNFINISHED);
        remove(&unfinished)?;
        fs::create_dir(&unfinished).at(&unfinished)?;
        for (stem, tensors) in parts {
            save_weights(&unfinished.join(format!("{stem}.safetensors")), tensors, self)?;
        }
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::Failed(e.to_string()))?;
        write_atomic(&unfinished.join("state.json"), &json)?;
        remove(&target)?;
        fs::rename(&unfinished, &target).at(&target)?;
        sync_folder(dir)?;
        folders(dir)?.iter().filter(|(step, _)| *step < self.step).try_for_each(|(_, old)| remove(old))
    }

    /// Removes all checkpoints under `dir`: the final weights have taken their place.
    pub fn remove_all(dir: &Path) -> Result<()> {
        remove(&dir.join(UNFINISHED))?;
        folders(dir)?.iter().try_for_each(|(_, folder)| remove(folder))
    }

    /// The newest checkpoint under `dir`, with its folder.
    pub fn newest(dir: &Path) -> Result<Option<(Checkpoint, PathBuf)>> {
        let Some((_, folder)) = folders(dir)?.pop() else { return Ok(None) };
        let path = folder.join("state.json");
        let bytes = fs::read(&path).at(&path)?;
        let checkpoint: Checkpoint = serde_json::from_slice(&bytes).map_err(|e| {
            Error::Failed(format!(
                "{}: is damaged or of another version ({e}); remove {} to start again",
                path.display(),
                folder.display()
            ))
        })?;
        if checkpoint.version != FORMAT_VERSION {
            fail!(
                "{}: is a checkpoint of version {}, this program reads version {FORMAT_VERSION}; use the program that wrote it",
                path.display(),
                checkpoint.version
            );
        }
        Ok(Some((checkpoint, folder)))
    }

    /// Fills the live tensors of `parts` from the checkpoint's folder.
    pub fn restore(folder: &Path, parts: &Parts) -> Result<()> {
        for (stem, tensors) in parts {
            let path = folder.join(format!("{stem}.safetensors"));
            let stored = load_weights(&path, &Device::Cpu)?;
            if let Some(name) = stored.keys().find(|name| !tensors.iter().any(|(known, _)| known == *name)) {
                fail!("{}: tensor {name} is not part of this network; it is of another configuration", path.display());
            }
            for (name, tensor) in tensors {
                let Some(source) = stored.get(name).filter(|s| s.shape() == tensor.shape()) else {
                    fail!(
                        "{}: has no tensor {name} of shape {:?}; it is of another configuration",
                        path.display(),
                        tensor.dims()
                    );
                };
                let source = crate::ops::cpu::Floats::of(source)?;
                crate::ops::cpu::update(tensor, |values| values.copy_from_slice(&source))?;
            }
        }
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).at(folder) } else { Ok(()) }
}

/// Checkpoint folders under `dir`, oldest first.
fn folders(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).at(dir)? {
        let path = entry.at(dir)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse().ok()) {
            out.push((step, path));
        }
    }
    out.sort();
    Ok(out)
}
