//! Batches as students see them, made where they are trained.

use std::borrow::Borrow;

use candle_core::{Device, Tensor};

use super::{Augmentation, PixelTable, TrainingSet};
use crate::data::Normalization;
use crate::error::Result;
#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::ops::cuda::augment::Images;

/// A set whose images can be had normalized and augmented. A GPU holds all of it.
pub struct BatchSource<S> {
    set: S,
    table: PixelTable,
    device: Device,
    #[cfg(any(feature = "cuda", cuda_emulated))]
    resident: Option<Images>,
}

impl<S: Borrow<TrainingSet>> BatchSource<S> {
    pub fn new(set: S, normalization: Normalization, device: &Device) -> Result<Self> {
        let table = PixelTable::new(normalization);
        Ok(BatchSource {
            #[cfg(any(feature = "cuda", cuda_emulated))]
            resident: if cfg!(cuda_emulated) || !device.is_cpu() {
                Images::new(set.borrow().pixels(device)?, table.levels())?
            } else {
                None
            },
            set,
            table,
            device: device.clone(),
        })
    }

    /// The images at `indices`, normalized: (B, size, size, 3). Each of `changes` is for as many images as it has parameters
    /// of, in their order; none is for no image.
    pub fn batch(&self, indices: &[u32], changes: &[Augmentation]) -> Result<Tensor> {
        let set = self.set.borrow();
        let size = set.images.size;
        #[cfg(any(feature = "cuda", cuda_emulated))]
        if let Some(resident) = &self.resident {
            let changes: Vec<_> = changes.iter().flat_map(|change| change.changes(size)).collect();
            return resident.batch(indices, &changes);
        }
        let mut images = set.batch(&self.table, indices);
        let mut rest = &mut images[..];
        for change in changes {
            let (mine, others) = rest.split_at_mut(change.images() * set.images.image_len());
            change.apply(mine, size);
            rest = others;
        }
        Ok(Tensor::from_vec(images, (indices.len(), size, size, 3), &self.device)?)
    }
}
