//! Losses: scalars with their gradients, computed in one pass.

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::cpu::{Floats, tensor};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use super::elementwise::LOG_VARIANCE_RANGE;
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// The mean over all elements of weight_n (prediction - target)^2, with one weight an image (1 where `None`).
pub fn squared_error(tape: &Tape, prediction: &Value, target: &Tensor, weights: Option<&[f32]>) -> Result<Value> {
    let dims = prediction.dims().to_vec();
    if dims.is_empty() || dims != target.dims() || weights.is_some_and(|w| w.len() != dims[0]) {
        fail!("squared_error: prediction {dims:?}, target {:?} and weights differ", target.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(prediction.tensor()) {
        return cuda::losses::squared_error(tape, gpu, prediction, target, weights);
    }
    let (p, t) = (Floats::of(prediction.tensor())?, Floats::of(target)?);
    let image = p.len() / dims[0];
    let factor = 1.0 / p.len() as f32;
    let mut difference = p.to_vec();
    let errors: Vec<f64> = difference
        .par_chunks_mut(image)
        .zip(t.par_chunks(image))
        .enumerate()
        .map(|(n, (d, t))| {
            let weight = weights.map_or(1.0, |w| w[n]);
            f64::from(weight) * squares(d, t, 2.0 * factor * weight)
        })
        .collect();
    scalar_loss(tape, prediction, (errors.iter().sum::<f64>() * f64::from(factor)) as f32, difference)
}

/// The sum of (x - target)^2, and `scale` (x - target) in place of x.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn squares(x: &mut [f32], target: &[f32], scale: f32) -> f64 {
    const LANES: usize = 16; // separate sums, which vector code may keep side by side
    let mut sums = [0.0f32; LANES];
    let mut total = 0.0;
    for (x, target) in x.chunks_mut(1 << 12).zip(target.chunks(1 << 12)) {
        for (x, target) in x.chunks_mut(LANES).zip(target.chunks(LANES)) {
            for ((x, t), sum) in x.iter_mut().zip(target).zip(&mut sums) {
                let d = *x - t;
                *sum += d * d;
                *x = scale * d;
            }
        }
        total += std::mem::take(&mut sums).iter().map(|&s| f64::from(s)).sum::<f64>();
    }
    total
}

/// KL(N(mean, variance) || N(0, 1)), the mean over latent elements (Kingma and Welling 2014, appendix B). `moments`
/// (..., 2C) holds the means, then the log-variances.
pub fn gaussian_kl(tape: &Tape, moments: &Value) -> Result<Value> {
    let c = match moments.dims().last() {
        Some(width) if width % 2 == 0 => width / 2,
        _ => fail!("gaussian_kl: moments {:?} do not split into means and log-variances", moments.dims()),
    };
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(moments.tensor()) {
        return cuda::losses::gaussian_kl(tape, gpu, moments, c);
    }
    let m = Floats::of(moments.tensor())?;
    let (low, high) = LOG_VARIANCE_RANGE;
    let factor = 2.0 / m.len() as f32;
    let mut total = 0.0;
    let mut gradient = Vec::with_capacity(m.len());
    for row in m.chunks(2 * c) {
        let (mean, log_variance) = row.split_at(c);
        gradient.extend(mean.iter().map(|m| m * factor));
        for (m, &v) in mean.iter().zip(log_variance) {
            let clamped = v.clamp(low, high);
            total += f64::from(0.5 * (m * m + clamped.exp() - 1.0 - clamped));
            gradient.push(if clamped == v { 0.5 * (v.exp() - 1.0) * factor } else { 0.0 });
        }
    }
    scalar_loss(tape, moments, total as f32 * factor, gradient)
}

/// The mean cross-entropy of `logits` (B, classes) with class indices `labels`.
pub fn cross_entropy(tape: &Tape, logits: &Value, labels: &[u16]) -> Result<Value> {
    let (batch, classes) = logits.tensor().dims2()?;
    if labels.len() != batch || labels.iter().any(|&l| l as usize >= classes) {
        fail!("cross_entropy: {} labels do not fit logits {:?}", labels.len(), logits.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(logits.tensor()) {
        return cuda::losses::cross_entropy(tape, gpu, logits, labels);
    }
    let z = Floats::of(logits.tensor())?;
    let mut total = 0.0;
    let mut gradient = Vec::with_capacity(z.len());
    for (row, &label) in z.chunks(classes).zip(labels) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
        total += f64::from(max + sum.ln() - row[label as usize]);
        let start = gradient.len();
        gradient.extend(row.iter().map(|v| (v - max).exp() / (sum * batch as f32)));
        gradient[start + label as usize] -= 1.0 / batch as f32;
    }
    scalar_loss(tape, logits, (total / batch as f64) as f32, gradient)
}

/// temperature^2 KL(q || softmax(logits / temperature)), the mean over B, with q = softmax(ln `probabilities` / temperature):
/// knowledge distillation (Hinton et al. 2015, section 2), where the square keeps the gradient's size. `logits` and
/// `probabilities` are (B, classes); each row of the latter sums to 1, and one class in it is above 0.
pub fn distillation_loss(tape: &Tape, logits: &Value, probabilities: &[f32], temperature: f32) -> Result<Value> {
    let (batch, classes) = logits.tensor().dims2()?;
    if probabilities.len() != batch * classes {
        fail!("distillation_loss: {} probabilities do not fit logits {:?}", probabilities.len(), logits.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(logits.tensor()) {
        return cuda::losses::distillation_loss(tape, gpu, logits, probabilities, temperature);
    }
    let z = Floats::of(logits.tensor())?;
    let t = f64::from(temperature);
    let mut total = 0.0;
    let mut gradient = Vec::with_capacity(z.len());
    for (z, p) in z.chunks(classes).zip(probabilities.chunks(classes)) {
        let log_s = log_softmax(z.iter().map(|&z| f64::from(z) / t));
        let log_q = log_softmax(p.iter().map(|&p| f64::from(p).ln() / t));
        for (log_q, log_s) in log_q.into_iter().zip(log_s) {
            let q = log_q.exp();
            total += if q > 0.0 { q * (log_q - log_s) } else { 0.0 };
            gradient.push((t * (log_s.exp() - q) / batch as f64) as f32);
        }
    }
    scalar_loss(tape, logits, (t * t * total / batch as f64) as f32, gradient)
}

fn log_softmax(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + values.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
    values.iter_mut().for_each(|v| *v -= log_sum);
    values
}

/// Records a scalar whose gradient with respect to its one input is known already.
fn scalar_loss(tape: &Tape, input: &Value, value: f32, mut gradient: Vec<f32>) -> Result<Value> {
    let dims = input.dims().to_vec();
    Ok(tape.record(tensor(vec![value], ())?, &[input], move |g| {
        let g = g.to_scalar::<f32>()?;
        if g != 1.0 {
            gradient.iter_mut().for_each(|v| *v *= g);
        }
        Ok(vec![Some(tensor(gradient, dims)?)])
    }))
}
