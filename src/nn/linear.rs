//! Linear layer with bias.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::default_init;
use crate::error::Result;
use crate::ops::{self, Tape, Value};

/// The shape of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearConfig {
    pub inputs: usize,
    pub outputs: usize,
    /// Start from zero, for the last layer of a residual branch.
    pub zero: bool,
}

/// `weight`: (out, in); `bias`: (out).
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub fn new(config: LinearConfig, vb: VarBuilder) -> Result<Self> {
        let init = if config.zero { Init::Const(0.0) } else { default_init(config.inputs) };
        Ok(Linear {
            weight: vb.get_with_hints((config.outputs, config.inputs), "weight", init)?,
            bias: vb.get_with_hints(config.outputs, "bias", init)?,
        })
    }

    /// (..., in) to (..., out).
    pub fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        ops::linear(tape, x, &tape.param(&self.weight), Some(&tape.param(&self.bias)), None)
    }

    /// The same plus `residual`, of the output's shape.
    pub fn forward_add(&self, tape: &Tape, x: &Value, residual: &Value) -> Result<Value> {
        ops::linear(tape, x, &tape.param(&self.weight), Some(&tape.param(&self.bias)), Some(residual))
    }
}
