//! What students train on: images as bytes, or as exact as a file has them, with hard and perhaps soft labels.

#[cfg(any(feature = "cuda", cuda_emulated))]
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::{ImageSet, Normalization};
use crate::distilled::SoftLabels;
#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::error::{Error, Result};

/// Images to judge.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    pub images: ImageSet,
    /// (N, H, W, 3): normalized values that stand in the place of `images.pixels`, where a file has them finer or wider
    /// than bytes.
    exact: Option<Vec<f32>>,
    /// Of the images in their order.
    pub soft_labels: Option<SoftLabels>,
}

impl From<ImageSet> for TrainingSet {
    fn from(images: ImageSet) -> Self {
        TrainingSet { images, exact: None, soft_labels: None }
    }
}

impl TrainingSet {
    /// The set with `exact` values, which are dropped where they are those of the pixels: the same images are one set,
    /// whatever file they come from.
    pub fn new(
        images: ImageSet,
        exact: Option<Vec<f32>>,
        soft_labels: Option<SoftLabels>,
        normalization: Normalization,
    ) -> Self {
        let table = PixelTable::new(normalization);
        let len = images.image_len();
        let differ = |exact: &Vec<f32>| {
            let of_image = |(i, exact): (usize, &[f32])| table.batch(&images, &[i as u32]) != exact;
            exact.par_chunks(len).enumerate().any(of_image)
        };
        let exact = exact.filter(differ);
        TrainingSet { images, exact, soft_labels }
    }

    /// Whether students see other values than those of the images' pixels.
    pub fn is_exact(&self) -> bool {
        self.exact.is_some()
    }

    /// The images at `indices`, normalized: (indices.len(), size, size, 3).
    pub fn batch(&self, table: &PixelTable, indices: &[u32]) -> Vec<f32> {
        let len = self.images.image_len();
        match &self.exact {
            None => table.batch(&self.images, indices),
            Some(exact) => indices.iter().flat_map(|&i| &exact[i as usize * len..][..len]).copied().collect(),
        }
    }

    /// All images (N, size, size, 3) on `device`: bytes, or normalized values where the set has these.
    #[cfg(any(feature = "cuda", cuda_emulated))]
    pub(super) fn pixels(&self, device: &Device) -> Result<Tensor> {
        let size = self.images.size;
        let shape = (self.images.len(), size, size, 3);
        let pixels = match &self.exact {
            None => Tensor::from_slice(&self.images.pixels, shape, device),
            Some(exact) => Tensor::from_slice(exact, shape, device),
        };
        pixels.map_err(|e| {
            Error::Failed(format!("the GPU cannot hold all {} images ({e}); use --device cpu", self.images.len()))
        })
    }

    /// SHA-256 in hex over everything that a student learns from: [`ImageSet::sha256`], and what goes beyond it.
    pub fn sha256(&self, with_soft_labels: bool) -> String {
        let images = self.images.sha256();
        let soft = self.soft_labels.as_ref().filter(|_| with_soft_labels);
        if self.exact.is_none() && soft.is_none() {
            return images;
        }
        let mut hash = Sha256::new().chain_update(images);
        for values in [self.exact.as_deref(), soft.map(|soft| &soft.values[..])] {
            hash.update((values.map_or(0, <[f32]>::len) as u64).to_le_bytes());
            values.into_iter().flatten().for_each(|value| hash.update(value.to_le_bytes()));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The normalized value of each of 256 levels in each of three channels.
pub struct PixelTable([[f32; 256]; 3]);

impl PixelTable {
    pub fn new(normalization: Normalization) -> Self {
        let Normalization { mean, std } = normalization;
        let value = |c: usize, level: usize| (level as f32 / 255.0 - mean[c]) / std[c];
        PixelTable(std::array::from_fn(|c| std::array::from_fn(|level| value(c, level))))
    }

    /// The value of each level in each channel.
    #[cfg(any(feature = "cuda", cuda_emulated))]
    pub(super) fn levels(&self) -> &[[f32; 256]; 3] {
        &self.0
    }

    /// The images of `set` at `indices`, normalized: (indices.len(), size, size, 3).
    pub fn batch(&self, set: &ImageSet, indices: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; indices.len() * set.image_len()];
        out.par_chunks_mut(set.image_len()).zip(indices).for_each(|(out, &i)| {
            for (out, pixel) in out.chunks_exact_mut(3).zip(set.image(i as usize).chunks_exact(3)) {
                for c in 0..3 {
                    out[c] = self.0[c][usize::from(pixel[c])];
                }
            }
        });
        out
    }
}
