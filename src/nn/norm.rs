//! Group normalization with its trainable factors.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use crate::error::Result;
use crate::ops::{self, Activation, Tape, Value};

/// As in PyTorch.
const EPS: f32 = 1e-5;

/// `weight` and `bias`: (channels).
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
}

impl GroupNorm {
    pub fn new(groups: usize, channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(GroupNorm {
            weight: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
            groups,
        })
    }

    /// Normalizes (B, ..., C), then applies `act`.
    pub fn forward(&self, tape: &Tape, x: &Value, act: Activation) -> Result<Value> {
        self.apply(tape, x, None, act)
    }

    /// Normalizes (B, ..., C), then scales and shifts each image by `scale_shift` (B, 2C), then applies `act`.
    pub fn forward_scaled(&self, tape: &Tape, x: &Value, scale_shift: &Value, act: Activation) -> Result<Value> {
        self.apply(tape, x, Some(scale_shift), act)
    }

    fn apply(&self, tape: &Tape, x: &Value, scale_shift: Option<&Value>, act: Activation) -> Result<Value> {
        let (weight, bias) = (tape.param(&self.weight), tape.param(&self.bias));
        ops::group_norm(tape, x, &weight, &bias, scale_shift, self.groups, act, EPS)
    }
}
