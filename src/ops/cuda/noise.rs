//! Noise drawn on the GPU, and its mixtures with latents that lie there. Shapes have been checked.

use candle_core::{DType, Device, Tensor};

use super::Gpu;
use crate::error::Result;
use crate::fail;
use crate::rng::Rng;

/// See [`crate::ops::normal`].
pub fn normal(streams: &[Rng], len: usize, device: &Device) -> Result<Tensor> {
    let mut places = Vec::with_capacity(6 * streams.len());
    for rng in streams {
        let (key, indices, position) = rng.place();
        places.extend([key, indices, [position as u32, (position >> 32) as u32]].concat());
    }
    let places = Tensor::from_vec(places, (streams.len(), 6), device)?;
    let Some(gpu) = Gpu::of(&places) else { fail!("noise is drawn on the CPU or a GPU of CUDA, not on {device:?}") };
    let out = gpu.empty(&[streams.len(), len], DType::F32)?;
    let pairs = len.div_ceil(2);
    gpu.each("normal", streams.len() * pairs, &[Some(&places), Some(&out)], &[streams.len() * pairs, len, pairs], &[])?;
    Ok(out)
}

/// See [`crate::ops::diffuse`].
pub fn diffuse(
    gpu: &Gpu,
    latents: &Tensor,
    places: &[u32],
    noise: &Tensor,
    factors: &[[f32; 4]],
) -> Result<(Tensor, Tensor)> {
    let ((batch, len), device) = (noise.dims2()?, latents.device());
    let places = Tensor::from_slice(places, batch, device)?;
    let factors = Tensor::from_vec(factors.concat(), (batch, 4), device)?;
    let (noisy, target) = (gpu.empty(&[batch, len], DType::F32)?, gpu.empty(&[batch, len], DType::F32)?);
    let tensors = [latents, &places, noise, &factors, &noisy, &target].map(Some);
    gpu.each("diffuse", batch * len, &tensors, &[batch * len, len], &[])?;
    Ok((noisy, target))
}
