//! What stands between two layers, as a value of its own: for residuals, and for poolings that a convolution does not take.

use candle_core::{DType, Tensor};
use half::bf16;

use super::conv::{Input, like};
use super::cpu::activate as kernel;
use super::cpu::element::Element;
use super::cpu::isa::{self, Precision};
use super::cpu::norm::Activation;
use super::cpu::pool;
use super::cpu::{Values, cast, tensor};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use super::tape::{InputGradients, Tape, Value};
use crate::error::Result;
use crate::fail;

/// act(`input` + `residual`): (B, H', W', C) in the networks' type. The input is taken as a convolution takes it, norm
/// and resampling included; the residual must be of the output's shape.
pub fn activate(tape: &Tape, input: &Input, residual: Option<&Value>, act: Activation) -> Result<Value> {
    let dims = input.out_dims()?;
    if let Some(other) = residual.filter(|r| r.dims() != dims) {
        fail!("activate: residual {:?} is not of the input's shape {dims:?}", other.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(input.parts[0].tensor()) {
        return cuda::activate::activate(tape, gpu, input, dims, residual, act);
    }
    match isa::current().precision() {
        Precision::F32 => activated::<f32>(tape, input, dims, residual, act),
        Precision::Bf16 => activated::<bf16>(tape, input, dims, residual, act),
    }
}

fn activated<E: Element>(
    tape: &Tape,
    input: &Input,
    dims: [usize; 4],
    residual: Option<&Value>,
    act: Activation,
) -> Result<Value> {
    let parts = input.elements::<E>()?;
    let added = residual.map(|r| cast::<E>(r.tensor())).transpose()?;
    let found = {
        let added = added.as_ref().map(Values::<E>::of).transpose()?;
        input.with_kernel(&parts, |input| Ok(kernel::forward(dims[0], input, added.as_deref(), act)))?
    };
    let out = tensor(found.out, dims.to_vec())?;
    let kept = found.before.map_or(Ok(out.clone()), |before| tensor(before, dims.to_vec()))?;
    let mut inputs = input.values();
    inputs.extend(residual.cloned());
    let inputs: Vec<&Value> = inputs.iter().collect();
    let (input, residual_type) = (input.clone(), residual.map(|r| r.tensor().dtype()));
    Ok(tape.record(out, &inputs, move |gradient| {
        backward::<E>(&input, &parts, residual_type, act, (&kept, &found.statistics), gradient)
    }))
}

fn backward<E: Element>(
    input: &Input,
    parts: &[Tensor],
    residual_type: Option<DType>,
    act: Activation,
    (kept, statistics): (&Tensor, &[f32]),
    gradient: Tensor,
) -> Result<InputGradients> {
    let dims = gradient.dims().to_vec();
    let (kept, gradient) = (Values::<E>::of(kept)?, Values::<E>::of(&gradient)?.to_vec());
    let found =
        input.with_kernel(parts, |input| Ok(kernel::backward(dims[0], input, act, (&kept, statistics), gradient)))?;
    let mut out = input.gradients(found.parts, found.norm)?;
    if let Some(dtype) = residual_type {
        out.push(Some(like(dtype, tensor(found.residual, dims)?)?));
    }
    Ok(out)
}

/// The largest of every 2 x 2 pixels of (B, H, W, C): (B, H/2, W/2, C), rounded down. Of equals the first one in reading
/// order gets the gradient, as in PyTorch.
pub fn max_pool(tape: &Tape, x: &Value) -> Result<Value> {
    let (_, height, width, _) = x.nhwc()?;
    if height < 2 || width < 2 {
        fail!("max_pool: {:?} is too small to be pooled", x.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(x.tensor()) {
        return cuda::activate::max_pool(tape, gpu, x);
    }
    match x.tensor().dtype() {
        DType::BF16 => max_pooled::<bf16>(tape, x),
        _ => max_pooled::<f32>(tape, x),
    }
}

fn max_pooled<E: Element>(tape: &Tape, x: &Value) -> Result<Value> {
    let dims @ (batch, height, width, channels) = x.nhwc()?;
    let (out, places) = pool::max::<E>(&Values::of(x.tensor())?, (height, width, channels));
    let out = tensor(out, (batch, height / 2, width / 2, channels))?;
    Ok(tape.record(out, &[x], move |gradient| {
        let found = pool::max_backward::<E>(&Values::of(&gradient)?, &places, (height, width, channels), batch);
        Ok(vec![Some(tensor(found, dims)?)])
    }))
}

/// The mean over all pixels of (B, H, W, C): (B, C) in f32.
pub fn mean_pixels(tape: &Tape, x: &Value) -> Result<Value> {
    if x.tensor().elem_count() == 0 {
        fail!("mean_pixels: input {:?} is empty", x.dims());
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(x.tensor()) {
        return cuda::activate::mean_pixels(tape, gpu, x);
    }
    match x.tensor().dtype() {
        DType::BF16 => mean::<bf16>(tape, x),
        _ => mean::<f32>(tape, x),
    }
}

fn mean<E: Element>(tape: &Tape, x: &Value) -> Result<Value> {
    let dims @ (batch, height, width, channels) = x.nhwc()?;
    let out = tensor(pool::mean::<E>(&Values::of(x.tensor())?, height * width, channels), (batch, channels))?;
    Ok(tape.record(out, &[x], move |gradient| {
        let found = pool::mean_backward::<E>(&Values::of(&gradient)?, height * width, channels);
        Ok(vec![Some(tensor(found, dims)?)])
    }))
}
