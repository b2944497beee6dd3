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
#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::ops::cuda::augment::Images;

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

/// A set whose images are had as [`to_tensor`] makes them. A GPU that has the room holds all of it.
struct Resident<'a> {
    set: &'a ImageSet,
    device: Device,
    #[cfg(any(feature = "cuda", cuda_emulated))]
    images: Option<Images>,
}

impl<'a> Resident<'a> {
    fn new(set: &'a ImageSet, device: &Device) -> Result<Self> {
        Ok(Resident {
            set,
            device: device.clone(),
            #[cfg(any(feature = "cuda", cuda_emulated))]
            images: if cfg!(cuda_emulated) || !device.is_cpu() {
                let levels: [f32; 256] = std::array::from_fn(|level| scaled(level as u8));
                let pixels = Tensor::from_slice(&set.pixels, (set.len(), set.size, set.size, 3), device);
                pixels.ok().map(|pixels| Images::new(pixels, &[levels; 3])).transpose()?.flatten()
            } else {
                None
            },
        })
    }

    /// The images at `indices` as (B, H, W, 3) in [-1, 1]; those with `flips` are mirrored.
    fn batch(&self, indices: &[usize], flips: &[bool]) -> Result<Tensor> {
        #[cfg(any(feature = "cuda", cuda_emulated))]
        if let Some(images) = &self.images {
            let indices: Vec<u32> = indices.iter().map(|&i| i as u32).collect();
            return images.mirrored(&indices, flips);
        }
        to_tensor(self.set, indices, Some(flips), &self.device)
    }
}

/// A byte in [-1, 1].
fn scaled(pixel: u8) -> f32 {
    f32::from(pixel) / 127.5 - 1.0
}

/// The images at `indices` as (B, H, W, 3) in [-1, 1]; those with `flips` are mirrored.
fn to_tensor(images: &ImageSet, indices: &[usize], flips: Option<&[bool]>, device: &Device) -> Result<Tensor> {
    let size = images.size;
    let mut values = Vec::with_capacity(indices.len() * images.image_len());
    for (n, &i) in indices.iter().enumerate() {
        let image = images.image(i);
        if flips.is_some_and(|f| f[n]) {
            for row in image.chunks(3 * size) {
                values.extend(row.chunks(3).rev().flatten().copied().map(scaled));
            }
        } else {
            values.extend(image.iter().copied().map(scaled));
        }
    }
    Ok(Tensor::from_vec(values, (indices.len(), size, size, 3), device)?)
}

/// The inverse of [`to_tensor`]: (B, H, W, 3) in [-1, 1] to bytes, clamped and rounded.
pub fn to_pixels(images: &Tensor) -> Result<Vec<u8>> {
    let values = images.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().map(|v| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Split, load};

    /// On a GPU they are made there (in the emulator too), on a CPU here.
    #[test]
    fn batches_are_the_images_in_their_range() {
        let set = load(&Dataset::Shapes, Split::Test, 32, None).unwrap().subset(&[0, 1, 2]);
        let (indices, flips) = ([2, 0, 2], [false, true, true]);
        let found = Resident::new(&set, &Device::Cpu).unwrap().batch(&indices, &flips).unwrap();
        let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
        let mut values = found.iter();
        for (i, flip) in indices.into_iter().zip(flips) {
            for place in 0..32 * 32 {
                let (y, x) = (place / 32, place % 32);
                let pixel = &set.image(i)[(y * 32 + if flip { 31 - x } else { x }) * 3..][..3];
                for (&level, found) in pixel.iter().zip(&mut values) {
                    assert!((found - (f32::from(level) * 2.0 / 255.0 - 1.0)).abs() < 1e-6);
                }
            }
        }
        assert!(values.next().is_none() && found.len() == 3 * 32 * 32 * 3);
    }
}
