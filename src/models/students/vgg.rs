//! VGG-11 for small images (Simonyan and Zisserman 2015, configuration A; as in the dataset-condensation benchmark, with a
//! norm behind each convolution and one linear layer).

use candle_nn::VarBuilder;

use super::norm::{ChannelNorm, NormKind};
use super::{Classifier, at_least};
use crate::error::Result;
use crate::nn::{Conv2d, ConvConfig, Linear, LinearConfig};
use crate::ops::{self, Activation, Input, Tape, Value};

/// (channels in units of the width, whether 2 x 2 max pooling follows) of each convolution.
const LAYERS: [(usize, bool); 8] =
    [(1, true), (2, true), (4, false), (4, true), (8, false), (8, true), (8, false), (8, true)];
/// The image's side over the side of what the head reads.
const REDUCTION: usize = 32;

/// The sizes of a VGG-11.
#[derive(Clone, Copy, Debug)]
pub struct VggConfig {
    /// Channels of the first convolution; the last ones have eight times as many.
    pub width: usize,
    pub norm: NormKind,
    /// Height and width of the images in pixels, at least 32.
    pub size: usize,
    pub classes: usize,
}

/// The head reads all pixels that are left, in the order (h, w, c).
#[derive(Clone, Debug)]
pub struct Vgg {
    layers: Vec<(Conv2d, ChannelNorm)>,
    head: Linear,
}

impl Vgg {
    pub fn new(config: VggConfig, vb: VarBuilder) -> Result<Self> {
        at_least("vgg11", config.size, REDUCTION)?;
        let mut layers = Vec::new();
        let mut inputs = 3;
        for (i, (factor, _)) in LAYERS.into_iter().enumerate() {
            let (outputs, vb) = (factor * config.width, vb.pp(format!("layer{i}")));
            let conv = Conv2d::new(inputs, outputs, ConvConfig::default(), vb.pp("conv"))?;
            layers.push((conv, ChannelNorm::new(config.norm, outputs, vb.pp("norm"))?));
            inputs = outputs;
        }
        let side = config.size / REDUCTION;
        let head = LinearConfig { inputs: side * side * inputs, outputs: config.classes, zero: false };
        Ok(Vgg { layers, head: Linear::new(head, vb.pp("head"))? })
    }
}

impl Classifier for Vgg {
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let mut x = Input::of(x);
        for ((conv, norm), (_, pooled)) in self.layers.iter().zip(LAYERS) {
            x = norm.of(tape, &conv.forward(tape, &x)?, Activation::Relu)?;
            if pooled {
                x = Input::of(&ops::max_pool(tape, &ops::activate(tape, &x, None, Activation::Identity)?)?);
            }
        }
        ops::flatten(tape, &ops::activate(tape, &x, None, Activation::Identity)?)
    }

    fn head(&self) -> &Linear {
        &self.head
    }
}
