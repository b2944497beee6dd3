//! Noise to images: the UNet under guidance, a sampler, and the VAE's decoder.

use candle_core::{Device, Tensor};

use super::{LatentStatistics, to_pixels};
use crate::config::{Config, SamplerConfig};
use crate::diffusion::samplers::{Ddim, DpmSolver, Sampler, SamplerKind};
use crate::diffusion::{Guided, Network, NoiseSchedule, NoiseSource, Parameterized};
use crate::error::Result;
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::ops::{Tape, Value};

/// How images are drawn from a trained generator.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    pub method: SamplerKind,
    pub steps: usize,
    pub guidance: f64,
    pub eta: f64,
    pub seed: u64,
}

impl Sampling {
    /// As `config` says for `ipc` images a class.
    pub fn of(config: &Config, ipc: u32, seed: u64) -> Self {
        let SamplerConfig { method, steps, ref guidance, eta, .. } = config.sampler;
        Sampling { method, steps, guidance: guidance.at(ipc), eta, seed }
    }
}

/// Both trained networks and what lies between them.
pub struct Generator<'a> {
    pub vae: &'a Vae,
    pub unet: &'a UNet,
    pub statistics: &'a LatentStatistics,
    pub config: &'a Config,
    pub classes: usize,
    pub device: Device,
}

impl Generator<'_> {
    /// Samples the images named by (class, index within the class): bytes, (B, H, W, 3). `on_step` is called after
    /// every step of the sampler.
    pub fn sample(
        &self,
        images: &[(u32, u32)],
        sampling: &Sampling,
        on_step: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u8>> {
        let schedule = NoiseSchedule::new(self.config.diffusion.schedule, self.config.diffusion.steps);
        let shape = self.config.latents(self.classes);
        let noise = NoiseSource {
            seed: sampling.seed,
            images: images.to_vec(),
            size: shape.size,
            channels: shape.channels,
            device: self.device.clone(),
        };
        let prediction = self.config.diffusion.prediction;
        let denoiser = Parameterized { net: Frozen(self.unet), schedule: &schedule, prediction };
        let guided = Guided { inner: denoiser, null_class: self.classes as u32, scale: sampling.guidance };
        let (schedule, steps, eta) = (&schedule, sampling.steps, sampling.eta);
        let sampler: &dyn Sampler = match sampling.method {
            SamplerKind::Ddim => &Ddim { schedule, steps, eta },
            SamplerKind::DpmSolver => &DpmSolver { schedule, steps },
        };
        let latents = self.statistics.restore(&sampler.sample(&guided, &noise, on_step)?)?;
        to_pixels(self.vae.decode(&Tape::inference(), &Value::constant(latents))?.tensor())
    }
}

/// A UNet whose weights are only read.
struct Frozen<'a>(&'a UNet);

impl Network for Frozen<'_> {
    fn predict(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor> {
        let times = vec![t as f32; classes.len()];
        let x = Value::constant(x.contiguous()?);
        Ok(self.0.forward(&Tape::inference(), &x, &times, classes)?.tensor().clone())
    }
}
