//! The noise of an image, decided by (seed, class, index) alone.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::rng::Rng;

/// The noise of a batch of images of one latent shape.
pub struct NoiseSource {
    pub seed: u64,
    /// (class, index within the class) of each image.
    pub images: Vec<(u32, u32)>,
    /// Height and width in latent pixels.
    pub size: usize,
    pub channels: usize,
    pub device: Device,
}

impl NoiseSource {
    /// What sampling starts from: (B, H, W, C).
    pub fn initial(&self) -> Result<Tensor> {
        self.draw("noise")
    }

    /// Fresh noise for step number `step` of a stochastic sampler: (B, H, W, C).
    pub fn of_step(&self, step: usize) -> Result<Tensor> {
        self.draw(&format!("step noise {step}"))
    }

    fn draw(&self, stream: &str) -> Result<Tensor> {
        let n = self.size * self.size * self.channels;
        let mut values = vec![0.0; n * self.images.len()];
        for (&(class, index), out) in self.images.iter().zip(values.chunks_mut(n)) {
            Rng::stream(self.seed, stream, class, index).fill_normal(out);
        }
        Ok(Tensor::from_vec(values, (self.images.len(), self.size, self.size, self.channels), &self.device)?)
    }
}
