//! Distilled sets: a few images a class with their provenance, and the folder they are kept in.
//!
//! ```text
//! distilled.safetensors        images u8 (N, 3, H, W), labels i64 (N), all the rest in its metadata
//! train/<000_apple>/<0003>.png the same images
//! manifest.jsonl  README.md  grid.png
//! ```

mod card;
mod grid;
mod tensor_file;
mod write;

pub use write::check_place;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use grid::grid;

use crate::data::{Class, Dataset, ImageSet};
use crate::error::{AtPath, Result};
use crate::fail;

/// The tensor file's name inside a distilled folder.
pub const TENSOR_FILE: &str = "distilled.safetensors";

/// Labelled images that stand for a data set, and where they come from.
#[derive(Clone, Debug)]
pub struct DistilledSet {
    /// In order of class. The class list is the data set's whole list, also where only some classes have images.
    pub images: ImageSet,
    /// (N): each image's index within its class: of the noise stream (seed, class, index), or of the real image.
    pub indices: Vec<u32>,
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

impl DistilledSet {
    /// Puts the images in order of class, keeping their order within a class. An error if there is no image, or not one
    /// index for each.
    pub fn new(images: ImageSet, indices: Vec<u32>, provenance: Provenance) -> Result<Self> {
        if images.is_empty() || indices.len() != images.len() {
            fail!(
                "a distilled set needs images, and an index for each: {} images, {} indices",
                images.len(),
                indices.len()
            );
        }
        let order = images.by_class().concat();
        let indices = order.iter().map(|&i| indices[i]).collect();
        Ok(DistilledSet { images: images.subset(&order), indices, provenance })
    }

    /// Reads a distilled folder or its tensor file and checks that it is consistent, the folder's PNG files included.
    pub fn read(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join(TENSOR_FILE) } else { path.to_path_buf() };
        if !file.is_file() {
            fail!(
                "{} holds no distilled set: expected a folder with {TENSOR_FILE}, or such a file; make one with distill \
                 sample",
                path.display()
            );
        }
        let set = tensor_file::decode(&fs::read(&file).at(&file)?, &file)?;
        if path.is_dir() {
            set.check_pngs(path)?;
        }
        Ok(set)
    }

    /// Images of each class, in label order; zero for classes that were left out.
    pub fn images_per_class(&self) -> Vec<usize> {
        self.images.by_class().iter().map(Vec::len).collect()
    }

    /// The largest number of images of a class.
    pub fn ipc(&self) -> usize {
        self.images_per_class().into_iter().max().unwrap_or(0)
    }

    /// Checks that the labels mean the same classes as `expected` does: same names and ids in the same order.
    pub fn check_classes(&self, expected: &[Class]) -> Result<()> {
        let found = &self.images.classes;
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

    /// Checks that the folder's `train/` has as many PNG files of each class as the tensor file has images.
    fn check_pngs(&self, folder: &Path) -> Result<()> {
        for (label, expected) in self.images_per_class().into_iter().enumerate() {
            let class = folder.join("train").join(class_folder(&self.images.classes, label));
            let mut found = 0;
            if class.is_dir() {
                for entry in fs::read_dir(&class).at(&class)? {
                    found += usize::from(entry.at(&class)?.path().extension().is_some_and(|e| e == "png"));
                }
            }
            if found != expected {
                fail!(
                    "{} has {found} PNG files, but {TENSOR_FILE} has {expected} images of that class: one of them was \
                     changed; name the .safetensors file itself to use it alone, or sample again",
                    class.display()
                );
            }
        }
        Ok(())
    }
}

/// Words that Hugging Face's image folder takes for a split wherever they stand alone in a folder's name.
const SPLIT_WORDS: [&str; 10] =
    ["train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"];

/// A class's folder, "000_apple": the number keeps the order of labels for readers that sort folders by name. CIFAR-100's
/// class "train" becomes "090_trainclass": as "090_train" inside train/ its images would be loaded twice.
fn class_folder(classes: &[Class], label: usize) -> String {
    let width = digits(classes.len().saturating_sub(1)).max(3);
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = classes[label].name.chars().map(letter).collect();
    let word = |word: &str| format!("{word}{}", if SPLIT_WORDS.contains(&word) { "class" } else { "" });
    format!("{label:0width$}_{}", name.split('_').map(word).collect::<Vec<_>>().join("_"))
}

/// The file of each image relative to the distilled folder, in the set's order: "train/000_apple/0003.png".
fn image_files(set: &DistilledSet) -> Vec<String> {
    let width = digits(set.ipc().saturating_sub(1)).max(4);
    let mut files = vec![String::new(); set.images.len()];
    for (label, images) in set.images.by_class().into_iter().enumerate() {
        let folder = class_folder(&set.images.classes, label);
        for (place, i) in images.into_iter().enumerate() {
            files[i] = format!("train/{folder}/{place:0width$}.png");
        }
    }
    files
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}
