//! Group normalization, fused with the scale-shift of a time embedding and an activation.

use super::cpu::norm::{self as kernel, Activation, Affine, NormShape};
use super::cpu::{Floats, tensor, update};
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// act((x_hat gamma + beta) (1 + scale) + shift), where x_hat is `x` (B, ..., C) normalized over each image's `groups`
/// groups of channels (Wu and He 2018; the scale-shift as in Dhariwal and Nichol 2021, eq. 9).
///
/// `gamma`, `beta`: (C); `scale_shift`: (B, 2C), scale first. `groups` = C is instance normalization.
#[allow(clippy::too_many_arguments)]
pub fn group_norm(
    tape: &Tape,
    x: &Value,
    gamma: &Value,
    beta: &Value,
    scale_shift: Option<&Value>,
    groups: usize,
    act: Activation,
    eps: f32,
) -> Result<Value> {
    let dims = x.dims();
    if dims.len() < 2 || x.tensor().elem_count() == 0 {
        fail!("group_norm: input {dims:?} is not (B, ..., C)");
    }
    let (batch, channels) = (dims[0], dims[dims.len() - 1]);
    if groups == 0 || channels % groups != 0 || gamma.dims() != [channels] || beta.dims() != [channels] {
        fail!("group_norm: {groups} groups and gamma {:?} do not fit input {dims:?}", gamma.dims());
    }
    if let Some(other) = scale_shift.filter(|s| s.dims() != [batch, 2 * channels]) {
        fail!("group_norm: scale_shift {:?} does not fit input {dims:?}", other.dims());
    }
    let shape = NormShape { batch, pixels: x.tensor().elem_count() / (batch * channels), channels, groups };
    let (out, statistics) = {
        let (gamma, beta) = (Floats::of(gamma.tensor())?, Floats::of(beta.tensor())?);
        let scale_shift = scale_shift.map(|s| Floats::of(s.tensor())).transpose()?;
        let affine = Affine { gamma: &gamma, beta: &beta, scale_shift: scale_shift.as_deref() };
        kernel::forward(&shape, &Floats::of(x.tensor())?, affine, act, eps)
    };
    let out = tensor(out, dims)?;

    let mut inputs = vec![x, gamma, beta];
    inputs.extend(scale_shift);
    let saved = (x.tensor().clone(), gamma.tensor().clone(), beta.tensor().clone());
    let saved_scale_shift = scale_shift.map(|s| s.tensor().clone());
    Ok(tape.record(out, &inputs, move |gradient| {
        let (x, gamma, beta) = saved;
        let (gamma_floats, beta_floats) = (Floats::of(&gamma)?, Floats::of(&beta)?);
        let scale_shift = saved_scale_shift.as_ref().map(Floats::of).transpose()?;
        let affine = Affine { gamma: &gamma_floats, beta: &beta_floats, scale_shift: scale_shift.as_deref() };
        let x = Floats::of(&x)?;
        // In place, for the gradient is the tape's alone.
        let found = update(&gradient, |dx| kernel::backward(&shape, &x, dx, &statistics, affine, act))?;
        let mut out = vec![Some(gradient), Some(tensor(found.gamma, channels)?), Some(tensor(found.beta, channels)?)];
        if let Some(values) = found.scale_shift {
            out.push(Some(tensor(values, (batch, 2 * channels))?));
        }
        Ok(out)
    }))
}
