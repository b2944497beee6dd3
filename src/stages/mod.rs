//! The stages between a data set and its distilled images: the VAE, the latents, the UNet, and both as a generator.

mod generator;
mod latents;
mod trained;
mod unet;
mod vae;

pub use generator::{Generator, Sampling};
pub use latents::{LatentStatistics, Latents};
pub use trained::{ModelCard, TrainedSummary, read_trained, write_trained};
pub use unet::{Measure, UNetTask};
pub use vae::{VaeTask, reconstruct};

use candle_core::{Device, Tensor};

use crate::data::ImageSet;
use crate::error::Result;

/// Images that go through the autoencoder at once outside training.
const BATCH: usize = 100;
/// Images drawn while training, in columns of `PICTURE_ROWS`.
const PICTURE_COLUMNS: usize = 10;
const PICTURE_ROWS: usize = 6;
/// Images of the held-out tenth that validation looks at.
pub const VALIDATION_IMAGES: usize = 512;

/// `count` places spread evenly over 0..n, or all of them.
pub fn spread(n: usize, count: usize) -> Vec<usize> {
    let count = count.min(n);
    (0..count).map(|i| i * n / count).collect()
}

/// The images at `indices` as (B, H, W, 3) in [-1, 1]; those with `flips` are mirrored.
fn to_tensor(images: &ImageSet, indices: &[usize], flips: Option<&[bool]>, device: &Device) -> Result<Tensor> {
    let size = images.size;
    let mut values = Vec::with_capacity(indices.len() * images.image_len());
    let scaled = |p: &u8| f32::from(*p) / 127.5 - 1.0;
    for (n, &i) in indices.iter().enumerate() {
        let image = images.image(i);
        if flips.is_some_and(|f| f[n]) {
            for row in image.chunks(3 * size) {
                values.extend(row.chunks(3).rev().flatten().map(scaled));
            }
        } else {
            values.extend(image.iter().map(scaled));
        }
    }
    Ok(Tensor::from_vec(values, (indices.len(), size, size, 3), device)?)
}

/// The inverse of [`to_tensor`]: (B, H, W, 3) in [-1, 1] to bytes, clamped and rounded.
pub fn to_pixels(images: &Tensor) -> Result<Vec<u8>> {
    let values = images.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().map(|v| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect())
}
