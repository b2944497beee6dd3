//! 2-d convolution, NHWC.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::default_init;
use crate::error::Result;
use crate::ops::{self, Convolution, Input, Tape, Value};

/// The shape of a convolution; the default is 3 x 3 that keeps the size.
#[derive(Clone, Copy, Debug)]
pub struct ConvConfig {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    /// Start from zero, for the last layer of a residual branch.
    pub zero: bool,
    /// Whether there is a bias; a norm right behind it takes its place.
    pub bias: bool,
}

impl Default for ConvConfig {
    fn default() -> Self {
        ConvConfig { kernel: 3, stride: 1, padding: 1, zero: false, bias: true }
    }
}

/// `weight`: (out, kernel, kernel, in); `bias`: (out), if there is one.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfig,
}

impl Conv2d {
    pub fn new(in_channels: usize, out_channels: usize, config: ConvConfig, vb: VarBuilder) -> Result<Self> {
        let k = config.kernel;
        let init = if config.zero { Init::Const(0.0) } else { default_init(k * k * in_channels) };
        Ok(Conv2d {
            weight: vb.get_with_hints((out_channels, k, k, in_channels), "weight", init)?,
            bias: config.bias.then(|| vb.get_with_hints(out_channels, "bias", init)).transpose()?,
            config,
        })
    }

    /// (B, H, W, in) to (B, H', W', out).
    pub fn forward(&self, tape: &Tape, input: &Input) -> Result<Value> {
        self.apply(tape, input, None, false)
    }

    /// The same plus `residual`, of the output's shape.
    pub fn forward_add(&self, tape: &Tape, input: &Input, residual: &Value) -> Result<Value> {
        self.apply(tape, input, Some(residual), false)
    }

    /// The same in f32, for a network's last layer.
    pub fn forward_f32(&self, tape: &Tape, input: &Input) -> Result<Value> {
        self.apply(tape, input, None, true)
    }

    fn apply(&self, tape: &Tape, input: &Input, residual: Option<&Value>, f32_output: bool) -> Result<Value> {
        let (weight, bias) = (tape.param(&self.weight), self.bias.as_ref().map(|bias| tape.param(bias)));
        let ConvConfig { stride, padding, .. } = self.config;
        ops::conv2d(tape, input, &weight, Convolution { stride, padding, bias: bias.as_ref(), residual, f32_output })
    }
}
