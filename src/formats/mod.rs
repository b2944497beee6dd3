//! Distilled sets in the formats of other programs: written by `export`, read by `import`, a file there for each format.

mod export;
mod import;

use clap::ValueEnum;

pub use export::export;
pub use import::{Imported, Pixels, Reading, import};

use crate::distilled::DistilledSet;

/// A format that sets are exchanged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// PyTorch: a dict of u8 images, labels, classes, mean and std
    Pt,
    /// NumPy: arrays of u8 images, labels, class names, mean and std
    Npz,
    /// The ECCV 2024 dataset distillation challenge: one float tensor, normalized, 10 images a class
    Challenge,
}

impl Format {
    /// The name of an export of `set`.
    pub fn file_name(self, set: &DistilledSet) -> String {
        match self {
            Format::Pt => "distilled.pt".into(),
            Format::Npz => "distilled.npz".into(),
            Format::Challenge => format!("{}.pt", set.provenance.dataset.file_stem(set.images.size)),
        }
    }
}
