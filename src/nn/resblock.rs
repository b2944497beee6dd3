//! The residual block of the VAE and, with an embedding, of the UNet.

use candle_nn::VarBuilder;

use super::{Conv2d, ConvConfig, GroupNorm, Linear, LinearConfig};
use crate::error::Result;
use crate::fail;
use crate::ops::{Activation, Tape, Value};

/// The sizes of a residual block.
#[derive(Clone, Copy, Debug)]
pub struct ResBlockConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub groups: usize,
    /// Width of the time and class embedding; `None` for a block without one.
    pub embedding: Option<usize>,
}

/// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), where the embedding scales and shifts norm2 (Dhariwal and Nichol
/// 2021, section 3) and a pointwise convolution takes x to the output's channels where they differ.
#[derive(Clone, Debug)]
pub struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    embedding: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    skip: Option<Conv2d>,
}

impl ResBlock {
    pub fn new(config: ResBlockConfig, vb: VarBuilder) -> Result<Self> {
        let ResBlockConfig { in_channels: inputs, out_channels: outputs, groups, embedding } = config;
        let pointwise = ConvConfig { kernel: 1, padding: 0, ..Default::default() };
        Ok(ResBlock {
            norm1: GroupNorm::new(groups, inputs, vb.pp("norm1"))?,
            conv1: Conv2d::new(inputs, outputs, ConvConfig::default(), vb.pp("conv1"))?,
            embedding: match embedding {
                Some(width) => {
                    let config = LinearConfig { inputs: width, outputs: 2 * outputs, zero: false };
                    Some(Linear::new(config, vb.pp("embedding"))?)
                }
                None => None,
            },
            norm2: GroupNorm::new(groups, outputs, vb.pp("norm2"))?,
            conv2: Conv2d::new(outputs, outputs, ConvConfig { zero: true, ..Default::default() }, vb.pp("conv2"))?,
            skip: match inputs == outputs {
                true => None,
                false => Some(Conv2d::new(inputs, outputs, pointwise, vb.pp("skip"))?),
            },
        })
    }

    /// `x`: (B, H, W, in); `embedding`: (B, width), already through its SiLU; result: (B, H, W, out).
    pub fn forward(&self, tape: &Tape, x: &Value, embedding: Option<&Value>) -> Result<Value> {
        let h = self.norm1.forward(tape, x, Activation::Silu)?;
        let h = self.conv1.forward(tape, &h)?;
        let h = match (&self.embedding, embedding) {
            (Some(layer), Some(embedding)) => {
                let scale_shift = layer.forward(tape, embedding)?;
                self.norm2.forward_scaled(tape, &h, &scale_shift, Activation::Silu)?
            }
            (None, None) => self.norm2.forward(tape, &h, Activation::Silu)?,
            _ => fail!("a residual block was built with an embedding and called without, or the reverse"),
        };
        match &self.skip {
            Some(skip) => self.conv2.forward_add(tape, &h, &skip.forward(tape, x)?),
            None => self.conv2.forward_add(tape, &h, x),
        }
    }
}
