//! What a network sees in images: the values that its last layer reads.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::checksums::Checksums;
use crate::error::Result;
use crate::train::{load_weights, read_metadata, save_weights};

/// Features of `len()` images, `dims` values each.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// (N, dims), row by row.
    pub values: Vec<f32>,
    pub dims: usize,
}

impl Features {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.values.len() / self.dims.max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The features of image `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dims..][..self.dims]
    }

    /// What `make` finds, kept in the file `name` of `folder` for the next time. `of` says what decides it: that of another
    /// is made anew, and so is a damaged one.
    pub fn kept(folder: &Path, name: &str, of: &[String; 3], make: impl FnOnce() -> Result<Self>) -> Result<Self> {
        let path = folder.join(name);
        let sums = path.with_extension("sha256");
        let kept = Checksums::check(&sums, &[name]).and_then(|()| read_metadata::<[String; 3]>(&path));
        if kept.is_ok_and(|kept| kept == *of) {
            let mut tensors = load_weights(&path, &Device::Cpu)?;
            if let Some(kept) = tensors.remove("features") {
                return Ok(Features { dims: kept.dims2()?.1, values: kept.flatten_all()?.to_vec1()? });
            }
        }
        let found = make()?;
        let tensor = Tensor::from_slice(&found.values, (found.len(), found.dims), &Device::Cpu)?;
        let mut hashes = Checksums::default();
        hashes.add(name, save_weights(&path, &[("features".to_string(), tensor)], of)?);
        hashes.write(&sums)?;
        Ok(found)
    }
}
