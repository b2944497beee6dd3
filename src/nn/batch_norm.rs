//! Batch normalization with its trainable factors and the running statistics that it tests with.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::norm::EPS;
use super::params::{RUNNING_MEAN, RUNNING_VAR};
use crate::error::Result;
use crate::ops::cpu::{Floats, tensor, update};
use crate::ops::{Activation, Norm, Tape, Value, batch_norm};

/// The share of a new batch in the running statistics, as in PyTorch.
const MOMENTUM: f32 = 0.1;

/// All of (channels). Computes on the CPU only.
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
        let n = (x.tensor().elem_count() / found.mean.len()) as f32;
        let unbiased = found.variance.iter().map(|v| v * n / (n - 1.0).max(1.0)).collect::<Vec<_>>();
        for (running, of_batch) in [(&self.running_mean, &found.mean), (&self.running_var, &unbiased)] {
            update(running, |running| {
                running.iter_mut().zip(of_batch).for_each(|(r, b)| *r += MOMENTUM * (b - *r));
            })?;
        }
        Ok((found.factor, found.offset))
    }

    fn of_the_past(&self) -> Result<(Value, Value)> {
        let (weight, bias) = (Floats::of(&self.weight)?, Floats::of(&self.bias)?);
        let (mean, variance) = (Floats::of(&self.running_mean)?, Floats::of(&self.running_var)?);
        let factor: Vec<f32> = weight.iter().zip(&*variance).map(|(w, v)| w / (v + EPS).sqrt()).collect();
        let offset: Vec<f32> = bias.iter().zip(&*mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
        let channels = factor.len();
        Ok((Value::constant(tensor(factor, channels)?), Value::constant(tensor(offset, channels)?)))
    }
}
