//! Differentiable operations on NHWC tensors, recorded on a [`Tape`].
//!
//! Each op checks its shapes, runs the device's kernel outside candle's graph and records its own backward.
//! `reference` holds the plain version of each, which the tests compare with.

mod attention;
mod conv;
pub mod cpu;
mod elementwise;
mod losses;
mod norm;
pub mod reference;
mod resample;
pub mod tape;

pub use attention::attention;
pub use conv::{conv2d, linear};
pub use cpu::norm::Activation;
pub use elementwise::{add, concat, embedding, gaussian_sample, reshape, silu, weighted_sum};
pub use losses::{cross_entropy, gaussian_kl, squared_error};
pub use norm::group_norm;
pub use resample::{avg_pool2x, upsample2x};
pub use tape::{Gradients, Tape, Value};
