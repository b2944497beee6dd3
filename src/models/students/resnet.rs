//! ResNet-18 for small images (He et al. 2016, section 4.2; as in the dataset-condensation benchmark): a 3 x 3 stem
//! without pooling, four stages of two blocks.

use candle_nn::VarBuilder;

use super::norm::{ChannelNorm, NormKind};
use super::{Classifier, at_least};
use crate::error::Result;
use crate::nn::{Conv2d, ConvConfig, Linear, LinearConfig};
use crate::ops::{self, Activation, Input, Tape, Value};

/// Blocks of each stage.
const BLOCKS: usize = 2;
const STAGES: usize = 4;

/// The sizes of a ResNet-18.
#[derive(Clone, Copy, Debug)]
pub struct ResNetConfig {
    /// Channels of the first stage; each stage doubles them and halves the sides of the image.
    pub width: usize,
    pub norm: NormKind,
    /// Height and width of the images in pixels, at least 16.
    pub size: usize,
    pub classes: usize,
}

/// The head reads the mean over all pixels.
#[derive(Clone, Debug)]
pub struct ResNet {
    stem: (Conv2d, ChannelNorm),
    blocks: Vec<Block>,
    head: Linear,
}

impl ResNet {
    pub fn new(config: ResNetConfig, vb: VarBuilder) -> Result<Self> {
        at_least("resnet18", config.size, 16)?;
        let ResNetConfig { width, norm, classes, .. } = config;
        let mut blocks = Vec::new();
        let mut inputs = width;
        for i in 0..STAGES * BLOCKS {
            let (outputs, stride) = (width << (i / BLOCKS), if i > 0 && i % BLOCKS == 0 { 2 } else { 1 });
            blocks.push(Block::new(inputs, outputs, stride, norm, vb.pp(format!("block{i}")))?);
            inputs = outputs;
        }
        Ok(ResNet {
            stem: (conv(3, width, 3, 1, vb.pp("stem.conv"))?, ChannelNorm::new(norm, width, vb.pp("stem.norm"))?),
            blocks,
            head: Linear::new(LinearConfig { inputs, outputs: classes, zero: false }, vb.pp("head"))?,
        })
    }
}

impl Classifier for ResNet {
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let (conv, norm) = &self.stem;
        let x = norm.of(tape, &conv.forward(tape, &Input::of(x))?, Activation::Relu)?;
        let mut x = ops::activate(tape, &x, None, Activation::Identity)?;
        for block in &self.blocks {
            x = block.forward(tape, &x)?;
        }
        ops::mean_pixels(tape, &x)
    }

    fn head(&self) -> &Linear {
        &self.head
    }
}

/// A convolution without a bias that keeps the size, but for its stride.
fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, vb: VarBuilder) -> Result<Conv2d> {
    Conv2d::new(inputs, outputs, ConvConfig { kernel, stride, padding: kernel / 2, zero: false, bias: false }, vb)
}

/// relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x)).
#[derive(Clone, Debug)]
struct Block {
    conv1: Conv2d,
    norm1: ChannelNorm,
    conv2: Conv2d,
    norm2: ChannelNorm,
    /// A pointwise convolution and its norm, where the shape changes.
    shortcut: Option<(Conv2d, ChannelNorm)>,
}

impl Block {
    fn new(inputs: usize, outputs: usize, stride: usize, norm: NormKind, vb: VarBuilder) -> Result<Self> {
        let normed = |name: &str| ChannelNorm::new(norm, outputs, vb.pp(name));
        Ok(Block {
            conv1: conv(inputs, outputs, 3, stride, vb.pp("conv1"))?,
            norm1: normed("norm1")?,
            conv2: conv(outputs, outputs, 3, 1, vb.pp("conv2"))?,
            norm2: normed("norm2")?,
            shortcut: match (inputs, stride) == (outputs, 1) {
                true => None,
                false => Some((conv(inputs, outputs, 1, stride, vb.pp("shortcut.conv"))?, normed("shortcut.norm")?)),
            },
        })
    }

    fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let input = Input::of(x);
        let h = self.norm1.of(tape, &self.conv1.forward(tape, &input)?, Activation::Relu)?;
        let h = self.norm2.of(tape, &self.conv2.forward(tape, &h)?, Activation::Identity)?;
        let residual = match &self.shortcut {
            None => x.clone(),
            Some((conv, norm)) => {
                let skipped = norm.of(tape, &conv.forward(tape, &input)?, Activation::Identity)?;
                ops::activate(tape, &skipped, None, Activation::Identity)?
            }
        };
        ops::activate(tape, &h, Some(&residual), Activation::Relu)
    }
}
