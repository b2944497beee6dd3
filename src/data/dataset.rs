//! The data sets by name, and what is known of each without opening it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Normalization, Split, cifar, shapes, tiny_imagenet};
use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::usage;

const FOLDER: &str = "folder:";
const HUB: &str = "hf:";

/// ImageNet's statistics, also those of sets of which nothing is known.
const IMAGENET: Normalization = Normalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// A data set that the program can read or make. Everywhere outside the program it is a word: "shapes", "cifar100",
/// "folder:/home/me/flowers", "hf:owner/name".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Dataset {
    Shapes,
    Cifar10,
    Cifar100,
    TinyImageNet,
    /// A folder of images, by its absolute path.
    Folder(PathBuf),
    /// A set on the Hugging Face hub, by its OWNER/NAME.
    Hub(String),
}

impl Dataset {
    /// The sets that have a name of their own.
    pub const NAMED: [Dataset; 4] = [Dataset::Shapes, Dataset::Cifar10, Dataset::Cifar100, Dataset::TinyImageNet];

    /// The name as its authors write it; of a folder its own name, without the path.
    pub fn title(&self) -> String {
        match self {
            Dataset::Shapes => "distill's built-in shapes".into(),
            Dataset::Cifar10 => "CIFAR-10".into(),
            Dataset::Cifar100 => "CIFAR-100".into(),
            Dataset::TinyImageNet => "TinyImageNet-200".into(),
            Dataset::Folder(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            Dataset::Hub(name) => name.clone(),
        }
    }

    /// The page to get it from; none for the built-in set and for folders.
    pub fn page(&self) -> Option<String> {
        match self {
            Dataset::Shapes | Dataset::Folder(_) => None,
            Dataset::Cifar10 | Dataset::Cifar100 => Some("https://www.cs.toronto.edu/~kriz/cifar.html".into()),
            Dataset::TinyImageNet => Some("http://cs231n.stanford.edu/tiny-imagenet-200.zip".into()),
            Dataset::Hub(name) => Some(format!("https://huggingface.co/datasets/{name}")),
        }
    }

    /// Height and width in pixels of a set that has one size only; folders and hub sets are resized to any.
    pub fn own_size(&self) -> Option<usize> {
        match self {
            Dataset::Shapes => Some(shapes::SIZE),
            Dataset::Cifar10 | Dataset::Cifar100 => Some(cifar::SIZE),
            Dataset::TinyImageNet => Some(tiny_imagenet::SIZE),
            Dataset::Folder(_) | Dataset::Hub(_) => None,
        }
    }

    /// Refuses an `image_size` that the set does not have.
    pub fn check_size(&self, image_size: usize) -> Result<()> {
        match self.own_size() {
            Some(own) if own != image_size => {
                usage!("image_size is {image_size}, but the images of {self} are {own} pixels wide; set it to {own}")
            }
            _ => Ok(()),
        }
    }

    /// What every evaluation protocol normalizes its images with: a function of the name alone, so that equal names are
    /// judged alike.
    pub fn normalization(&self) -> Normalization {
        match self {
            Dataset::Shapes => shapes::NORMALIZATION,
            Dataset::Cifar10 => Normalization { mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.2010] },
            Dataset::Cifar100 => Normalization { mean: [0.5071, 0.4866, 0.4409], std: [0.2673, 0.2564, 0.2762] },
            Dataset::TinyImageNet | Dataset::Folder(_) | Dataset::Hub(_) => IMAGENET,
        }
    }

    /// (classes, train images, test images) of the official set, where there is one.
    pub fn official_counts(&self) -> Option<(usize, usize, usize)> {
        match self {
            Dataset::Shapes => Some((10, shapes::count(Split::Train), shapes::count(Split::Test))),
            Dataset::Cifar10 => Some((10, 50_000, 10_000)),
            Dataset::Cifar100 => Some((100, 50_000, 10_000)),
            Dataset::TinyImageNet => Some((200, 100_000, 10_000)),
            Dataset::Folder(_) | Dataset::Hub(_) => None,
        }
    }

    /// A word for file names: "cifar100", "flowers-64px-1a2b3c4d". The digits tell folders of the same name apart.
    pub fn file_stem(&self, image_size: usize) -> String {
        let name = match self {
            Dataset::Folder(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Dataset::Hub(name) => name.clone(),
            named => return named.to_string(),
        };
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let short: String = name.chars().map(letter).take(40).collect();
        let digest = Sha256::digest(self.to_string());
        format!("{short}-{image_size}px-{:08x}", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dataset::Shapes => f.write_str("shapes"),
            Dataset::Cifar10 => f.write_str("cifar10"),
            Dataset::Cifar100 => f.write_str("cifar100"),
            Dataset::TinyImageNet => f.write_str("tinyimagenet"),
            Dataset::Folder(path) => write!(f, "{FOLDER}{}", path.display()),
            Dataset::Hub(name) => write!(f, "{HUB}{name}"),
        }
    }
}

impl From<Dataset> for String {
    fn from(dataset: Dataset) -> String {
        dataset.to_string()
    }
}

impl TryFrom<String> for Dataset {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Dataset {
    type Err = Error;

    /// A folder's path is made absolute, so that what is written of it means the same from everywhere.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(dataset) = Self::NAMED.into_iter().find(|dataset| dataset.to_string() == text) {
            return Ok(dataset);
        }
        if let Some(path) = text.strip_prefix(FOLDER) {
            return folder(path);
        }
        if let Some(name) = text.strip_prefix(HUB) {
            return hub(name);
        }
        let mut known = Self::NAMED.map(|dataset| dataset.to_string()).to_vec();
        known.extend([format!("{FOLDER}PATH"), format!("{HUB}OWNER/NAME")]);
        let word = text.split_once(':').map_or(text, |(word, _)| word);
        let hint = match nearest(word, known.iter().map(|k| k.split_once(':').map_or(k.as_str(), |(word, _)| word))) {
            _ if text.contains('/') && !text.contains(':') => format!("; did you mean {FOLDER}{text}?"),
            Some(near) => {
                format!("; did you mean {}?", known.iter().find(|k| k.starts_with(near)).unwrap_or(&known[0]))
            }
            None => String::new(),
        };
        usage!("unknown data set \"{text}\": the known ones are {}{hint}", known.join(", "))
    }
}

fn folder(path: &str) -> Result<Dataset> {
    let absolute = std::path::absolute(path).map(|path| path.components().collect::<PathBuf>());
    match absolute {
        Ok(path) if path.to_str().is_some() => Ok(Dataset::Folder(path)),
        Ok(path) => {
            usage!("{FOLDER}{}: the path is not valid Unicode; rename it, or make a link to it", path.display())
        }
        Err(problem) => usage!("{FOLDER}{path}: expected the path of a folder of images ({problem})"),
    }
}

fn hub(name: &str) -> Result<Dataset> {
    let word = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match name.split_once('/') {
        Some((owner, set)) if word(owner) && word(set) => Ok(Dataset::Hub(name.into())),
        _ => usage!("{HUB}{name}: expected {HUB}OWNER/NAME, for example {HUB}uoft-cs/cifar10"),
    }
}
