//! Activations of sums, poolings, and batch normalization; shapes have been checked.

use candle_core::{DType, Tensor};

use super::input::{Prepared, number};
use super::{Gpu, cast, column_squares, column_sums, of_type};
use crate::error::Result;
use crate::ops::batch_norm::BatchFactors;
use crate::ops::conv::Input;
use crate::ops::cpu::norm::Activation;
use crate::ops::tape::{Tape, Value};

/// See [`crate::ops::activate`]; `dims` are the output's.
pub fn activate(
    tape: &Tape,
    gpu: Gpu,
    input: &Input,
    dims: [usize; 4],
    residual: Option<&Value>,
    act: Activation,
) -> Result<Value> {
    let mut prepared = Prepared::new(&gpu, input, dims)?;
    let (dtype, n) = (prepared.values.dtype(), prepared.values.elem_count());
    let added = residual.map(|r| cast(&gpu, r.tensor(), dtype)).transpose()?;
    let out = gpu.empty(&dims, dtype)?;
    // The derivative of these follows from the output.
    let told = matches!(act, Activation::Identity | Activation::Relu);
    let sum = (!told).then(|| gpu.empty(&dims, dtype)).transpose()?;
    let tensors = [Some(&prepared.values), added.as_ref(), Some(&out), sum.as_ref()];
    gpu.each(&of_type("activate", dtype), n, &tensors, &[n, number(act)], &[])?;
    prepared.forget_values();
    let kept = sum.unwrap_or_else(|| out.clone());
    let of_input = input.values();
    let mut inputs: Vec<&Value> = of_input.iter().collect();
    inputs.extend(residual);
    let residual_type = residual.map(|r| r.tensor().dtype());
    Ok(tape.record(out, &inputs, move |gradient| {
        let (gradient, dx) = (cast(&gpu, &gradient, dtype)?, gpu.empty(&dims, dtype)?);
        let tensors = [Some(&kept), Some(&gradient), Some(&dx)];
        gpu.each(&of_type("activate_backward", dtype), n, &tensors, &[n, number(act)], &[])?;
        // A copy, for gradients are added to in place.
        let of_residual = residual_type.map(|dtype| cast(&gpu, &dx.copy()?, dtype)).transpose()?;
        let mut found = prepared.gradients(prepared.needs_gradient().then_some(dx))?;
        found.extend(of_residual.map(Some));
        Ok(found)
    }))
}

pub fn max_pool(tape: &Tape, gpu: Gpu, x: &Value) -> Result<Value> {
    let (batch, height, width, channels) = x.nhwc()?;
    let (dtype, saved) = (x.tensor().dtype(), x.tensor().clone());
    let out = gpu.empty(&[batch, height / 2, width / 2, channels], dtype)?;
    let n = out.elem_count();
    gpu.each(&of_type("max_pool", dtype), n, &[Some(&saved), Some(&out)], &[n, height, width, channels], &[])?;
    Ok(tape.record(out, &[x], move |gradient| {
        let (found, n) = (gpu.empty(saved.dims(), dtype)?, saved.elem_count());
        let tensors = [Some(&saved), Some(&gradient), Some(&found)];
        gpu.each(&of_type("max_pool_backward", dtype), n, &tensors, &[n, height, width, channels], &[])?;
        Ok(vec![Some(found)])
    }))
}

pub fn mean_pixels(tape: &Tape, gpu: Gpu, x: &Value) -> Result<Value> {
    let dims @ (batch, height, width, channels) = x.nhwc()?;
    let (dtype, pixels, n) = (x.tensor().dtype(), height * width, batch * channels);
    let out = gpu.empty(&[batch, channels], DType::F32)?;
    gpu.each(&of_type("mean_pixels", dtype), n, &[Some(x.tensor()), Some(&out)], &[n, pixels, channels], &[])?;
    Ok(tape.record(out, &[x], move |gradient| {
        let found = gpu.empty(&<[usize; 4]>::from(dims), dtype)?;
        let n = found.elem_count();
        let tensors = [Some(&gradient), Some(&found)];
        gpu.each(&of_type("mean_pixels_backward", dtype), n, &tensors, &[n, pixels, channels], &[])?;
        Ok(vec![Some(found)])
    }))
}

/// See [`crate::ops::batch_norm`].
pub fn batch_norm(tape: &Tape, gpu: Gpu, x: &Value, gamma: &Value, beta: &Value, eps: f32) -> Result<BatchFactors> {
    let (c, n) = (gamma.dims()[0], x.tensor().elem_count());
    let (rows, dtype) = (n / c, x.tensor().dtype());
    let share = 1.0 / rows as f64;
    let mean = column_sums(&gpu, x.tensor(), rows, c)?.affine(share, 0.0)?;
    let variance = column_squares(&gpu, x.tensor(), &mean, rows, c)?.affine(share, 0.0)?;
    let both = gpu.empty(&[2, c], DType::F32)?;
    let tensors = [Some(&mean), Some(&variance), Some(gamma.tensor()), Some(beta.tensor()), Some(&both)];
    gpu.each("batch_factors", c, &tensors, &[c], &[eps])?;
    let (saved, weight) = (x.tensor().clone(), gamma.tensor().clone());
    let (means, variances) = (mean.clone(), variance.clone());
    let both = tape.record(both, &[x, gamma, beta], move |gradient| {
        let empty = |dims: &[usize]| gpu.empty(dims, DType::F32);
        let (of_gamma, of_beta, lines) = (empty(&[c])?, empty(&[c])?, empty(&[2, c])?);
        let of_batch = [Some(&means), Some(&variances), Some(&weight), None, Some(&gradient)];
        let tensors = [&of_batch[..], &[Some(&of_gamma), Some(&of_beta), Some(&lines)]].concat();
        gpu.each("batch_factors_backward", c, &tensors, &[c], &[eps, share as f32])?;
        let of_x = gpu.empty(saved.dims(), dtype)?;
        let tensors = [Some(&saved), Some(&lines), Some(&of_x)];
        gpu.each(&of_type("channel_lines", dtype), n, &tensors, &[n, c], &[])?;
        Ok(vec![Some(of_x), Some(of_gamma), Some(of_beta)])
    });
    BatchFactors::new(tape, &both, mean, variance)
}

/// `average += rate (source - average)`, in place.
pub fn follow(gpu: &Gpu, average: &Tensor, source: &Tensor, rate: f32) -> Result<()> {
    let n = average.elem_count();
    gpu.each("follow", n, &[Some(average), Some(source)], &[n], &[rate])
}
