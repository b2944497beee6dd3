//! What a distilled set lists: everything but its pixels.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::SoftLabels;
use crate::data::{Class, Dataset};
use crate::error::Result;
use crate::fail;

/// A distilled set without its pixels: a few bytes an image, however large the images are, besides soft labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// (N), each below `classes.len()`.
    pub labels: Vec<u16>,
    /// (N): each image's index within its class: of the noise stream (seed, class, index), or of the real image.
    pub indices: Vec<u32>,
    /// Height and width in pixels.
    pub size: usize,
    /// The data set's whole list, also where only some classes have images.
    pub classes: Arc<Vec<Class>>,
    /// A probability for each class, where the set has them.
    pub soft_labels: Option<SoftLabels>,
    pub provenance: Provenance,
}

/// How a distilled set was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The data set that it stands for.
    pub dataset: Dataset,
    /// One phrase for people, for example "sampled from a latent diffusion model with DDIM".
    pub method: String,
    pub seed: u64,
    /// Settings, hashes and versions: whatever is needed to make it again.
    pub details: Map<String, Value>,
}

impl Listing {
    /// The number of images.
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

    /// Images of each class, in label order; zero for classes that were left out.
    pub fn images_per_class(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for &label in &self.labels {
            counts[usize::from(label)] += 1;
        }
        counts
    }

    /// The largest number of images of a class.
    pub fn ipc(&self) -> usize {
        self.images_per_class().into_iter().max().unwrap_or(0)
    }

    /// Checks that the labels mean the same classes as `expected` does: same names and ids in the same order.
    pub fn check_classes(&self, expected: &[Class]) -> Result<()> {
        let found = &self.classes;
        if found.len() != expected.len() {
            fail!(
                "the distilled set was made for {} classes, but {} has {} here; use the same copy of the data set for both",
                found.len(),
                self.provenance.dataset,
                expected.len()
            );
        }
        match found.iter().zip(expected).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(i) => fail!(
                "label {i} of the distilled set is {} ({}), but of {} here it is {} ({}); use the same copy of the data set \
                 for both",
                found[i].name,
                found[i].id,
                self.provenance.dataset,
                expected[i].name,
                expected[i].id
            ),
        }
    }
}
