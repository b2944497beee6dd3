//! Differentiable operations on NHWC tensors, recorded on a [`Tape`].
//!
//! Each op checks its shapes, runs the device's kernel (`cpu`, or `cuda` for tensors of a GPU) outside candle's graph and
//! records its own backward.
//! `reference` holds the plain version of each, which the tests compare with.

mod activate;
mod attention;
mod batch_norm;
pub mod check;
mod conv;
pub mod cpu;
#[cfg(any(feature = "cuda", cuda_emulated))]
pub mod cuda;
mod elementwise;
mod losses;
mod noise;
pub mod reference;
pub mod tape;

pub use activate::{activate, max_pool, mean_pixels};
pub use attention::attention;
pub use batch_norm::{BatchFactors, batch_norm, follow};
pub use conv::{Convolution, Input, Norm, conv2d, linear};
pub use cpu::norm::Activation;
pub use elementwise::{add, concat, embedding, flatten, gaussian_sample, overwrite, reshape, silu, weighted_sum};
pub use losses::{cross_entropy, distillation_loss, gaussian_kl, squared_error};
pub use noise::{diffuse, normal};
pub use tape::{Gradients, Tape, Value};
