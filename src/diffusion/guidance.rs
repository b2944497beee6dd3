//! Classifier-free guidance (Ho and Salimans 2022).

use candle_core::Tensor;

use super::Denoiser;
use crate::error::Result;

/// x_0 = x_0(null) + scale (x_0(class) - x_0(null)); a scale of 1 is no guidance. Both branches run as one batch.
pub struct Guided<D> {
    pub inner: D,
    pub null_class: u32,
    pub scale: f64,
}

impl<D: Denoiser> Denoiser for Guided<D> {
    fn x0(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor> {
        if self.scale == 1.0 {
            return self.inner.x0(x, t, classes);
        }
        let batch = classes.len();
        let both: Vec<u32> = classes.iter().copied().chain(vec![self.null_class; batch]).collect();
        let x0 = self.inner.x0(&Tensor::cat(&[x, x], 0)?, t, &both)?;
        let (with, without) = (x0.narrow(0, 0, batch)?, x0.narrow(0, batch, batch)?);
        Ok(((with * self.scale)? + (without * (1.0 - self.scale))?)?)
    }
}
