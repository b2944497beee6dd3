//! Activations, sums, joins, look-ups and the VAE's sampling step.

use candle_core::{DType, Tensor};
use half::bf16;

use super::conv::like;
use super::cpu::element::Element;
use super::cpu::{Floats, Values, cast, elementwise as kernel, tensor, update};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// Log-variances are clamped to this range before use, as in Rombach et al. (2022).
pub const LOG_VARIANCE_RANGE: (f32, f32) = (-30.0, 20.0);

/// x sigmoid(x).
pub fn silu(tape: &Tape, x: &Value) -> Result<Value> {
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(x.tensor()) {
        return cuda::elementwise::silu(tape, gpu, x);
    }
    let out = tensor(kernel::silu(&Floats::of(x.tensor())?), x.dims())?;
    let saved = x.tensor().clone();
    Ok(tape.record(out, &[x], move |gradient| {
        let x = Floats::of(&saved)?;
        update(&gradient, |g| kernel::silu_backward(&x, g))?; // in place, for it is the tape's alone
        Ok(vec![Some(gradient)])
    }))
}

/// a + b, of one shape.
pub fn add(tape: &Tape, a: &Value, b: &Value) -> Result<Value> {
    if a.dims() != b.dims() {
        fail!("add: {:?} and {:?} differ", a.dims(), b.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(a.tensor()) {
        return cuda::elementwise::add(tape, gpu, a, b);
    }
    let dims = a.dims().to_vec();
    let out = tensor(Floats::of(a.tensor())?.to_vec(), dims)?;
    super::cpu::add_assign(&out, b.tensor())?;
    Ok(tape.record(out, &[a, b], move |gradient| {
        // A true copy for one side: gradients are added to in place.
        let copy = tensor(Floats::of(&gradient)?.to_vec(), gradient.dims())?;
        Ok(vec![Some(gradient), Some(copy)])
    }))
}

/// Joins (..., Ca) and (..., Cb) to (..., Ca + Cb).
pub fn concat(tape: &Tape, a: &Value, b: &Value) -> Result<Value> {
    let (Some((&ca, rows_a)), Some((&cb, rows_b))) = (a.dims().split_last(), b.dims().split_last()) else {
        fail!("concat: a scalar has no channels");
    };
    if rows_a != rows_b {
        fail!("concat: {:?} and {:?} differ before the channels", a.dims(), b.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(a.tensor()) {
        return cuda::input::concat(tape, gpu, (a, ca), (b, cb));
    }
    match a.tensor().dtype() {
        DType::BF16 => joined::<bf16>(tape, (a, ca), (b, cb)),
        _ => joined::<f32>(tape, (a, ca), (b, cb)),
    }
}

fn joined<E: Element>(tape: &Tape, (a, ca): (&Value, usize), (b, cb): (&Value, usize)) -> Result<Value> {
    let (dims_a, dims_b) = (a.dims().to_vec(), b.dims().to_vec());
    let dims = [&dims_a[..dims_a.len() - 1], &[ca + cb]].concat();
    let out = kernel::concat::<E>(&Values::of(a.tensor())?, &Values::of(b.tensor())?, ca, cb);
    Ok(tape.record(tensor(out, dims)?, &[a, b], move |gradient| {
        let (da, db) = kernel::split::<E>(&Values::of(&gradient)?, ca, cb);
        Ok(vec![Some(tensor(da, dims_a)?), Some(tensor(db, dims_b)?)])
    }))
}

/// The same elements in another shape.
pub fn reshape(tape: &Tape, x: &Value, dims: &[usize]) -> Result<Value> {
    let out = x.tensor().reshape(dims)?;
    let from = x.dims().to_vec();
    Ok(tape.record(out, &[x], move |gradient| Ok(vec![Some(gradient.reshape(from)?)])))
}

/// (B, ...) to (B, F) in f32, each image's elements in their order.
pub fn flatten(tape: &Tape, x: &Value) -> Result<Value> {
    let (dims, dtype) = (x.dims().to_vec(), x.tensor().dtype());
    let batch = match dims.first() {
        Some(&batch) if batch > 0 => batch,
        _ => fail!("flatten: {dims:?} holds no images"),
    };
    let flat = (batch, x.tensor().elem_count() / batch);
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(x.tensor()) {
        let out = cuda::cast(&gpu, x.tensor(), DType::F32)?.reshape(flat)?;
        return Ok(
            tape.record(out, &[x], move |gradient| Ok(vec![Some(cuda::cast(&gpu, &gradient, dtype)?.reshape(dims)?)]))
        );
    }
    let out = cast::<f32>(x.tensor())?.reshape(flat)?;
    Ok(tape.record(out, &[x], move |gradient| Ok(vec![Some(like(dtype, gradient)?.reshape(dims)?)])))
}

/// Rows `indices` of `table` (N, C): (indices.len(), C).
pub fn embedding(tape: &Tape, table: &Value, indices: &[u32]) -> Result<Value> {
    let (rows, channels) = table.tensor().dims2()?;
    if let Some(index) = indices.iter().find(|&&i| i as usize >= rows) {
        fail!("embedding: index {index} is outside a table of {rows} rows");
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(table.tensor()) {
        return cuda::elementwise::embedding(tape, gpu, table, indices);
    }
    let floats = Floats::of(table.tensor())?;
    let out = indices.iter().flat_map(|&i| &floats[i as usize * channels..][..channels]).copied().collect();
    let out = tensor(out, (indices.len(), channels))?;
    let indices = indices.to_vec();
    Ok(tape.record(out, &[table], move |gradient| {
        let gradient = Floats::of(&gradient)?;
        let mut found = vec![0.0; rows * channels];
        for (&i, g) in indices.iter().zip(gradient.chunks(channels)) {
            for (f, g) in found[i as usize * channels..][..channels].iter_mut().zip(g) {
                *f += g;
            }
        }
        Ok(vec![Some(tensor(found, (rows, channels))?)])
    }))
}

/// mean + exp(log_variance / 2) noise (Kingma and Welling 2014, section 2.4). `moments` (..., 2C) holds the means, then
/// the log-variances; `noise` is (..., C).
pub fn gaussian_sample(tape: &Tape, moments: &Value, noise: &Tensor) -> Result<Value> {
    let c = noise.dims().last().copied().unwrap_or(0);
    if moments.tensor().elem_count() != 2 * noise.elem_count() || moments.dims().last() != Some(&(2 * c)) {
        fail!("gaussian_sample: noise {:?} does not fit moments {:?}", noise.dims(), moments.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(moments.tensor()) {
        return cuda::elementwise::gaussian_sample(tape, gpu, moments, noise, c);
    }
    let (low, high) = LOG_VARIANCE_RANGE;
    let mut out = Vec::with_capacity(noise.elem_count());
    for (m, e) in Floats::of(moments.tensor())?.chunks(2 * c).zip(Floats::of(noise)?.chunks(c)) {
        out.extend((0..c).map(|i| m[i] + (0.5 * m[c + i].clamp(low, high)).exp() * e[i]));
    }
    let out = tensor(out, noise.dims())?;
    let (saved, noise) = (moments.tensor().clone(), noise.clone());
    Ok(tape.record(out, &[moments], move |gradient| {
        let (gradient, noise) = (Floats::of(&gradient)?, Floats::of(&noise)?);
        let mut found = Vec::with_capacity(2 * noise.len());
        for ((m, e), g) in Floats::of(&saved)?.chunks(2 * c).zip(noise.chunks(c)).zip(gradient.chunks(c)) {
            found.extend_from_slice(g);
            found.extend((0..c).map(|i| match m[c + i] {
                v if v < low || v > high => 0.0,
                v => g[i] * e[i] * 0.5 * (0.5 * v).exp(),
            }));
        }
        Ok(vec![Some(tensor(found, saved.dims())?)])
    }))
}

/// The sum of scalars, each times its weight: a loss made of terms.
pub fn weighted_sum(tape: &Tape, terms: &[(&Value, f32)]) -> Result<Value> {
    if let Some((value, _)) = terms.iter().find(|(value, _)| value.tensor().rank() != 0) {
        fail!("weighted_sum: a term has the shape {:?}; only scalars can be summed", value.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if terms.iter().any(|(value, _)| cuda::Gpu::of(value.tensor()).is_some()) {
        return cuda::elementwise::weighted_sum(tape, terms);
    }
    let mut total = 0.0;
    for (value, weight) in terms {
        total += value.scalar()? * weight;
    }
    let out = tensor(vec![total], ())?;
    let inputs: Vec<&Value> = terms.iter().map(|(value, _)| *value).collect();
    let weights: Vec<f32> = terms.iter().map(|(_, weight)| *weight).collect();
    Ok(tape.record(out, &inputs, move |gradient| {
        let g = gradient.to_scalar::<f32>()?;
        weights.into_iter().map(|w| Ok(Some(tensor(vec![g * w], ())?))).collect()
    }))
}

/// Replaces the elements of `target`, f32, by those of `source` on the CPU, in place.
pub fn overwrite(target: &Tensor, source: &Tensor) -> Result<()> {
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(target) {
        return cuda::elementwise::overwrite(&gpu, target, source);
    }
    let source = Floats::of(source)?;
    update(target, |values| values.copy_from_slice(&source))
}
