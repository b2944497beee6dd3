//! A set's images on the GPU, where batches are made of them.

use candle_core::{DType, Tensor};

use super::{Args, Gpu, THREADS};
use crate::error::Result;
use crate::fail;

/// A kind of change, as kernels/augment.cu numbers them, and its numbers.
pub type Change = [f32; 5];

/// Mirrors an image, or not.
pub fn mirrored(turned: bool) -> Change {
    [4.0, f32::from(turned), 0.0, 0.0, 0.0]
}

/// All images of a set.
pub struct Images {
    gpu: Gpu,
    /// (N, H, W, 3): bytes, or normalized values.
    pixels: Tensor,
    /// (3, 256): the normalized value of each level; not read where `pixels` are values.
    levels: Tensor,
    size: usize,
}

impl Images {
    /// None where `pixels` do not lie on a GPU.
    pub fn new(pixels: Tensor, levels: &[[f32; 256]; 3]) -> Result<Option<Self>> {
        let levels = Tensor::new(levels, pixels.device())?;
        let (_, size, ..) = pixels.dims4()?;
        Ok(Gpu::of(&pixels).map(|gpu| Images { gpu, pixels, levels, size }))
    }

    /// The images at `indices`, normalized, and mirrored where `flips` say so: (B, H, W, 3).
    pub fn mirrored(&self, indices: &[u32], flips: &[bool]) -> Result<Tensor> {
        let changes: Vec<Change> = flips.iter().map(|&turned| mirrored(turned)).collect();
        self.batch(indices, &changes)
    }

    /// The images at `indices`, normalized and changed: (B, H, W, 3). No changes are none for every image.
    pub fn batch(&self, indices: &[u32], changes: &[Change]) -> Result<Tensor> {
        let (n, all) = (indices.len(), self.pixels.dims()[0]);
        if indices.iter().any(|&i| i as usize >= all) || !changes.is_empty() && changes.len() != n {
            fail!("{n} indices and {} changes do not fit {all} images", changes.len());
        }
        let mut flat = changes.concat();
        flat.resize(n * 5, 0.0);
        let device = self.pixels.device();
        let (indices, changes) = (Tensor::from_slice(indices, n, device)?, Tensor::from_vec(flat, (n, 5), device)?);
        let out = self.gpu.empty(&[n, self.size, self.size, 3], DType::F32)?;
        let tensors = [Some(&self.pixels), Some(&indices), Some(&self.levels), Some(&changes), Some(&out)];
        let name = super::of_type("augment", self.pixels.dtype());
        self.gpu.launch(&name, [n, 1, 1], THREADS, &Args::new(&tensors, &[self.size], &[])?)?;
        Ok(out)
    }
}
