//! Batch normalization with its trainable factors and the running statistics that it tests with.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::norm::EPS;
use super::params::{RUNNING_MEAN, RUNNING_VAR};
use crate::error::Result;
use crate::ops::{Activation, Norm, Tape, Value, batch_norm, follow};

/// The share of a new batch in the running statistics, as in PyTorch.
const MOMENTUM: f32 = 0.1;

/// All of (channels).
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    /// Unbiased.
    running_var: Tensor,
}

impl BatchNorm {
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(BatchNorm {
            weight: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
            running_mean: vb.get_with_hints(channels, RUNNING_MEAN, Init::Const(0.0))?,
            running_var: vb.get_with_hints(channels, RUNNING_VAR, Init::Const(1.0))?,
        })
    }

    /// What turns `x` into act(norm(x)): with the statistics of the batch on a tape that records, which then become part of
    /// the running ones, and with the running ones otherwise.
    pub fn before(&self, tape: &Tape, x: &Value, act: Activation) -> Result<Norm> {
        let (gamma, beta) = match tape.is_recording() {
            true => self.of_batch(tape, x)?,
            false => self.of_the_past()?,
        };
        Ok(Norm { gamma, beta, scale_shift: None, groups: 0, act, eps: 0.0 })
    }

    fn of_batch(&self, tape: &Tape, x: &Value) -> Result<(Value, Value)> {
        let found = batch_norm(tape, x, &tape.param(&self.weight), &tape.param(&self.bias), EPS)?;
        let n = (x.tensor().elem_count() / self.weight.elem_count()) as f32;
        let others = Tensor::full((n - 1.0).max(1.0), self.weight.shape(), self.weight.device())?;
        let unbiased = (found.variance.affine(f64::from(n), 0.0)? / others)?;
        follow(&self.running_mean, &found.mean, MOMENTUM)?;
        follow(&self.running_var, &unbiased, MOMENTUM)?;
        Ok((found.factor, found.offset))
    }

    fn of_the_past(&self) -> Result<(Value, Value)> {
        let deviation = self.running_var.affine(1.0, f64::from(EPS))?.sqrt()?;
        let factor = (&self.weight / deviation)?;
        let offset = (&self.bias - (&self.running_mean * &factor)?)?;
        Ok((Value::constant(factor), Value::constant(offset)))
    }
}
