//! Multi-head self-attention.

use half::bf16;

use super::conv::like;
use super::cpu::attention::{self as kernel, AttentionShape};
use super::cpu::element::Element;
use super::cpu::isa::{self, Precision};
use super::cpu::{Values, cast, tensor};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// softmax(q k^T / sqrt(d)) v for each of `heads` heads (Vaswani et al. 2017, eq. 1) among all pixels of an image.
///
/// `qkv`: (B, ..., 3C) holding queries, keys and values one after the other, each head by head; the result is
/// (B, ..., C).
pub fn attention(tape: &Tape, qkv: &Value, heads: usize) -> Result<Value> {
    let dims = qkv.dims();
    let (Some(&batch), Some(&width)) = (dims.first(), dims.last()) else {
        fail!("attention: qkv {dims:?} is not (B, ..., 3C)");
    };
    if dims.len() < 2 || heads == 0 || width % (3 * heads) != 0 || batch * width == 0 {
        fail!("attention: {heads} heads do not divide the channels of qkv {dims:?}");
    }
    let tokens = qkv.tensor().elem_count() / (batch * width);
    let shape = AttentionShape { batch, tokens, heads, head_dim: width / (3 * heads) };
    tape.count_flops(4 * batch * tokens * tokens * width / 3);
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(qkv.tensor()) {
        return cuda::attention::attention(tape, gpu, qkv, shape);
    }
    match isa::current().precision() {
        Precision::Bf16 => run::<bf16>(tape, qkv, shape),
        Precision::F32 => run::<f32>(tape, qkv, shape),
    }
}

fn run<E: Element>(tape: &Tape, qkv: &Value, shape: AttentionShape) -> Result<Value> {
    let mut dims = qkv.dims().to_vec();
    dims[qkv.dims().len() - 1] /= 3;
    let saved = cast::<E>(qkv.tensor())?;
    let out = tensor(kernel::forward::<E>(&shape, &Values::of(&saved)?), dims)?;
    let dtype = qkv.tensor().dtype();
    Ok(tape.record(out, &[qkv], move |gradient| {
        let found = kernel::backward::<E>(&shape, &Values::of(&saved)?, &Values::of(&gradient)?);
        Ok(vec![Some(like(dtype, tensor(found, saved.dims())?)?)])
    }))
}
