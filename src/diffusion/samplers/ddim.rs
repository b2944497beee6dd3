//! DDIM (Song et al. 2021, "Denoising diffusion implicit models").

use candle_core::Tensor;

use super::Sampler;
use crate::diffusion::{Denoiser, NoiseSchedule, NoiseSource};
use crate::error::Result;

/// DDIM with `steps` evaluations; `eta` 0 is deterministic, 1 is as noisy as DDPM.
pub struct Ddim<'a> {
    pub schedule: &'a NoiseSchedule,
    pub steps: usize,
    pub eta: f64,
}

impl Sampler for Ddim<'_> {
    fn sample(&self, denoiser: &dyn Denoiser, noise: &NoiseSource, on_step: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let classes: Vec<u32> = noise.images.iter().map(|&(class, _)| class).collect();
        let steps = self.schedule.sampling_steps(self.steps);
        let mut x = noise.initial()?;
        for (i, &t) in steps.iter().enumerate() {
            let a = self.schedule.alpha_bar[t];
            let a_next = steps.get(i + 1).map_or(1.0, |&t| self.schedule.alpha_bar[t]);
            let x0 = denoiser.x0(&x, t, &classes)?;
            // The noise that x_t holds if x_0 is right (the arrow "direction pointing to x_t" of eq. 12).
            let eps = ((&x - (&x0 * a.sqrt())?)? / (1.0 - a).sqrt())?;
            // Eq. 16, then eq. 12.
            let sigma = self.eta * ((1.0 - a_next) / (1.0 - a)).sqrt() * (1.0 - a / a_next).sqrt();
            x = ((x0 * a_next.sqrt())? + (eps * (1.0 - a_next - sigma * sigma).max(0.0).sqrt())?)?;
            if sigma > 0.0 {
                x = (x + (noise.of_step(i)? * sigma)?)?;
            }
            on_step()?;
        }
        Ok(x)
    }
}
