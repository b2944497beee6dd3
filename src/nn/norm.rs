//! Group normalization with its trainable factors.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use crate::error::Result;
use crate::ops::{Activation, Norm, Tape, Value};

/// As in PyTorch.
pub(super) const EPS: f32 = 1e-5;

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

    /// What goes before a convolution: the norm, the scale and shift of each image, `scale_shift` (B, 2C), and `act`.
    pub fn before(&self, tape: &Tape, scale_shift: Option<Value>, act: Activation) -> Norm {
        let (gamma, beta) = (tape.param(&self.weight), tape.param(&self.bias));
        Norm { gamma, beta, scale_shift, groups: self.groups, act, eps: EPS }
    }
}
