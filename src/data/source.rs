//! Reading a split of any data set, and where its files are looked for.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image_folder::ImageFolder;
use super::{Dataset, ImageSet, cifar, hub, shapes, tiny_imagenet};
use crate::error::Result;
use crate::usage;

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

/// Reads (or, for shapes, draws) a split of a data set, complete and in its official order.
///
/// `image_size`: height and width of the result in pixels, [`Dataset::own_size`] where the set has one; `data_dir`: the
/// folder that was asked for on the command line; see [`data_root`].
pub fn load(dataset: &Dataset, split: Split, image_size: usize, data_dir: Option<&Path>) -> Result<ImageSet> {
    dataset.check_size(image_size)?;
    match dataset {
        Dataset::Shapes => Ok(shapes::generate(split)),
        Dataset::Cifar10 => cifar::CIFAR10.find(&data_root(data_dir)?)?.load(split),
        Dataset::Cifar100 => cifar::CIFAR100.find(&data_root(data_dir)?)?.load(split),
        Dataset::TinyImageNet => tiny_imagenet::Folder::find(&data_root(data_dir)?)?.load(split),
        Dataset::Folder(root) => ImageFolder::open(root)?.load(split, image_size),
        Dataset::Hub(name) => hub::load(name, split, image_size),
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
