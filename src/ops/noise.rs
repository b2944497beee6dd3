//! What diffusion adds to latents: normal noise, and the mixtures of both. No gradient flows through either.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::cpu::{Floats, tensor};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use crate::error::Result;
use crate::fail;
use crate::rng::Rng;

/// The next `len` standard normal values of each stream: (streams, len). The streams themselves stay where they are.
///
/// A GPU makes them of the same random bits as the CPU; its logarithms and sines may be rounded otherwise.
pub fn normal(streams: &[Rng], len: usize, device: &Device) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if cfg!(cuda_emulated) || device.is_cuda() {
        return cuda::noise::normal(streams, len, device);
    }
    let mut values = vec![0.0; streams.len() * len];
    values.par_chunks_mut(len.max(1)).zip(streams).for_each(|(out, rng)| rng.clone().fill_normal(out));
    Ok(Tensor::from_vec(values, (streams.len(), len), device)?)
}

/// Noisy latents and what the network should say of them, each (B, L): of the rows x of `latents` (N, L) at `places` and of
/// `noise` (B, L) e, a x + b e and c x + d e with an example's `factors` [a, b, c, d].
pub fn diffuse(latents: &Tensor, places: &[u32], noise: &Tensor, factors: &[[f32; 4]]) -> Result<(Tensor, Tensor)> {
    let ((n, len), batch) = (latents.dims2()?, places.len());
    if noise.dims() != [batch, len] || factors.len() != batch || places.iter().any(|&place| place as usize >= n) {
        fail!(
            "diffuse: {batch} places in {n} latents of {len} values, noise {:?} and {} factors do not fit",
            noise.dims(),
            factors.len()
        );
    }
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(latents) {
        return cuda::noise::diffuse(&gpu, latents, places, noise, factors);
    }
    let (x, e) = (Floats::of(latents)?, Floats::of(noise)?);
    let mixed = |first: usize| {
        let mut out = Vec::with_capacity(batch * len);
        for ((&place, e), factors) in places.iter().zip(e.chunks(len)).zip(factors) {
            let x = &x[place as usize * len..][..len];
            out.extend(x.iter().zip(e).map(|(x, e)| factors[first] * x + factors[first + 1] * e));
        }
        tensor(out, (batch, len))
    };
    Ok((mixed(0)?, mixed(2)?))
}
