//! `distill`: dataset distillation with class-conditional latent diffusion.
//!
//! The way data goes, and where each step lives:
//!
//! ```text
//! ImageSet (u8 pixels, labels, class names)            data
//!   -> VAE trains -> latents cached + their mean/std    stages (models::vae, train)
//!   -> UNet trains on latents (+ EMA)                   stages (models::unet, diffusion, train)
//!   -> sampler: noise of (seed, class, index) -> latent stages (diffusion::samplers)
//!   -> VAE decodes -> DistilledSet                      distilled (formats: other programs' files, out and in)
//!   -> the same ImageSet type -> students -> eval.json  eval
//!   -> all of a run's files -> one HTML page            report
//! ```
//!
//! `ops` knows candle only; `nn` knows `ops`; `models` know `nn`; `diffusion` never knows `models`; `train` never knows
//! `models`, `diffusion` or `data`; `stages` put them together; `commands` know everything. `tests/layers.rs` holds these
//! arrows.

pub mod checksums;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod diffusion;
pub mod distilled;
pub mod environment;
pub mod error;
pub mod eval;
pub mod formats;
pub mod fs;
pub mod interrupt;
pub mod models;
mod nearest;
pub mod nn;
pub mod ops;
mod order;
pub mod picture;
pub mod progress;
pub mod report;
pub mod rng;
pub mod run_dir;
pub mod stages;
pub mod train;
