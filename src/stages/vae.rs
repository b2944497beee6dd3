//! Training the autoencoder.

use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::{BATCH, PICTURE_COLUMNS, PICTURE_ROWS, Resident, VALIDATION_IMAGES, spread, to_pixels, to_tensor};
use crate::config::Config;
use crate::data::ImageSet;
use crate::error::Result;
use crate::interrupt;
use crate::models::vae::Vae;
use crate::nn::Params;
use crate::ops::{self, Tape, Value};
use crate::picture::save_grid;
use crate::progress::Console;
use crate::rng::Rng;
use crate::train::{Batches, Task, Validation};

/// Mean squared error of pixels in [-1, 1] plus `kl_weight` times the KL term per latent element.
pub struct VaeTask<'a> {
    net: Vae,
    averaged: Vae,
    images: Resident<'a>,
    validation: &'a ImageSet,
    batches: Batches,
    config: &'a Config,
    device: Device,
}

impl<'a> VaeTask<'a> {
    /// `params` and `ema` are empty; the networks are built in them.
    pub fn new(
        config: &'a Config,
        params: &Params,
        ema: &Params,
        images: &'a ImageSet,
        validation: &'a ImageSet,
        device: &Device,
    ) -> Result<Self> {
        Ok(VaeTask {
            net: Vae::new(&config.vae, params.builder())?,
            averaged: Vae::new(&config.vae, ema.builder())?,
            images: Resident::new(images, device)?,
            validation,
            batches: Batches::new(config.seed, images.len(), config.train.vae.batch_size),
            config,
            device: device.clone(),
        })
    }
}

/// Images (B, H, W, 3) decoded from the means of their own latents.
fn through(vae: &Vae, images: &Tensor) -> Result<Tensor> {
    let latents = Value::constant(vae.encode_mean(images)?);
    Ok(vae.decode(&Tape::inference(), &latents)?.tensor().clone())
}

/// All images of a set through the autoencoder: bytes, (N, H, W, 3).
pub fn reconstruct(vae: &Vae, images: &ImageSet, device: &Device, console: &Console) -> Result<Vec<u8>> {
    let mut pixels = Vec::with_capacity(images.pixels.len());
    let indices: Vec<usize> = (0..images.len()).collect();
    let bar = console.bar("reconstruct", 0, images.len() as u64);
    for batch in indices.chunks(BATCH) {
        interrupt::check()?;
        pixels.extend(to_pixels(&through(vae, &to_tensor(images, batch, None, device)?)?)?);
        bar.update((batch[0] + batch.len()) as u64, batch.len() as u64, None);
    }
    Ok(pixels)
}

impl Task for VaeTask<'_> {
    fn loss(&self, tape: &Tape, step: u64, part: Range<usize>) -> Result<Value> {
        let mut rng = Rng::stream(self.config.seed, "vae step", step as u32, 0);
        let indices = self.batches.at(step);
        let flips: Vec<bool> = indices.iter().map(|_| self.config.train.flip && rng.below(2) == 1).collect();
        let images = self.images.batch(&indices[part.clone()], &flips[part.clone()])?;
        let moments = self.net.encode(tape, &Value::constant(images.clone()))?;
        let (b, h, w, c) = moments.nhwc()?;
        let latent = h * w * c / 2;
        let odd = part.start * latent % 2; // the part begins within a pair of values
        rng.skip((part.start * latent - odd) as u64);
        let noise = ops::normal(&[rng], odd + b * latent, &self.device)?.flatten_all()?;
        let noise = noise.narrow(0, odd, b * latent)?.reshape((b, h, w, c / 2))?;
        let latents = ops::gaussian_sample(tape, &moments, &noise)?;
        let error = ops::squared_error(tape, &self.net.decode(tape, &latents)?, &images, None)?;
        let kl = ops::gaussian_kl(tape, &moments)?;
        ops::weighted_sum(tape, &[(&error, 1.0), (&kl, self.config.train.kl_weight as f32)])
    }

    fn validate(&self) -> Result<Validation> {
        let indices = spread(self.validation.len(), VALIDATION_IMAGES);
        let mut total = 0.0;
        for batch in indices.chunks(BATCH) {
            let images = to_tensor(self.validation, batch, None, &self.device)?;
            let prediction = Value::constant(through(&self.averaged, &images)?);
            let error = ops::squared_error(&Tape::inference(), &prediction, &images, None)?;
            total += f64::from(error.scalar()?) * batch.len() as f64;
        }
        let mse = total / indices.len().max(1) as f64;
        Ok(vec![("validation_mse", mse), ("validation_psnr", 10.0 * (4.0 / mse).log10())])
    }

    /// Rows of images, each above a row of their reconstructions.
    fn draw(&self, path: &Path) -> Result<()> {
        let indices = spread(self.validation.len(), PICTURE_COLUMNS * PICTURE_ROWS / 2);
        let images = to_tensor(self.validation, &indices, None, &self.device)?;
        let pixels = to_pixels(&through(&self.averaged, &images)?)?;
        let made: Vec<&[u8]> = pixels.chunks(self.validation.image_len()).collect();
        let mut rows = Vec::new();
        for (indices, made) in indices.chunks(PICTURE_COLUMNS).zip(made.chunks(PICTURE_COLUMNS)) {
            rows.extend(indices.iter().map(|&i| self.validation.image(i)));
            rows.extend(made);
        }
        save_grid(path, &rows, self.validation.size, PICTURE_COLUMNS, 2)
    }
}
