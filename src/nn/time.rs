//! The sinusoidal embedding of diffusion times.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// cos and sin of t / 10000^(i / half), i = 0..half (Vaswani et al. 2017, section 3.5, as in DDPM): (B) to (B, width).
/// `width` must be even.
pub fn timestep_embedding(times: &[f32], width: usize, device: &Device) -> Result<Tensor> {
    let half = width / 2;
    let mut out = Vec::with_capacity(times.len() * width);
    for &t in times {
        let angle = |i: usize| f64::from(t) * (-(10_000f64.ln()) * i as f64 / half as f64).exp();
        out.extend((0..half).map(|i| angle(i).cos() as f32));
        out.extend((0..half).map(|i| angle(i).sin() as f32));
    }
    Ok(Tensor::from_vec(out, (times.len(), width), device)?)
}
