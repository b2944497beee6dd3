//! AlexNet for small images (after Krizhevsky et al. 2012; as in the dataset-condensation benchmark): five convolutions
//! without norms, one linear layer.

use candle_nn::VarBuilder;

use super::{Classifier, at_least, relu, relu_and_pool};
use crate::error::Result;
use crate::fail;
use crate::nn::{Conv2d, ConvConfig, Linear, LinearConfig};
use crate::ops::{self, Input, Tape, Value};

/// (kernel, channels in halves of the width, whether 2 x 2 max pooling follows) of each convolution.
const LAYERS: [(usize, usize, bool); 5] = [(5, 2, true), (5, 3, true), (3, 4, false), (3, 3, false), (3, 3, true)];
/// The image's side over the side of what the head reads.
const REDUCTION: usize = 8;

/// The sizes of an AlexNet.
#[derive(Clone, Copy, Debug)]
pub struct AlexNetConfig {
    /// Channels of the first convolution, an even number.
    pub width: usize,
    /// Height and width of the images in pixels, at least 8.
    pub size: usize,
    pub classes: usize,
}

/// The head reads all pixels that are left, in the order (h, w, c).
#[derive(Clone, Debug)]
pub struct AlexNet {
    layers: Vec<Conv2d>,
    head: Linear,
}

impl AlexNet {
    pub fn new(config: AlexNetConfig, vb: VarBuilder) -> Result<Self> {
        at_least("alexnet", config.size, REDUCTION)?;
        if !config.width.is_multiple_of(2) {
            fail!("student alexnet: a width of {} is odd; use an even one", config.width);
        }
        let mut layers = Vec::new();
        let mut inputs = 3;
        for (i, (kernel, halves, _)) in LAYERS.into_iter().enumerate() {
            let outputs = halves * config.width / 2;
            let shape = ConvConfig { kernel, padding: kernel / 2, ..Default::default() };
            layers.push(Conv2d::new(inputs, outputs, shape, vb.pp(format!("conv{i}")))?);
            inputs = outputs;
        }
        let side = config.size / REDUCTION;
        let head = LinearConfig { inputs: side * side * inputs, outputs: config.classes, zero: false };
        Ok(AlexNet { layers, head: Linear::new(head, vb.pp("head"))? })
    }
}

impl Classifier for AlexNet {
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let mut x = x.clone();
        for (conv, (_, _, pooled)) in self.layers.iter().zip(LAYERS) {
            let h = conv.forward(tape, &Input::of(&x))?;
            x = if pooled { relu_and_pool(tape, &h)? } else { relu(tape, &h)? };
        }
        ops::flatten(tape, &x)
    }

    fn head(&self) -> &Linear {
        &self.head
    }
}
