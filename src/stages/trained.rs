//! A trained network on disk: its averaged weights with a card in their metadata, and a summary with their hash.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::LatentStatistics;
use crate::checksums::{check_file, sha256};
use crate::config::Config;
use crate::data::Class;
use crate::error::{AtPath, Error, Result};
use crate::fail;
use crate::fs::write_atomic;
use crate::run_dir::RunDir;
use crate::train::{FORMAT_VERSION, Finished, encode_weights, load_weights, read_metadata};

/// What stands beside a network's final weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelCard {
    pub format: u32,
    /// "vae" or "unet".
    pub kind: String,
    /// Version of this program.
    pub distill: String,
    pub classes: Vec<Class>,
    pub config: Config,
    /// Training steps and images seen; the times stand in summary.json, so that equal runs write equal weights files.
    pub steps: u64,
    pub images: u64,
    /// Of the latents that the UNet was trained on.
    pub latents: Option<LatentStatistics>,
}

impl ModelCard {
    /// The card of the weights at `path`; an error if they are not a `kind` that this version reads.
    pub fn read(path: &Path, kind: &str) -> Result<Self> {
        let card: ModelCard = read_metadata(path)?;
        if card.kind != kind || card.format != FORMAT_VERSION {
            fail!(
                "{}: holds a {} of format {}, expected a {kind} of format {FORMAT_VERSION}; train the stage again, or use \
                 the program that wrote it (version {})",
                path.display(),
                card.kind,
                card.format,
                card.distill
            );
        }
        card.config.check().map_err(|e| Error::Failed(format!("{}: its configuration: {e}", path.display())))?;
        Ok(card)
    }
}

/// summary.json: how training ended, and the hash of the weights that came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainedSummary {
    #[serde(flatten)]
    pub training: Finished,
    /// Of final.safetensors.
    pub sha256: String,
}

impl TrainedSummary {
    /// The summary of a stage of `run`, "vae" or "unet".
    pub fn read(run: &RunDir, stage: &str) -> Result<Self> {
        let path = run.summary(stage);
        serde_json::from_slice(&fs::read(&path).at(&path)?)
            .map_err(|e| Error::Failed(format!("{}: is damaged ({e}); {REMEDY}", path.display())))
    }
}

/// What helps against damaged final weights.
const REMEDY: &str = "put back a copy, or train again with --overwrite";

/// Writes the summary and then the weights of a finished stage: where there are weights, the stage has ended.
pub fn write_trained(run: &RunDir, tensors: &[(String, Tensor)], card: &ModelCard, training: Finished) -> Result<()> {
    let path = run.weights(&card.kind);
    let bytes = encode_weights(&path, tensors, card)?;
    let summary = TrainedSummary { training, sha256: sha256(&bytes) };
    let json = serde_json::to_vec_pretty(&summary).map_err(|e| Error::Failed(e.to_string()))?;
    write_atomic(&run.summary(&card.kind), &json)?;
    write_atomic(&path, &bytes)
}

/// The card and the tensors of a finished stage of `run`, "vae" or "unet", after a look at their hash.
pub fn read_trained(run: &RunDir, stage: &str, device: &Device) -> Result<(ModelCard, BTreeMap<String, Tensor>)> {
    let path = run.weights(stage);
    let hash = TrainedSummary::read(run, stage)?.sha256;
    check_file(&path, &hash, &run.summary(stage)).map_err(|e| Error::Failed(format!("{e}; {REMEDY}")))?;
    Ok((ModelCard::read(&path, stage)?, load_weights(&path, device)?))
}
