//! A perceptron with two hidden layers and ReLU, as in the dataset-condensation benchmark.

use candle_nn::VarBuilder;

use super::{Classifier, hidden};
use crate::error::Result;
use crate::nn::{Linear, LinearConfig};
use crate::ops::{self, Tape, Value};

/// The sizes of an MLP.
#[derive(Clone, Copy, Debug)]
pub struct MlpConfig {
    /// Values of each hidden layer.
    pub width: usize,
    /// Height and width of the images in pixels.
    pub size: usize,
    pub classes: usize,
}

/// Reads an image's values in the order (h, w, c).
#[derive(Clone, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    head: Linear,
}

impl Mlp {
    pub fn new(config: MlpConfig, vb: VarBuilder) -> Result<Self> {
        let MlpConfig { width, size, classes } = config;
        let linear = |inputs, outputs, name| Linear::new(LinearConfig { inputs, outputs, zero: false }, vb.pp(name));
        Ok(Mlp {
            fc1: linear(size * size * 3, width, "fc1")?,
            fc2: linear(width, width, "fc2")?,
            head: linear(width, classes, "head")?,
        })
    }
}

impl Classifier for Mlp {
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let x = hidden(tape, &self.fc1.forward(tape, &ops::flatten(tape, x)?)?)?;
        hidden(tape, &self.fc2.forward(tape, &x)?)
    }

    fn head(&self) -> &Linear {
        &self.head
    }
}
