//! How much noise each step holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The named schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The signal's share of variance follows cos^2 (Nichol and Dhariwal 2021).
    Cosine,
    /// Betas rise in a straight line (Ho et al. 2020).
    Linear,
}

/// The signal's share of variance at each step: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    /// a_t for t in 0..T, strictly falling, in (0, 1).
    pub alpha_bar: Vec<f64>,
}

impl NoiseSchedule {
    pub fn new(kind: ScheduleKind, steps: usize) -> Self {
        match kind {
            ScheduleKind::Cosine => Self::cosine(steps),
            ScheduleKind::Linear => Self::linear(steps),
        }
    }

    /// Nichol and Dhariwal (2021), eq. 17: a_t follows cos^2, each beta at most 0.999.
    pub fn cosine(steps: usize) -> Self {
        let f = |t: usize| ((t as f64 / steps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        Self::from_betas((0..steps).map(|t| (1.0 - f(t + 1) / f(t)).min(0.999)))
    }

    /// Ho et al. (2020), section 4: betas from 1e-4 to 0.02 at 1,000 steps, scaled to keep the end for other counts.
    pub fn linear(steps: usize) -> Self {
        let scale = 1000.0 / steps as f64;
        let at = |t: usize| 1e-4 + (0.02 - 1e-4) * t as f64 / (steps.max(2) - 1) as f64;
        Self::from_betas((0..steps).map(|t| (scale * at(t)).min(0.999)))
    }

    fn from_betas(betas: impl Iterator<Item = f64>) -> Self {
        let product = |total: &mut f64, beta: f64| {
            *total *= 1.0 - beta;
            Some(*total)
        };
        NoiseSchedule { alpha_bar: betas.scan(1.0, product).collect() }
    }

    /// T, the number of steps that training draws from.
    pub fn len(&self) -> usize {
        self.alpha_bar.len()
    }

    pub fn is_empty(&self) -> bool {
        self.alpha_bar.is_empty()
    }

    /// The signal-to-noise ratio a_t / (1 - a_t).
    pub fn snr(&self, t: usize) -> f64 {
        self.alpha_bar[t] / (1.0 - self.alpha_bar[t])
    }

    /// `count` steps for sampling, from T - 1 downwards, evenly spaced so that the first is always T - 1 ("trailing",
    /// Lin et al. 2024, table 2). After the last one a_t is taken as 1: the sampler ends at x_0 itself.
    pub fn sampling_steps(&self, count: usize) -> Vec<usize> {
        let spacing = self.len() as f64 / count as f64;
        (1..=count).rev().map(|i| (i as f64 * spacing).round() as usize - 1).collect()
    }
}
