//! Labelled images of one size, and the data sets they come from.

pub mod cifar;
mod dataset;
mod decode;
pub mod fetch;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(not(feature = "hub"))]
#[path = "hub_absent.rs"]
pub mod hub;
pub mod image_folder;
pub mod parquet;
pub mod shapes;
mod source;
pub mod tiny_imagenet;
mod verify;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use dataset::Dataset;
pub use source::{Split, data_root, load};
pub use verify::{Info, SplitInfo, SplitReport, Verification, class_count, info, verify};

use crate::error::Result;
use crate::rng::Rng;
use crate::{fail, usage};

/// Words in the place of a distilled set: real images, all or some of them, as they are or through a VAE.
pub const BASELINES: [&str; 6] = ["real", "random-real", "k-center", "herding", "mix", "reconstructed"];

/// A class: its place in a [`ImageSet::classes`] list is the label that every artefact uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Human-readable name, for example "apple".
    pub name: String,
    /// The data set's own identifier: a wnid, or the official label number.
    pub id: String,
}

/// Per-channel statistics (R, G, B) of pixels in [0, 1] that students' inputs are normalized with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

/// Labelled square RGB images, held in memory.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// (N, H, W, 3), 0 to 255.
    pub pixels: Vec<u8>,
    /// (N), each below `classes.len()`.
    pub labels: Vec<u16>,
    /// Height and width in pixels.
    pub size: usize,
    pub classes: Arc<Vec<Class>>,
}

impl ImageSet {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image.
    pub fn image_len(&self) -> usize {
        self.size * self.size * 3
    }

    /// Image `i` as (H, W, 3).
    pub fn image(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.image_len()..][..self.image_len()]
    }

    /// The images at `indices`, in that order.
    pub fn subset(&self, indices: &[usize]) -> ImageSet {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_len());
        indices.iter().for_each(|&i| pixels.extend_from_slice(self.image(i)));
        ImageSet {
            pixels,
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            size: self.size,
            classes: self.classes.clone(),
        }
    }

    /// For each class, the indices of its images in ascending order.
    pub fn by_class(&self) -> Vec<Vec<usize>> {
        let mut indices = vec![Vec::new(); self.classes.len()];
        for (i, &label) in self.labels.iter().enumerate() {
            indices[label as usize].push(i);
        }
        indices
    }

    /// `per_class` images of each class, drawn without replacement and ordered by class.
    pub fn random_per_class(&self, per_class: usize, seed: u64) -> Result<ImageSet> {
        let mut chosen = Vec::new();
        for (class, indices) in self.by_class().iter().enumerate() {
            if indices.len() < per_class {
                usage!(
                    "--ipc {per_class}: class {class} ({}) has only {} images; ask for at most that many",
                    self.classes[class].name,
                    indices.len()
                );
            }
            let order = Rng::stream(seed, "random-real", class as u32, 0).permutation(indices.len());
            chosen.extend(order[..per_class].iter().map(|&i| indices[i as usize]));
        }
        Ok(self.subset(&chosen))
    }

    /// The stratified tenth of a train set that settings are tuned on: ascending indices, at least one of two images of a
    /// class. The choice depends on nothing but the set.
    pub fn held_out(&self) -> Vec<usize> {
        tenth(&self.by_class(), "held-out")
    }

    /// Splits off [`ImageSet::held_out`]: (kept, held out).
    pub fn hold_out(self) -> (ImageSet, ImageSet) {
        let held = self.held_out();
        let images = self.subset(&held);
        (self.without(&held), images)
    }

    /// The set less the images at `indices`, which ascend. Images move up in place, so that no second copy is needed.
    fn without(mut self, indices: &[usize]) -> ImageSet {
        let (len, mut kept) = (self.image_len(), 0);
        for i in 0..self.len() {
            if indices.binary_search(&i).is_err() {
                self.pixels.copy_within(i * len..(i + 1) * len, kept * len);
                self.labels[kept] = self.labels[i];
                kept += 1;
            }
        }
        self.pixels.truncate(kept * len);
        self.labels.truncate(kept);
        self
    }

    /// SHA-256 in hex over everything that the set consists of: size, pixels, labels, class names and ids.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        // Each part is led by its length, so that no two different sets feed the hash the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(&(self.size as u64).to_le_bytes());
        part(&self.pixels);
        part(&self.labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>());
        for class in self.classes.iter() {
            part(class.name.as_bytes());
            part(class.id.as_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A tenth of each class's indices, at least one and never all, drawn from the stream `name` of each class; ascending.
fn tenth(by_class: &[Vec<usize>], name: &str) -> Vec<usize> {
    let mut chosen = Vec::new();
    for (class, indices) in by_class.iter().enumerate() {
        let order = Rng::stream(0, name, class as u32, 0).permutation(indices.len());
        let count = (indices.len() / 10).max(1).min(indices.len().saturating_sub(1));
        chosen.extend(order[..count].iter().map(|&i| indices[i as usize]));
    }
    chosen.sort_unstable();
    chosen
}

/// Room for `images` images of `size` x `size` pixels, or an error that says how much it would be.
fn zeros(images: usize, size: usize) -> Result<Vec<u8>> {
    let bytes = images.checked_mul(size * size * 3);
    let mut pixels = Vec::new();
    match bytes.map(|bytes| (bytes, pixels.try_reserve_exact(bytes))) {
        Some((bytes, Ok(()))) => pixels.resize(bytes, 0),
        _ => fail!(
            "{images} images of {size} x {size} pixels do not fit into memory ({:.1} GB); lower image_size",
            images as f64 * (size * size * 3) as f64 / 1e9
        ),
    }
    Ok(pixels)
}
