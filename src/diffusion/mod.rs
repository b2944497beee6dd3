//! Diffusion, apart from any network: schedules, what the network predicts, guidance and samplers.
//!
//! Notation of Song et al. (2021): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e, where a_t is the cumulative product that Ho et
//! al. (2020) write as alpha-bar. Steps t run from 0 (nearly clean) to T - 1 (nearly noise).

mod guidance;
mod noise;
mod parameterization;
pub mod samplers;
mod schedule;

pub use guidance::Guided;
pub use noise::NoiseSource;
pub use parameterization::{Network, Parameterized, Prediction};
pub use schedule::{NoiseSchedule, ScheduleKind};

use candle_core::Tensor;

use crate::error::Result;

/// Estimates clean latents; all that a sampler sees of a network.
pub trait Denoiser {
    /// The expected x_0 of noisy latents `x` (B, H, W, C) at step `t`, for classes (B).
    fn x0(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor>;
}
