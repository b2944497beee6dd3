//! Distilled sets in the formats of other programs: written by `export`, read by `import`, a file there for each format.

mod export;
mod import;

use std::collections::BTreeMap;

use clap::ValueEnum;

pub use export::{check_apart, check_place, export};
pub use import::{Imported, Pixels, Reading, import};

use crate::data::Class;
use crate::distilled::{Listing, TENSOR_FILE};

/// A format that sets are exchanged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// PyTorch: a dict of u8 images, labels, classes, mean and std
    Pt,
    /// NumPy: arrays of u8 images, labels, class names, mean and std
    Npz,
    /// Hugging Face: encoded images and labels with their names
    Parquet,
    /// WebDataset: tar archives of images, labels and descriptions
    Webdataset,
    /// A folder of PNG files for each class
    Imagefolder,
    /// The ECCV 2024 dataset distillation challenge: one float tensor, normalized, 10 images a class
    Challenge,
    /// Tensors by name; only read, as a distilled folder holds its own such file
    Safetensors,
}

impl Format {
    /// The name of an export of `set`.
    pub fn file_name(self, set: &Listing) -> String {
        match self {
            Format::Pt => "distilled.pt".into(),
            Format::Npz => "distilled.npz".into(),
            Format::Parquet => "train.parquet".into(),
            Format::Webdataset => "webdataset".into(),
            Format::Imagefolder => "imagefolder".into(),
            Format::Challenge => format!("{}.pt", set.provenance.dataset.file_stem(set.size)),
            Format::Safetensors => TENSOR_FILE.into(),
        }
    }
}

/// The classes' names in label order, with the id behind those that several classes share: readers want them unique.
fn unique_names(classes: &[Class]) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for class in classes {
        *counts.entry(&class.name).or_insert(0) += 1;
    }
    let name = |class: &Class| {
        if counts.get(&class.name) == Some(&1) { class.name.clone() } else { format!("{} ({})", class.name, class.id) }
    };
    classes.iter().map(name).collect()
}
