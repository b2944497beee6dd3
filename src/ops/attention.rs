//! Multi-head self-attention.

use super::cpu::attention::{self as kernel, AttentionShape};
use super::cpu::{Floats, tensor};
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// softmax(q k^T / sqrt(d)) v for each of `heads` heads (Vaswani et al. 2017, eq. 1).
///
/// `qkv`: (B, tokens, 3C) holding queries, keys and values one after the other, each head by head; the result is
/// (B, tokens, C).
pub fn attention(tape: &Tape, qkv: &Value, heads: usize) -> Result<Value> {
    let (batch, tokens, width) = qkv.tensor().dims3()?;
    if heads == 0 || width % (3 * heads) != 0 {
        fail!("attention: {heads} heads do not divide the channels of qkv {:?}", qkv.dims());
    }
    let shape = AttentionShape { batch, tokens, heads, head_dim: width / (3 * heads) };
    tape.count_flops(4 * batch * tokens * tokens * width / 3);
    let out = tensor(kernel::forward(&shape, &Floats::of(qkv.tensor())?), (batch, tokens, width / 3))?;
    let saved = qkv.tensor().clone();
    Ok(tape.record(out, &[qkv], move |gradient| {
        let found = kernel::backward(&shape, &Floats::of(&saved)?, &Floats::of(&gradient)?);
        Ok(vec![Some(tensor(found, saved.dims())?)])
    }))
}
