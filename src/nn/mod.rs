//! Layers: a config, a struct and `new(config, vb)`; a field's name is its weight's name.

mod attention;
mod batch_norm;
mod conv;
mod linear;
mod norm;
pub mod params;
mod resblock;
mod time;

pub use attention::AttentionBlock;
pub use batch_norm::BatchNorm;
pub use conv::{Conv2d, ConvConfig};
pub use linear::{Linear, LinearConfig};
pub use norm::GroupNorm;
pub use params::{Params, count};
pub use resblock::{ResBlock, ResBlockConfig};
pub use time::timestep_embedding;

use candle_nn::Init;

/// PyTorch's default for the weights and biases of linear and convolution layers: uniform in +-1 / sqrt(fan_in).
fn default_init(fan_in: usize) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}
