//! From noise to latents.

mod ddim;
mod dpm_solver;

pub use ddim::Ddim;
pub use dpm_solver::DpmSolver;

use std::fmt;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Denoiser, NoiseSource};
use crate::error::Result;

/// The samplers by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerKind {
    /// DDIM (Song et al. 2021).
    #[default]
    Ddim,
    /// DPM-Solver++ 2M (Lu et al. 2022), which needs fewer steps.
    DpmSolver,
}

impl SamplerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            SamplerKind::Ddim => "ddim",
            SamplerKind::DpmSolver => "dpm-solver",
        }
    }
}

/// For people: "DDIM".
impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SamplerKind::Ddim => "DDIM",
            SamplerKind::DpmSolver => "DPM-Solver++ (2M)",
        })
    }
}

/// An algorithm that turns noise into samples with a [`Denoiser`].
pub trait Sampler {
    /// Samples one latent for each image of `noise`: (B, H, W, C). `on_step` is called after every step; its error
    /// ends the sampling.
    fn sample(&self, denoiser: &dyn Denoiser, noise: &NoiseSource, on_step: &dyn Fn() -> Result<()>) -> Result<Tensor>;
}
