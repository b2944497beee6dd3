//! The ConvNet of the dataset-condensation benchmark (Zhao et al. 2021; the challenge's evaluator).

use candle_nn::VarBuilder;

use super::Classifier;
use super::norm::{ChannelNorm, NormKind};
use crate::error::Result;
use crate::fail;
use crate::nn::{Conv2d, ConvConfig, Linear, LinearConfig};
use crate::ops::{self, Activation, Input, Tape, Value};

/// The sizes that a protocol gives a ConvNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvNetSize {
    pub depth: usize,
    pub width: usize,
}

/// The sizes of a ConvNet.
#[derive(Clone, Copy, Debug)]
pub struct ConvNetConfig {
    pub depth: usize,
    pub width: usize,
    pub norm: NormKind,
    /// Height and width of the images in pixels, at least 2^depth.
    pub size: usize,
    pub classes: usize,
}

/// `depth` blocks of conv 3 x 3, norm, ReLU and 2 x 2 average pooling, then a linear head.
#[derive(Clone, Debug)]
pub struct ConvNet {
    blocks: Vec<(Conv2d, ChannelNorm)>,
    head: Linear,
    /// Height and width of what the head reads.
    side: usize,
}

impl ConvNet {
    pub fn new(config: ConvNetConfig, vb: VarBuilder) -> Result<Self> {
        let ConvNetConfig { depth, size, .. } = config;
        if depth >= usize::BITS as usize || size >> depth == 0 {
            fail!(
                "student convnet: {depth} blocks halve the image {depth} times, but images are {size} x {size} pixels; \
                 use images of at least {} pixels",
                1u64 << depth.min(63)
            );
        }
        let block = |i: usize| {
            let inputs = if i == 0 { 3 } else { config.width };
            let vb = vb.pp(format!("block{i}"));
            Ok((
                Conv2d::new(inputs, config.width, ConvConfig::default(), vb.pp("conv"))?,
                ChannelNorm::new(config.norm, config.width, vb.pp("norm"))?,
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

    /// What the head reads, (B, side, side, width), whose last norm and pooling come as it is read.
    fn body(&self, tape: &Tape, x: &Value) -> Result<Input> {
        let mut h = Input::of(x);
        for (conv, norm) in &self.blocks {
            let x = conv.forward(tape, &h)?;
            h = norm.of(tape, &x, Activation::Relu)?.pooled();
        }
        Ok(h)
    }
}

impl Classifier for ConvNet {
    /// In the order (h, w, c).
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let x = ops::activate(tape, &self.body(tape, x)?, None, Activation::Identity)?;
        ops::flatten(tape, &x)
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    /// Without the features in memory.
    fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        self.head.over_images(tape, &self.body(tape, x)?, self.side)
    }
}
