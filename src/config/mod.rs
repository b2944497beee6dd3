//! The typed configuration: preset < file < `--set key=value` and flags. Unknown keys are refused.

mod layers;
mod presets;

pub use layers::{Layers, Override};
pub use presets::{default_preset, preset_names};

use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::diffusion::{Prediction, ScheduleKind};
use crate::error::Result;
use crate::models::unet::{LatentShape, UNetConfig};
use crate::models::vae::VaeConfig;
use crate::train::StageConfig;
use crate::usage;

/// Everything that decides a run's result, besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub dataset: Dataset,
    /// Height and width of its images in pixels. The official sets have one size; folders are resized to any.
    pub image_size: usize,
    pub seed: u64,
    pub vae: VaeConfig,
    pub unet: UNetConfig,
    pub diffusion: DiffusionConfig,
    pub train: TrainConfig,
    pub sampler: SamplerConfig,
    pub eval: EvalConfig,
}

/// The noise that the UNet learns to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionConfig {
    pub schedule: ScheduleKind,
    /// T, the steps that training draws from.
    pub steps: usize,
    pub prediction: Prediction,
    /// gamma of min-SNR loss weighting.
    pub min_snr_gamma: f64,
    /// Share of training images whose class is replaced by the null class.
    pub class_dropout: f64,
}

/// Both training stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub vae: StageConfig,
    pub unet: StageConfig,
    /// Weight of the VAE's KL term beside the mean squared error of pixels in [-1, 1].
    pub kl_weight: f64,
    /// Mirror images at random.
    pub flip: bool,
    /// Leave a stratified tenth of train out, to tune on.
    pub hold_out: bool,
    /// Steps between metrics lines.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between validations and pictures.
    pub sample_every: u64,
}

/// How images are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// DDIM steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// 0 is deterministic, 1 as noisy as DDPM.
    pub eta: f64,
    /// Images sampled at once.
    pub batch_size: usize,
}

/// How a set is judged unless the command says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    pub protocol: String,
}

impl Config {
    /// The shape of the latents that the VAE makes of the data set's images.
    pub fn latents(&self, classes: usize) -> LatentShape {
        let size = self.image_size / self.vae.factor();
        LatentShape { size, channels: self.vae.latent_channels, classes }
    }

    /// Refuses values that contradict each other or cannot be run.
    pub fn check(&self) -> Result<()> {
        self.check_sizes()?;
        self.dataset.check_size(self.image_size)?;
        self.vae.check(self.image_size)?;
        self.unet.check(self.latents(0).size)?;
        if self.sampler.steps > self.diffusion.steps {
            usage!(
                "sampler.steps is {}, more than the {} of diffusion.steps; lower it",
                self.sampler.steps,
                self.diffusion.steps
            );
        }
        let ranges = [
            ("diffusion.class_dropout", self.diffusion.class_dropout, 0.0, 1.0),
            ("sampler.eta", self.sampler.eta, 0.0, 1.0),
            ("sampler.guidance", self.sampler.guidance, 0.0, 100.0),
            ("diffusion.min_snr_gamma", self.diffusion.min_snr_gamma, f64::MIN_POSITIVE, f64::INFINITY),
            ("train.vae.learning_rate", self.train.vae.learning_rate, f64::MIN_POSITIVE, 1.0),
            ("train.unet.learning_rate", self.train.unet.learning_rate, f64::MIN_POSITIVE, 1.0),
            ("train.vae.clip_norm", self.train.vae.clip_norm, f64::MIN_POSITIVE, f64::INFINITY),
            ("train.unet.clip_norm", self.train.unet.clip_norm, f64::MIN_POSITIVE, f64::INFINITY),
            ("train.vae.ema_decay", self.train.vae.ema_decay, 0.0, 1.0),
            ("train.unet.ema_decay", self.train.unet.ema_decay, 0.0, 1.0),
            ("train.kl_weight", self.train.kl_weight, 0.0, 1e6),
            ("train.vae.weight_decay", self.train.vae.weight_decay, 0.0, 1e3),
            ("train.unet.weight_decay", self.train.unet.weight_decay, 0.0, 1e3),
        ];
        if let Some((key, value, low, high)) = ranges.iter().find(|(_, v, low, high)| !(low..=high).contains(&v)) {
            usage!("{key} is {value}; expected a value from {low} to {high}");
        }
        Ok(())
    }

    /// Refuses sizes of 0, and sizes that no machine could hold.
    fn check_sizes(&self) -> Result<()> {
        let largest = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
        let sizes = [
            ("image_size", self.image_size, 1024),
            ("the number of entries of vae.channels", self.vae.channels.len(), 8),
            ("the largest of vae.channels", largest(&self.vae.channels), 4096),
            ("vae.blocks", self.vae.blocks, 16),
            ("vae.latent_channels", self.vae.latent_channels, 256),
            ("unet.channels", self.unet.channels, 4096),
            ("the number of entries of unet.channel_mult", self.unet.channel_mult.len(), 8),
            ("the largest of unet.channel_mult", largest(&self.unet.channel_mult), 64),
            ("unet.blocks", self.unet.blocks, 16),
            ("train.vae.steps", self.train.vae.steps as usize, 1 << 31),
            ("train.unet.steps", self.train.unet.steps as usize, 1 << 31),
            ("train.vae.batch_size", self.train.vae.batch_size, 1 << 16),
            ("train.unet.batch_size", self.train.unet.batch_size, 1 << 16),
            ("sampler.steps", self.sampler.steps, 1 << 20),
            ("sampler.batch_size", self.sampler.batch_size, 1 << 16),
            ("diffusion.steps", self.diffusion.steps, 1 << 20),
        ];
        match sizes.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some((key, value, most)) => usage!("{key} is {value}; expected from 1 to {most}"),
            None => Ok(()),
        }
    }

    /// The keys in which `self` and `other` differ and that change what a run trains.
    pub fn training_differences(&self, other: &Config) -> Vec<String> {
        let flat = |config: &Config| layers::flatten(&config.to_table());
        let (ours, theirs) = (flat(self), flat(other));
        let trains = |key: &str| !key.starts_with("sampler.") && !key.starts_with("eval.");
        let differs = |(key, value): &(&String, &toml::Value)| trains(key) && theirs.get(*key) != Some(value);
        ours.iter().filter(differs).map(|(key, _)| key.clone()).collect()
    }

    pub fn to_table(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }

    /// The configuration as a TOML document.
    pub fn to_toml(&self) -> String {
        self.to_table().to_string()
    }
}
