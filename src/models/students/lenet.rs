//! LeNet-5 (after LeCun et al. 1998; as in the dataset-condensation benchmark): two convolutions of 5 x 5 without padding,
//! ReLU and max pooling, three linear layers.

use candle_nn::VarBuilder;

use super::{Classifier, at_least, hidden, relu_and_pool};
use crate::error::Result;
use crate::nn::{Conv2d, ConvConfig, Linear, LinearConfig};
use crate::ops::{Input, Tape, Value};

/// Channels of the convolutions and values of the hidden layers.
const CHANNELS: [usize; 2] = [6, 16];
const HIDDEN: [usize; 2] = [120, 84];

#[derive(Clone, Debug)]
pub struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    head: Linear,
    /// Height and width of what `fc1` reads, in the order (h, w, c).
    side: usize,
}

impl LeNet {
    /// For images of `size` x `size` pixels, at least 16.
    pub fn new(size: usize, classes: usize, vb: VarBuilder) -> Result<Self> {
        at_least("lenet", size, 16)?;
        let side = ((size - 4) / 2 - 4) / 2;
        let shape = ConvConfig { kernel: 5, padding: 0, ..Default::default() };
        let linear = |inputs, outputs, name| Linear::new(LinearConfig { inputs, outputs, zero: false }, vb.pp(name));
        Ok(LeNet {
            conv1: Conv2d::new(3, CHANNELS[0], shape, vb.pp("conv1"))?,
            conv2: Conv2d::new(CHANNELS[0], CHANNELS[1], shape, vb.pp("conv2"))?,
            fc1: linear(side * side * CHANNELS[1], HIDDEN[0], "fc1")?,
            fc2: linear(HIDDEN[0], HIDDEN[1], "fc2")?,
            head: linear(HIDDEN[1], classes, "head")?,
            side,
        })
    }
}

impl Classifier for LeNet {
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let x = relu_and_pool(tape, &self.conv1.forward(tape, &Input::of(x))?)?;
        let x = relu_and_pool(tape, &self.conv2.forward(tape, &Input::of(&x))?)?;
        let x = hidden(tape, &self.fc1.over_images(tape, &Input::of(&x), self.side)?)?;
        hidden(tape, &self.fc2.forward(tape, &x)?)
    }

    fn head(&self) -> &Linear {
        &self.head
    }
}
