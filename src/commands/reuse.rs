//! `distill train --vae RUN`: the VAE of another run, where training it again would give the same.

use std::fs;
use std::path::Path;

use candle_core::Device;

use super::inspect::read_json;
use crate::config::Config;
use crate::data::ImageSet;
use crate::error::{AtPath, Result};
use crate::fs::{make_folder, write_atomic};
use crate::run_dir::RunDir;
use crate::stages::read_trained;
use crate::usage;

/// Settings that a VAE does not depend on start so.
const OF_OTHERS: [&str; 6] =
    ["unet.", "diffusion.", "train.unet.", "train.log_every", "train.checkpoint_every", "train.sample_every"];

/// The run at `from`, whose VAE the run `dir` is to take, after a look at it.
///
/// # Errors
/// It is the same run, it is not finished or damaged, or `config` and the train split `set` would have given another.
pub fn run_with_vae(from: &Path, dir: &RunDir, config: &Config, set: &ImageSet) -> Result<RunDir> {
    let other = RunDir::new(from);
    // Starting again would remove it before it is taken.
    if dir.root.exists() && from.canonicalize().ok() == dir.root.canonicalize().ok() {
        usage!("--vae {}: is the run that is to be trained; leave --vae out", from.display());
    }
    if !other.weights("vae").is_file() {
        usage!("--vae {}: no finished VAE is there; name a run that has trained one", from.display());
    }
    let (card, _) = read_trained(&other, "vae", &Device::Cpu)?;
    let differences = config.training_differences(&card.config);
    if let Some(key) = differences.iter().find(|key| !OF_OTHERS.iter().any(|start| key.starts_with(start))) {
        usage!("--vae {}: its VAE was trained with another {key}; set it alike, or train one", from.display());
    }
    if read_json(&other.meta())?["data_sha256"] != set.sha256() {
        usage!("--vae {}: its VAE was trained on other images; train one", from.display());
    }
    Ok(other)
}

/// Copies the VAE of the run `other` into the run `dir`, which has none yet.
pub fn copy_vae(other: &RunDir, dir: &RunDir) -> Result<()> {
    make_folder(&dir.stage("vae"))?;
    // The weights last: where they are, the stage has ended.
    let metrics = other.stage("vae").join("metrics.jsonl");
    for (path, target) in [
        (metrics, dir.stage("vae").join("metrics.jsonl")),
        (other.summary("vae"), dir.summary("vae")),
        (other.weights("vae"), dir.weights("vae")),
    ] {
        write_atomic(&target, &fs::read(&path).at(&path)?)?;
    }
    Ok(())
}
