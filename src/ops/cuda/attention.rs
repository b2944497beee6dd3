//! Attention by the kernels in kernels/attention.cu.

use candle_core::{DType, Tensor};

use super::{Args, Gpu, cast, of_type};
use crate::error::Result;
use crate::fail;
use crate::ops::cpu::attention::AttentionShape;
use crate::ops::tape::{Tape, Value};

/// Queries of a block.
const QUERIES: usize = 64;

/// See [`crate::ops::attention`]; `shape` fits `qkv`.
pub fn attention(tape: &Tape, gpu: Gpu, qkv: &Value, shape: AttentionShape) -> Result<Value> {
    let mut dims = qkv.dims().to_vec();
    dims[qkv.dims().len() - 1] /= 3;
    let dtype = super::gpu::precision().dtype();
    let saved = cast(&gpu, qkv.tensor(), dtype)?;
    let out = gpu.empty(&dims, dtype)?;
    let logarithms = gpu.empty(&[shape.batch * shape.heads, shape.tokens], DType::F32)?;
    launch(&gpu, "attention", &shape, 1, &[&saved, &out, &logarithms])?;
    let (kept, from) = (out.clone(), qkv.tensor().dtype());
    Ok(tape.record(out, &[qkv], move |gradient| {
        let found = gpu.empty(saved.dims(), dtype)?;
        let deltas = gpu.empty(logarithms.dims(), DType::F32)?;
        let gradient = cast(&gpu, &gradient, dtype)?;
        let tensors = [&saved, &kept, &logarithms, &gradient, &found, &deltas];
        launch(&gpu, "attention_queries", &shape, 1, &tensors)?;
        launch(&gpu, "attention_keys", &shape, 2, &tensors)?;
        Ok(vec![Some(cast(&gpu, &found, from)?)])
    }))
}

fn launch(gpu: &Gpu, name: &str, shape: &AttentionShape, depth: usize, tensors: &[&Tensor]) -> Result<()> {
    let AttentionShape { batch, tokens, heads, head_dim } = *shape;
    let Some(width) = [32, 64, 128].into_iter().find(|&width| head_dim <= width) else {
        fail!("attention: heads of {head_dim} channels; the GPU's kernels take at most 128, lower unet.head_dim");
    };
    let args = Args::new(&tensors.iter().copied().map(Some).collect::<Vec<_>>(), &[tokens, heads, head_dim], &[])?;
    let name = of_type(&format!("{name}_{width}"), tensors[0].dtype());
    gpu.launch(&name, [batch * heads, tokens.div_ceil(QUERIES), depth], QUERIES, &args)
}
