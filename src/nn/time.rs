//! The sinusoidal embedding of diffusion times.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// cos and sin of t / 10000^(i / half), i = 0..half (Vaswani et al. 2017, section 3.5, as in DDPM): (B) to (B, width).
/// `width` must be even.
pub fn timestep_embedding(times: &[f32], width: usize, device: &Device) -> Result<Tensor> {
    let half = width / 2;
    let frequency = |i: usize| (-(10_000f64.ln()) * i as f64 / half as f64).exp();
    let frequencies: Vec<f64> = (0..half).map(frequency).collect();
    let mut out: Vec<f32> = Vec::with_capacity(times.len() * width);
    for (n, &t) in times.iter().enumerate() {
        if n > 0 && t == times[n - 1] {
            out.extend_from_within((n - 1) * width..n * width); // a sampler asks for one time, many times over
            continue;
        }
        out.extend(frequencies.iter().map(|f| (f64::from(t) * f).cos() as f32));
        out.extend(frequencies.iter().map(|f| (f64::from(t) * f).sin() as f32));
    }
    Ok(Tensor::from_vec(out, (times.len(), width), device)?)
}
