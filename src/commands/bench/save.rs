//! What a work computes, as a file for other programs to compare with.

use std::path::Path;

use candle_core::Device;
use serde_json::json;

use super::super::{print, to_json};
use super::works::{CLASSES, Kind};
use crate::config::Config;
use crate::environment::Environment;
use crate::error::Result;
use crate::eval::Protocol;
use crate::fs::make_folder;
use crate::ops::Tape;
use crate::train::save_weights;

/// Writes folder/WORK.safetensors for each kind and prints the paths.
pub fn all(folder: &Path, kinds: &[Kind], config: &Config, device: &Device, json: bool) -> Result<()> {
    make_folder(folder)?;
    let mut paths = Vec::new();
    for kind in kinds {
        let path = folder.join(format!("{}.safetensors", kind.name));
        one(&path, kind, config, device)?;
        paths.push(path.display().to_string());
    }
    print(&if json { to_json(&paths)? } else { paths.join("\n") })
}

/// Writes the tensors `weights.NAME`, `inputs.NAME`, `output` and, of work that trains, `loss` and `gradients.NAME`.
/// The metadata holds what the network is built from.
fn one(path: &Path, kind: &Kind, config: &Config, device: &Device) -> Result<()> {
    let work = (kind.build)(config, kind.batch, device)?;
    let mut tensors = Vec::new();
    tensors.extend(work.params.named().into_iter().map(|(name, tensor)| (format!("weights.{name}"), tensor)));
    tensors.extend(work.inputs.iter().map(|(name, tensor)| (format!("inputs.{name}"), tensor.clone())));
    let tape = if work.trains { Tape::recording() } else { Tape::inference() };
    let (output, loss) = (work.forward)(&tape)?;
    tensors.push(("output".into(), output.tensor().clone()));
    if work.trains {
        let gradients = tape.backward(&loss)?;
        tensors.push(("loss".into(), loss.tensor().clone()));
        for (name, param) in work.params.named() {
            tensors.push((format!("gradients.{name}"), gradients.get(&param)?.clone()));
        }
    }
    let metadata = json!({
        "work": kind.name,
        "batch": kind.batch,
        "images": work.images,
        "classes": CLASSES,
        "config": config,
        "protocol": Protocol::named("challenge")?,
        "environment": Environment::of(device),
    });
    save_weights(path, &tensors, &metadata)?;
    Ok(())
}
