//! The data sets by name, and where their files are looked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ImageSet, Normalization, cifar, shapes, tiny_imagenet};
use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::usage;

/// A data set that the program can read or make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetName {
    Shapes,
    Cifar100,
    TinyImageNet,
}

/// A part of a data set. TinyImageNet's `Test` is its val folder, since its own test folder has no labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Test,
}

impl Split {
    pub const ALL: [Split; 2] = [Split::Train, Split::Test];

    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DatasetName {
    pub const ALL: [DatasetName; 3] = [DatasetName::Shapes, DatasetName::Cifar100, DatasetName::TinyImageNet];

    /// The name that options, configurations and files use.
    pub fn as_str(self) -> &'static str {
        match self {
            DatasetName::Shapes => "shapes",
            DatasetName::Cifar100 => "cifar100",
            DatasetName::TinyImageNet => "tinyimagenet",
        }
    }

    /// The name as its authors write it.
    pub fn title(self) -> &'static str {
        match self {
            DatasetName::Shapes => "distill's built-in shapes",
            DatasetName::Cifar100 => "CIFAR-100",
            DatasetName::TinyImageNet => "TinyImageNet-200",
        }
    }

    /// The page to get it from; none for the built-in set.
    pub fn page(self) -> Option<&'static str> {
        match self {
            DatasetName::Shapes => None,
            DatasetName::Cifar100 => Some("https://www.cs.toronto.edu/~kriz/cifar.html"),
            DatasetName::TinyImageNet => Some("http://cs231n.stanford.edu/tiny-imagenet-200.zip"),
        }
    }

    /// Height and width of its images in pixels.
    pub fn image_size(self) -> usize {
        match self {
            DatasetName::Shapes => shapes::SIZE,
            DatasetName::Cifar100 => cifar::SIZE,
            DatasetName::TinyImageNet => tiny_imagenet::SIZE,
        }
    }

    /// What every evaluation protocol normalizes its images with.
    pub fn normalization(self) -> Normalization {
        match self {
            DatasetName::Shapes => shapes::NORMALIZATION,
            DatasetName::Cifar100 => Normalization { mean: [0.5071, 0.4866, 0.4409], std: [0.2673, 0.2564, 0.2762] },
            DatasetName::TinyImageNet => Normalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
        }
    }

    /// (classes, train images, test images) of the official set.
    pub fn official_counts(self) -> (usize, usize, usize) {
        match self {
            DatasetName::Shapes => (10, shapes::count(Split::Train), shapes::count(Split::Test)),
            DatasetName::Cifar100 => (100, 50_000, 10_000),
            DatasetName::TinyImageNet => (200, 100_000, 10_000),
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DatasetName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(name) = Self::ALL.into_iter().find(|name| name.as_str() == text) {
            return Ok(name);
        }
        let known = Self::ALL.map(Self::as_str);
        let hint = nearest(text, known).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        usage!("unknown data set \"{text}\": the known ones are {}{hint}", known.join(", "))
    }
}

/// Reads (or, for shapes, draws) a split of a data set, complete and in its official order.
///
/// `data_dir` is the folder that was asked for on the command line; see [`data_root`].
pub fn load(name: DatasetName, split: Split, data_dir: Option<&Path>) -> Result<ImageSet> {
    match name {
        DatasetName::Shapes => Ok(shapes::generate(split)),
        DatasetName::Cifar100 => cifar::Source::find(&data_root(data_dir)?)?.load(split),
        DatasetName::TinyImageNet => tiny_imagenet::Folder::find(&data_root(data_dir)?)?.load(split),
    }
}

/// The one folder that data is looked for in: `data_dir` if given, else `$DISTILL_DATA`, else
/// `$XDG_CACHE_HOME/distill`, else `~/.cache/distill`.
pub fn data_root(data_dir: Option<&Path>) -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let root = data_dir.map(Path::to_path_buf).or_else(|| variable("DISTILL_DATA"));
    match root.or_else(|| Some(cache()?.join("distill"))) {
        Some(root) => Ok(root),
        None => usage!("no data folder: HOME is not set; pass --data-dir DIR or set DISTILL_DATA"),
    }
}

/// The official download of a data set, for the message that asks for it.
pub(super) struct Download {
    pub name: DatasetName,
    pub file: &'static str,
    pub bytes: u64,
    pub md5: &'static str,
    /// In which form it is read: "unpacked", or "unpacked or as it is".
    pub form: &'static str,
}

impl Download {
    /// The error for a set that is in none of the places `looked`.
    pub fn missing(&self, looked: &[PathBuf]) -> Error {
        let places: Vec<String> = looked.iter().map(|place| format!("  {}", place.display())).collect();
        Error::Failed(format!(
            "{} was not found; looked for\n{}\nIt is {} ({} bytes, MD5 {}) from {}, {}.\n\
             Put it there, or point --data-dir DIR or the variable DISTILL_DATA at the folder that holds it.",
            self.name.title(),
            places.join("\n"),
            self.file,
            self.bytes,
            self.md5,
            self.name.page().unwrap_or_default(),
            self.form
        ))
    }
}
