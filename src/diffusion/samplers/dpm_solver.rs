//! DPM-Solver++ (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models").

use candle_core::Tensor;

use super::Sampler;
use crate::diffusion::{Denoiser, NoiseSchedule, NoiseSource};
use crate::error::Result;

/// The multistep solver of second order for estimates of x_0, "2M" (algorithm 2), with `steps` evaluations. It is
/// deterministic.
pub struct DpmSolver<'a> {
    pub schedule: &'a NoiseSchedule,
    pub steps: usize,
}

/// Half the logarithm of the signal-to-noise ratio, the paper's lambda: infinite where `a` is 1.
fn log_snr(a: f64) -> f64 {
    0.5 * (a / (1.0 - a)).ln()
}

impl Sampler for DpmSolver<'_> {
    fn sample(&self, denoiser: &dyn Denoiser, noise: &NoiseSource, on_step: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let classes: Vec<u32> = noise.images.iter().map(|&(class, _)| class).collect();
        let steps = self.schedule.sampling_steps(self.steps);
        let mut x = noise.initial()?;
        let mut before: Option<(Tensor, f64)> = None; // x_0 and h of the step before
        for (i, &t) in steps.iter().enumerate() {
            let x0 = denoiser.x0(&x, t, &classes)?;
            let a = self.schedule.alpha_bar[t];
            let Some(&next) = steps.get(i + 1) else { return on_step().map(|()| x0) }; // h is infinite: x_0 itself
            let a_next = self.schedule.alpha_bar[next];
            let h = log_snr(a_next) - log_snr(a);
            // D of the algorithm's lines 5 and 9: x_0 itself, then on the line through the two last estimates.
            let d = match &before {
                None => x0.clone(),
                Some((earlier, h_before)) => {
                    let ahead = 0.5 * h / h_before; // 1 / (2 r)
                    ((&x0 * (1.0 + ahead))? - (earlier * ahead)?)?
                }
            };
            x = ((x * ((1.0 - a_next) / (1.0 - a)).sqrt())? - (d * (a_next.sqrt() * (-h).exp_m1()))?)?;
            before = Some((x0, h));
            on_step()?;
        }
        Ok(x)
    }
}
