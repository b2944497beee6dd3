//! What the network predicts, and how that becomes an estimate of x_0.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Denoiser, NoiseSchedule};
use crate::error::Result;

/// Estimates of x_0 from a noise prediction are clamped to this many standard deviations of the latents: under the
/// cosine schedule they divide by a sqrt(a_t) of almost 0 at the last step.
const EPS_X0_LIMIT: f64 = 5.0;

/// The training target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Prediction {
    /// The noise e (Ho et al. 2020).
    Eps,
    /// v = sqrt(a) e - sqrt(1 - a) x_0 (Salimans and Ho 2022, appendix D).
    V,
}

impl Prediction {
    /// The target's factors of (x_0, e) at signal share `a`.
    pub fn target_factors(self, a: f64) -> (f64, f64) {
        match self {
            Prediction::Eps => (0.0, 1.0),
            Prediction::V => (-(1.0 - a).sqrt(), a.sqrt()),
        }
    }

    /// The min-SNR-gamma weight of a step's squared error (Hang et al. 2023, section 3.4): min(SNR, gamma) / SNR for
    /// noise, min(SNR, gamma) / (SNR + 1) for velocity. `gamma` = infinity weighs every x_0 error by its SNR.
    pub fn loss_weight(self, snr: f64, gamma: f64) -> f64 {
        match self {
            Prediction::Eps => snr.min(gamma) / snr,
            Prediction::V => snr.min(gamma) / (snr + 1.0),
        }
    }

    /// x_0 from noisy latents and the network's prediction.
    fn x0(self, x: &Tensor, prediction: &Tensor, a: f64) -> Result<Tensor> {
        let (signal, noise) = (a.sqrt(), (1.0 - a).sqrt());
        Ok(match self {
            Prediction::V => ((x * signal)? - (prediction * noise)?)?,
            Prediction::Eps => ((x - (prediction * noise)?)? / signal)?.clamp(-EPS_X0_LIMIT, EPS_X0_LIMIT)?,
        })
    }
}

/// A network whose output is a [`Prediction`].
pub trait Network {
    /// `x`: (B, H, W, C) noisy latents at step `t` of the schedule, for classes (B).
    fn predict(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor>;
}

/// Turns a network into a [`Denoiser`].
pub struct Parameterized<'a, N> {
    pub net: N,
    pub schedule: &'a NoiseSchedule,
    pub prediction: Prediction,
}

impl<N: Network> Denoiser for Parameterized<'_, N> {
    fn x0(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor> {
        let prediction = self.net.predict(x, t, classes)?;
        self.prediction.x0(x, &prediction, self.schedule.alpha_bar[t])
    }
}
