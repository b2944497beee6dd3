//! Batch normalization (Ioffe and Szegedy 2015, algorithm 1), as the factors of a [`Norm`](super::Norm) without groups: what
//! reads the input then normalizes it in the same pass.

use candle_core::{DType, Tensor};
use half::bf16;

use super::cpu::batch_norm as kernel;
use super::cpu::element::Element;
use super::cpu::{Floats, Values, tensor, update};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// What makes a batch's channels normal.
pub struct BatchFactors {
    /// (C): gamma / std
    pub factor: Value,
    /// (C): beta - mean gamma / std
    pub offset: Value,
    /// (C)
    pub mean: Tensor,
    /// (C), biased.
    pub variance: Tensor,
}

impl BatchFactors {
    /// Of factors and offsets (2, C).
    pub(super) fn new(tape: &Tape, both: &Value, mean: Tensor, variance: Tensor) -> Result<Self> {
        Ok(BatchFactors { factor: row(tape, both, 0)?, offset: row(tape, both, 1)?, mean, variance })
    }
}

/// The factors under which `x` (B, H, W, C) has the mean `beta` and the standard deviation `gamma` (C) in each channel; the
/// gradient flows through the batch's statistics.
pub fn batch_norm(tape: &Tape, x: &Value, gamma: &Value, beta: &Value, eps: f32) -> Result<BatchFactors> {
    let (.., channels) = x.nhwc()?;
    if gamma.dims() != [channels] || beta.dims() != [channels] || x.tensor().elem_count() == 0 {
        fail!("batch_norm: gamma {:?} and beta {:?} do not fit input {:?}", gamma.dims(), beta.dims(), x.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(x.tensor()) {
        return cuda::activate::batch_norm(tape, gpu, x, gamma, beta, eps);
    }
    match x.tensor().dtype() {
        DType::BF16 => factors::<bf16>(tape, x, gamma, beta, eps),
        _ => factors::<f32>(tape, x, gamma, beta, eps),
    }
}

fn factors<E: Element>(tape: &Tape, x: &Value, gamma: &Value, beta: &Value, eps: f32) -> Result<BatchFactors> {
    let c = gamma.dims()[0];
    let (mean, variance) = kernel::moments::<E>(&Values::of(x.tensor())?, c);
    let rstd: Vec<f32> = variance.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let factor: Vec<f32> = Floats::of(gamma.tensor())?.iter().zip(&rstd).map(|(g, r)| g * r).collect();
    let offset = Floats::of(beta.tensor())?.iter().zip(&mean).zip(&factor).map(|((b, m), a)| b - m * a).collect();
    let both = tensor([factor.clone(), offset].concat(), (2, c))?;
    let (input, means) = (x.tensor().clone(), mean.clone());
    let both = tape.record(both, &[x, gamma, beta], move |gradient| {
        let gradient = Floats::of(&gradient)?;
        let (of_factor, of_offset) = gradient.split_at(c);
        let of_x = of_input::<E>(&input, &means, &rstd, &factor, &gradient)?;
        // factor = gamma rstd, offset = beta - mean factor.
        let of_gamma = (0..c).map(|i| (of_factor[i] - of_offset[i] * means[i]) * rstd[i]).collect();
        Ok(vec![Some(of_x), Some(tensor(of_gamma, c)?), Some(tensor(of_offset.to_vec(), c)?)])
    });
    BatchFactors::new(tape, &both, tensor(mean, c)?, tensor(variance, c)?)
}

/// Through the statistics: with d the gradient of factor, less mean times that of offset, the mean has the gradient -factor
/// d_offset and the variance -rstd^2 factor d / 2; each pixel has 1 / n of the former and 2 (x - mean) / n of the latter.
fn of_input<E: Element>(x: &Tensor, mean: &[f32], rstd: &[f32], factor: &[f32], gradient: &[f32]) -> Result<Tensor> {
    let c = mean.len();
    let n = (x.elem_count() / c) as f32;
    let (mut q, mut r) = (vec![0.0; c], vec![0.0; c]);
    for i in 0..c {
        let d = gradient[i] - gradient[c + i] * mean[i];
        q[i] = -rstd[i] * rstd[i] * factor[i] * d / n;
        r[i] = -factor[i] * gradient[c + i] / n - q[i] * mean[i];
    }
    tensor(kernel::affine::<E>(&Values::of(x)?, &q, &r), x.dims())
}

/// Row `index` of a matrix (2, C).
fn row(tape: &Tape, x: &Value, index: usize) -> Result<Value> {
    let out = x.tensor().get(index)?.copy()?;
    Ok(tape.record(out, &[x], move |gradient| {
        let mut rows = [gradient.zeros_like()?, gradient.zeros_like()?];
        rows[index] = gradient;
        Ok(vec![Some(Tensor::stack(&rows, 0)?)])
    }))
}

/// `average += rate (source - average)`, in place; both of one shape, in f32.
pub fn follow(average: &Tensor, source: &Tensor, rate: f32) -> Result<()> {
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(average) {
        return cuda::activate::follow(&gpu, average, source, rate);
    }
    let source = Floats::of(source)?;
    update(average, |average| {
        average.iter_mut().zip(&*source).for_each(|(a, s)| *a += rate * (s - *a));
    })
}
