//! The trained networks of a run, read for use.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::cli::Common;
use crate::config::Config;
use crate::data::Class;
use crate::error::Result;
use crate::fail;
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::nn::{Params, count};
use crate::run_dir::RunDir;
use crate::stages::{Generator, LatentStatistics, ModelCard, read_trained};

/// The autoencoder of a run, and the description that stands beside it.
pub fn load_vae(run: &RunDir, device: &Device) -> Result<(Vae, ModelCard)> {
    let (card, weights) = read_trained(run, "vae", device)?;
    let path = run.weights("vae").display().to_string();
    check_count(&weights, count(|vb| Vae::new(&card.config.vae, vb))?, &path)?;
    let params = Params::new(0, device);
    let vae = Vae::new(&card.config.vae, params.builder())?;
    params.assign(&weights, &path)?;
    Ok((vae, card))
}

/// Refuses weights that are not as many as the configuration beside them says, before there is memory for a network that
/// may be far larger than the file.
fn check_count(weights: &BTreeMap<String, Tensor>, expected: usize, path: &str) -> Result<()> {
    let found: usize = weights.values().map(Tensor::elem_count).sum();
    if found != expected {
        fail!(
            "{path}: holds {found} values, its configuration asks for {expected}; it is of another configuration, train \
             the stage again"
        );
    }
    Ok(())
}

/// The networks of a finished run.
pub struct Trained {
    pub vae: Vae,
    pub unet: UNet,
    pub statistics: LatentStatistics,
    pub config: Config,
    /// Training steps of the UNet.
    pub steps: u64,
    pub classes: Vec<Class>,
    pub device: Device,
}

impl Trained {
    pub fn load(run: &RunDir, common: &Common) -> Result<Self> {
        let device = common.device.open()?;
        let (vae, _) = load_vae(run, &device)?;
        let path = run.weights("unet");
        let (card, weights) = read_trained(run, "unet", &device)?;
        let Some(statistics) = card.latents else {
            fail!("{}: states no latent statistics; train the unet stage again", path.display());
        };
        let (sizes, shape) = (&card.config.unet, card.config.latents(card.classes.len()));
        check_count(&weights, count(|vb| UNet::new(sizes, shape, vb))?, &path.display().to_string())?;
        let params = Params::new(0, &device);
        let unet = UNet::new(sizes, shape, params.builder())?;
        params.assign(&weights, &path.display().to_string())?;
        Ok(Trained { vae, unet, statistics, config: card.config, steps: card.steps, classes: card.classes, device })
    }

    pub fn generator(&self) -> Generator<'_> {
        Generator {
            vae: &self.vae,
            unet: &self.unet,
            statistics: &self.statistics,
            config: &self.config,
            classes: self.classes.len(),
            device: self.device.clone(),
        }
    }
}
