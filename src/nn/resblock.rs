//! The residual block of the VAE and, with an embedding, of the UNet.

use candle_nn::VarBuilder;

use super::{Conv2d, ConvConfig, GroupNorm, Linear, LinearConfig};
use crate::error::Result;
use crate::fail;
use crate::ops::{Activation, Input, Tape, Value, concat};

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

    /// `x`: (B, H, W, in), or two that have so many channels together; `embedding`: (B, width), already through its SiLU;
    /// result: (B, H, W, out).
    pub fn forward(&self, tape: &Tape, x: &[&Value], embedding: Option<&Value>) -> Result<Value> {
        let joined = join(x)?;
        let norm1 = self.norm1.before(tape, None, Activation::Silu);
        let h = self.conv1.forward(tape, &joined.clone().normalized(norm1))?;
        let scale_shift = match (&self.embedding, embedding) {
            (Some(layer), Some(embedding)) => Some(layer.forward(tape, embedding)?),
            (None, None) => None,
            _ => fail!("a residual block was built with an embedding and called without, or the reverse"),
        };
        let h = Input::of(&h).normalized(self.norm2.before(tape, scale_shift, Activation::Silu));
        let residual = match (&self.skip, x) {
            (Some(skip), _) => skip.forward(tape, &joined)?,
            (None, [x]) => (*x).clone(),
            (None, _) => x[1..].iter().try_fold(x[0].clone(), |all, x| concat(tape, &all, x))?,
        };
        self.conv2.forward_add(tape, &h, &residual)
    }
}

/// Values side by side.
fn join(x: &[&Value]) -> Result<Input> {
    match x.split_first() {
        Some((first, rest)) => Ok(rest.iter().fold(Input::of(first), |all, x| all.join(x))),
        None => fail!("a residual block was called without an input"),
    }
}
