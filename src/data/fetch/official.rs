//! The archives that the data sets' authors publish.

use std::path::{Path, PathBuf};

use super::Archive;
use crate::data::Dataset;
use crate::error::Error;

pub const CIFAR10: Archive = Archive {
    file: "cifar-10-binary.tar.gz",
    site: "https://www.cs.toronto.edu/~kriz",
    bytes: 170_052_171,
    md5: "c32a1d4ab5d03f1284b67883e8d87530",
    folder: "cifar-10-batches-bin",
};

pub const CIFAR100: Archive = Archive {
    file: "cifar-100-binary.tar.gz",
    site: "https://www.cs.toronto.edu/~kriz",
    bytes: 168_513_733,
    md5: "03b5dce01913d631647c71ecec9e9cb8",
    folder: "cifar-100-binary",
};

pub const TINY_IMAGENET: Archive = Archive {
    file: "tiny-imagenet-200.zip",
    site: "http://cs231n.stanford.edu",
    bytes: 248_100_043,
    md5: "90528d7ca1a48142e341f4ef8d21d0de",
    folder: "tiny-imagenet-200",
};

impl Archive<'static> {
    /// The official archive of `dataset`, if it has one.
    pub fn of(dataset: &Dataset) -> Option<Self> {
        match dataset {
            Dataset::Cifar10 => Some(CIFAR10),
            Dataset::Cifar100 => Some(CIFAR100),
            Dataset::TinyImageNet => Some(TINY_IMAGENET),
            Dataset::Shapes | Dataset::Folder(_) | Dataset::Hub(_) => None,
        }
    }
}

impl Archive<'_> {
    /// Where it is: on its own site, or on `mirror`, the address of a folder that holds the same file.
    pub fn url(&self, mirror: Option<&str>) -> String {
        format!("{}/{}", mirror.unwrap_or(self.site).trim_end_matches('/'), self.file)
    }

    /// The error for `dataset`, whose archive this is, where it is in none of the places `looked`.
    pub fn missing(&self, dataset: &Dataset, looked: &[PathBuf]) -> Error {
        let places: Vec<String> = looked.iter().map(|place| format!("  {}", place.display())).collect();
        Error::NoData(format!(
            "{} was not found; looked for\n{}\nIt is {} ({} bytes, MD5 {}) from {}: `distill data fetch --dataset \
             {dataset}` gets it. Or put it there, or point --data-dir DIR or the variable DISTILL_DATA at the folder that \
             holds it.",
            dataset.title(),
            places.join("\n"),
            self.file,
            self.bytes,
            self.md5,
            self.url(None),
        ))
    }

    /// The error for a file at `path` that is not as it is in the archive: `what` is wrong with it.
    pub fn get_again(&self, path: &Path, what: &str) -> Error {
        Error::Failed(format!(
            "{}: {what}; get {} again ({} bytes, MD5 {})",
            path.display(),
            self.file,
            self.bytes,
            self.md5
        ))
    }
}
