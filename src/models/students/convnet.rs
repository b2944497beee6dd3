//! The ConvNet of the dataset-condensation benchmark (Zhao et al. 2021; the challenge's evaluator).

use candle_nn::VarBuilder;

use crate::error::Result;
use crate::nn::{Conv2d, ConvConfig, GroupNorm, Linear, LinearConfig};
use crate::ops::{Activation, Input, Tape, Value};

/// The sizes of a ConvNet.
#[derive(Clone, Copy, Debug)]
pub struct ConvNetConfig {
    pub depth: usize,
    pub width: usize,
    /// Height and width of the images in pixels, at least 2^depth.
    pub size: usize,
    pub classes: usize,
}

/// `depth` blocks of conv 3 x 3, instance norm (affine), ReLU and 2 x 2 average pooling, then a linear head.
#[derive(Clone, Debug)]
pub struct ConvNet {
    blocks: Vec<(Conv2d, GroupNorm)>,
    head: Linear,
    /// Height and width of what the head reads.
    side: usize,
}

impl ConvNet {
    pub fn new(config: ConvNetConfig, vb: VarBuilder) -> Result<Self> {
        let block = |i: usize| {
            let inputs = if i == 0 { 3 } else { config.width };
            let vb = vb.pp(format!("block{i}"));
            Ok((
                Conv2d::new(inputs, config.width, ConvConfig::default(), vb.pp("conv"))?,
                GroupNorm::new(config.width, config.width, vb.pp("norm"))?,
            ))
        };
        let side = config.size >> config.depth;
        let head = LinearConfig { inputs: side * side * config.width, outputs: config.classes, zero: false };
        Ok(ConvNet {
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            head: Linear::new(head, vb.pp("head"))?,
            side,
        })
    }

    /// Normalized images (B, H, W, 3) to logits (B, classes). The head reads the features in the order (h, w, c).
    pub fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let mut h = Input::of(x);
        for (conv, norm) in &self.blocks {
            let x = conv.forward(tape, &h)?;
            h = Input::of(&x).normalized(norm.before(tape, None, Activation::Relu)).pooled();
        }
        self.head.over_images(tape, &h, self.side)
    }
}
