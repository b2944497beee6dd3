//! Losses that stay on the GPU: a scalar, and its gradient made in the same pass. Shapes have been checked.

use candle_core::{DType, Tensor};

use super::{Args, Gpu, PARTS, THREADS, sum};
use crate::error::Result;
use crate::ops::elementwise::LOG_VARIANCE_RANGE;
use crate::ops::tape::{Tape, Value};

pub fn squared_error(
    tape: &Tape,
    gpu: Gpu,
    prediction: &Value,
    target: &Tensor,
    weights: Option<&[f32]>,
) -> Result<Value> {
    let n = prediction.tensor().elem_count();
    let weights = weights.map(|w| Tensor::from_slice(w, w.len(), target.device())).transpose()?;
    let (gradient, parts) = (gpu.empty(prediction.dims(), DType::F32)?, gpu.empty(&[blocks(n)], DType::F32)?);
    let tensors = [Some(prediction.tensor()), Some(target), weights.as_ref(), Some(&gradient), Some(&parts)];
    let factor = 1.0 / n as f32;
    let args = Args::new(&tensors, &[n, n / prediction.dims()[0]], &[factor])?;
    gpu.launch("squared_error", [blocks(n), 1, 1], THREADS, &args)?;
    let loss = sum(&gpu, &parts, factor)?;
    record(tape, gpu, prediction, loss, gradient)
}

pub fn gaussian_kl(tape: &Tape, gpu: Gpu, moments: &Value, c: usize) -> Result<Value> {
    let n = moments.tensor().elem_count() / 2;
    let (gradient, parts) = (gpu.empty(moments.dims(), DType::F32)?, gpu.empty(&[blocks(n)], DType::F32)?);
    let factor = 1.0 / n as f32;
    let numbers = [factor, LOG_VARIANCE_RANGE.0, LOG_VARIANCE_RANGE.1];
    let args = Args::new(&[Some(moments.tensor()), Some(&gradient), Some(&parts)], &[n, c], &numbers)?;
    gpu.launch("gaussian_kl", [blocks(n), 1, 1], THREADS, &args)?;
    let loss = sum(&gpu, &parts, factor)?;
    record(tape, gpu, moments, loss, gradient)
}

pub fn cross_entropy(tape: &Tape, gpu: Gpu, logits: &Value, labels: &[u16]) -> Result<Value> {
    let (batch, classes) = logits.tensor().dims2()?;
    let labels: Vec<u32> = labels.iter().map(|&l| l.into()).collect();
    let labels = Tensor::from_vec(labels, batch, logits.tensor().device())?;
    let (gradient, parts) = (gpu.empty(&[batch, classes], DType::F32)?, gpu.empty(&[batch], DType::F32)?);
    let factor = 1.0 / batch as f32;
    let args =
        Args::new(&[Some(logits.tensor()), Some(&labels), Some(&gradient), Some(&parts)], &[classes], &[factor])?;
    gpu.launch("cross_entropy", [batch, 1, 1], THREADS, &args)?;
    let loss = sum(&gpu, &parts, factor)?;
    record(tape, gpu, logits, loss, gradient)
}

/// See [`crate::ops::distillation_loss`].
pub fn distillation_loss(tape: &Tape, gpu: Gpu, logits: &Value, targets: &[f32], temperature: f32) -> Result<Value> {
    let (batch, classes) = logits.tensor().dims2()?;
    let targets = Tensor::from_slice(targets, (batch, classes), logits.tensor().device())?;
    let (gradient, parts) = (gpu.empty(&[batch, classes], DType::F32)?, gpu.empty(&[batch], DType::F32)?);
    let factor = 1.0 / batch as f32;
    let tensors = [Some(logits.tensor()), Some(&targets), Some(&gradient), Some(&parts)];
    gpu.launch("distillation", [batch, 1, 1], THREADS, &Args::new(&tensors, &[classes], &[factor, temperature])?)?;
    let loss = sum(&gpu, &parts, factor)?;
    record(tape, gpu, logits, loss, gradient)
}

/// Blocks of a loop over `n` elements.
fn blocks(n: usize) -> usize {
    n.div_ceil(THREADS).clamp(1, PARTS)
}

/// A scalar whose gradient with respect to its one input is known already.
fn record(tape: &Tape, gpu: Gpu, input: &Value, loss: Tensor, gradient: Tensor) -> Result<Value> {
    Ok(tape.record(loss, &[input], move |factor| {
        let n = gradient.elem_count();
        gpu.each("scale_by", n, &[Some(&gradient), Some(&factor)], &[n], &[])?;
        Ok(vec![Some(gradient)])
    }))
}
