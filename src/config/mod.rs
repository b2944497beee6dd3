//! The typed configuration: preset < file < `--set key=value` and flags. Unknown keys are refused.

mod guidance;
mod layers;
mod limits;
mod presets;
mod reference;

pub use guidance::Guidance;
pub use layers::{Layers, Override};
pub use presets::{Preset, default_preset, preset_names};
pub use reference::{Key, keys, markdown};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::diffusion::samplers::SamplerKind;
use crate::diffusion::{Prediction, ScheduleKind};
use crate::error::Result;
use crate::models::unet::{LatentShape, UNetConfig};
use crate::models::vae::VaeConfig;
use crate::train::StageConfig;
use crate::usage;

/// Everything that decides a run's result, besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data set that is distilled: one by name, folder:PATH or hf:OWNER/NAME.
    #[schemars(with = "String")]
    pub dataset: Dataset,
    /// Height and width of its images in pixels. The official sets have one size; folders are resized to any.
    pub image_size: usize,
    /// Seed of training; `distill run` samples and judges with it too. Other commands take `--seed`, else 0.
    pub seed: u64,
    pub vae: VaeConfig,
    pub unet: UNetConfig,
    pub diffusion: DiffusionConfig,
    pub train: TrainConfig,
    pub sampler: SamplerConfig,
    pub eval: EvalConfig,
}

/// The noise that the UNet learns to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffusionConfig {
    /// How the share of noise grows with the step.
    pub schedule: ScheduleKind,
    /// T, the number of noise levels that training draws from.
    pub steps: usize,
    /// What the UNet predicts.
    pub prediction: Prediction,
    /// gamma of min-SNR loss weighting.
    pub min_snr_gamma: f64,
    /// Share of training images whose class is replaced by the null class.
    pub class_dropout: f64,
}

/// Training: what both networks share; [train.vae] and [train.unet] hold the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Steps between lines of metrics.jsonl; 0 writes only the last.
    pub log_every: u64,
    /// Steps between checkpoints; 0 writes none before the end.
    pub checkpoint_every: u64,
    /// Steps between validations with their pictures; 0 makes them at the end only.
    pub sample_every: u64,
}

/// How images are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// The algorithm.
    #[serde(default)]
    pub method: SamplerKind,
    /// Its steps, each one evaluation of the UNet, two under guidance.
    pub steps: usize,
    /// Scale of classifier-free guidance, from 0 to 100; 1 is none. One number, or pairs of images a class and scale:
    /// `[[1, 6.0], [10, 3.0]]` is 6 below ten images a class, and 3 from ten on. `--budget` takes the last.
    #[schemars(with = "guidance::Written")]
    pub guidance: Guidance,
    /// Of DDIM: 0 is deterministic, 1 as noisy as DDPM.
    pub eta: f64,
    /// Images drawn of each class for a set of fewer, of which a teacher of the data set, where there is one, keeps the best;
    /// 0 for none.
    #[serde(default)]
    pub pool: u32,
    /// Images sampled at once; it changes the speed and the memory, and pixels by rounding only.
    pub batch_size: usize,
}

/// How a set is judged unless the command says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// The protocol of configs/protocols/ that `eval` and `run` take where --protocol is not given.
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
        limits::check(self)?;
        self.dataset.check_size(self.image_size)?;
        self.vae.check(self.image_size)?;
        self.unet.check(self.latents(0).size)?;
        for (stage, config) in [("vae", &self.train.vae), ("unet", &self.train.unet)] {
            let StageConfig { batch_size, accumulate, .. } = *config;
            if batch_size % accumulate != 0 {
                usage!(
                    "train.{stage}.accumulate is {accumulate}, which does not divide train.{stage}.batch_size, {batch_size}; take one \
                     of its divisors"
                );
            }
        }
        self.sampler.guidance.check()?;
        if self.sampler.steps > self.diffusion.steps {
            usage!(
                "sampler.steps is {}, more than the {} of diffusion.steps; lower it",
                self.sampler.steps,
                self.diffusion.steps
            );
        }
        if self.sampler.method != SamplerKind::Ddim && self.sampler.eta != 0.0 {
            usage!(
                "sampler.eta is {}, but {} is deterministic; set it to 0, or sampler.method to \"ddim\"",
                self.sampler.eta,
                self.sampler.method
            );
        }
        Ok(())
    }

    /// The keys in which `self` and `other` differ and that change what a run trains. Parts of a batch only change roundings.
    pub fn training_differences(&self, other: &Config) -> Vec<String> {
        let flat = |config: &Config| layers::flatten(&config.to_table());
        let (ours, theirs) = (flat(self), flat(other));
        let trains =
            |key: &str| !key.starts_with("sampler.") && !key.starts_with("eval.") && !key.ends_with(".accumulate");
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
