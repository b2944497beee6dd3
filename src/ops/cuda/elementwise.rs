//! Activations, sums, look-ups and the VAE's sampling step; shapes have been checked.

use candle_core::{DType, Tensor};

use super::{Gpu, of_type};
use crate::error::Result;
use crate::ops::elementwise::LOG_VARIANCE_RANGE;
use crate::ops::tape::{Tape, Value};

pub fn silu(tape: &Tape, gpu: Gpu, x: &Value) -> Result<Value> {
    let (out, n) = (gpu.empty(x.dims(), DType::F32)?, x.tensor().elem_count());
    gpu.each("silu", n, &[Some(x.tensor()), Some(&out)], &[n], &[])?;
    let saved = x.tensor().clone();
    Ok(tape.record(out, &[x], move |gradient| {
        gpu.each("silu_backward", n, &[Some(&saved), Some(&gradient)], &[n], &[])?;
        Ok(vec![Some(gradient)])
    }))
}

pub fn add(tape: &Tape, gpu: Gpu, a: &Value, b: &Value) -> Result<Value> {
    let dtype = a.tensor().dtype();
    let (out, n) = (gpu.empty(a.dims(), dtype)?, a.tensor().elem_count());
    gpu.each(&of_type("finish", dtype), n, &[Some(a.tensor()), None, Some(b.tensor()), Some(&out)], &[n, 1], &[])?;
    Ok(tape.record(out, &[a, b], move |gradient| {
        let copy = gradient.copy()?; // gradients are added to in place
        Ok(vec![Some(gradient), Some(copy)])
    }))
}

pub fn embedding(tape: &Tape, gpu: Gpu, table: &Value, indices: &[u32]) -> Result<Value> {
    let (rows, channels) = table.tensor().dims2()?;
    let (count, n) = (indices.len(), indices.len() * channels);
    let indices = Tensor::from_slice(indices, count, table.tensor().device())?;
    let out = gpu.empty(&[count, channels], DType::F32)?;
    gpu.each("embedding", n, &[Some(table.tensor()), Some(&indices), Some(&out)], &[n, channels], &[])?;
    Ok(tape.record(out, &[table], move |gradient| {
        let (found, n) = (gpu.empty(&[rows, channels], DType::F32)?, rows * channels);
        let tensors = [Some(&gradient), Some(&indices), Some(&found)];
        gpu.each("embedding_backward", n, &tensors, &[n, channels, count], &[])?;
        Ok(vec![Some(found)])
    }))
}

pub fn gaussian_sample(tape: &Tape, gpu: Gpu, moments: &Value, noise: &Tensor, c: usize) -> Result<Value> {
    let (out, n) = (gpu.empty(noise.dims(), DType::F32)?, noise.elem_count());
    let range = [LOG_VARIANCE_RANGE.0, LOG_VARIANCE_RANGE.1];
    let tensors = [Some(moments.tensor()), Some(noise), Some(&out)];
    gpu.each("gaussian_sample", n, &tensors, &[n, c], &range)?;
    let (saved, noise) = (moments.tensor().clone(), noise.clone());
    Ok(tape.record(out, &[moments], move |gradient| {
        let found = gpu.empty(saved.dims(), DType::F32)?;
        let tensors = [Some(&saved), Some(&noise), Some(&gradient), Some(&found)];
        gpu.each("gaussian_sample_backward", n, &tensors, &[n, c], &range)?;
        Ok(vec![Some(found)])
    }))
}

/// The sum of scalars, each times its weight.
pub fn weighted_sum(tape: &Tape, terms: &[(&Value, f32)]) -> Result<Value> {
    let mut total: Option<Tensor> = None;
    for (value, weight) in terms {
        let term = value.tensor().affine(f64::from(*weight), 0.0)?;
        total = Some(match total {
            Some(total) => (total + term)?,
            None => term,
        });
    }
    let Some(out) = total else { crate::fail!("weighted_sum: there are no terms") };
    let inputs: Vec<&Value> = terms.iter().map(|(value, _)| *value).collect();
    let weights: Vec<f32> = terms.iter().map(|(_, weight)| *weight).collect();
    Ok(tape.record(out, &inputs, move |gradient| {
        weights.into_iter().map(|w| Ok(Some(gradient.affine(f64::from(w), 0.0)?))).collect()
    }))
}

/// Replaces the elements of `target` by those of `source` on the CPU.
pub fn overwrite(gpu: &Gpu, target: &Tensor, source: &Tensor) -> Result<()> {
    let (source, n) = (source.to_device(target.device())?, target.elem_count());
    if source.elem_count() != n || source.dtype() != DType::F32 || target.dtype() != DType::F32 {
        crate::fail!("overwrite: {:?} does not fit {:?}", source.dims(), target.dims());
    }
    gpu.each("finish_f32", n, &[Some(&source), None, None, Some(target)], &[n, 1], &[])
}
