//! Linear layer with bias.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::default_init;
use crate::error::Result;
use crate::ops::{self, Convolution, Input, Tape, Value};

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

    /// (rows, in) to (rows, out), in f32.
    pub fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        ops::linear(tape, x, &tape.param(&self.weight), Some(&tape.param(&self.bias)))
    }

    /// Every pixel of (B, H, W, in) to (B, H, W, out), plus `residual`.
    pub fn over_pixels(&self, tape: &Tape, input: &Input, residual: Option<&Value>) -> Result<Value> {
        self.over_patches(tape, input, 1, Convolution { residual, ..Default::default() })
    }

    /// Every image of (B, side, side, C), whose in = side x side x C values are read in the order (h, w, c): (B, out), in
    /// f32.
    pub fn over_images(&self, tape: &Tape, input: &Input, side: usize) -> Result<Value> {
        let options = Convolution { stride: side, f32_output: true, ..Default::default() };
        let out = self.over_patches(tape, input, side, options)?;
        let (batch, _, _, outputs) = out.nhwc()?;
        ops::reshape(tape, &out, &[batch, outputs])
    }

    /// The layer as a convolution with a kernel of `side` x `side` pixels.
    fn over_patches(&self, tape: &Tape, input: &Input, side: usize, options: Convolution) -> Result<Value> {
        let (outputs, inputs) = self.weight.dims2()?;
        let dims = [outputs, side, side, inputs / (side * side)];
        let weight = ops::reshape(tape, &tape.param(&self.weight), &dims)?;
        ops::conv2d(tape, input, &weight, Convolution { bias: Some(&tape.param(&self.bias)), ..options })
    }
}
