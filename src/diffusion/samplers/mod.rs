//! From noise to latents.

mod ddim;

pub use ddim::Ddim;

use candle_core::Tensor;

use super::{Denoiser, NoiseSource};
use crate::error::Result;

/// An algorithm that turns noise into samples with a [`Denoiser`].
pub trait Sampler {
    /// Samples one latent for each image of `noise`: (B, H, W, C). `on_step` is called after every step; its error
    /// ends the sampling.
    fn sample(&self, denoiser: &dyn Denoiser, noise: &NoiseSource, on_step: &dyn Fn() -> Result<()>) -> Result<Tensor>;
}
