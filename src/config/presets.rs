//! The presets of `configs/`, compiled into the binary.

use super::layers;
use crate::data::Dataset;
use crate::error::Result;
use crate::usage;

const PRESETS: [(&str, &str); 9] = [
    ("shapes", include_str!("../../configs/shapes.toml")),
    ("cifar10", include_str!("../../configs/cifar10.toml")),
    ("cifar10-cpu", include_str!("../../configs/cifar10-cpu.toml")),
    ("cifar100", include_str!("../../configs/cifar100.toml")),
    ("cifar100-cpu", include_str!("../../configs/cifar100-cpu.toml")),
    ("tinyimagenet", include_str!("../../configs/tinyimagenet.toml")),
    ("tinyimagenet-cpu", include_str!("../../configs/tinyimagenet-cpu.toml")),
    ("folder", include_str!("../../configs/folder.toml")),
    ("folder-cpu", include_str!("../../configs/folder-cpu.toml")),
];

/// A named configuration.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    pub name: &'static str,
    /// The whole file, comments included.
    pub toml: &'static str,
}

impl Preset {
    pub fn all() -> impl Iterator<Item = Preset> {
        PRESETS.iter().map(|&(name, toml)| Preset { name, toml })
    }

    pub fn named(name: &str) -> Result<Preset> {
        match Self::all().find(|preset| preset.name == name) {
            Some(preset) => Ok(preset),
            None => {
                usage!("--preset {name}: unknown; expected one of {}", preset_names().collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Its keys as they stand in the file; in a [`Config`](super::Config) a folder's path would be made absolute.
    pub fn table(&self) -> Result<toml::Table> {
        layers::table(self.toml, &format!("preset {}", self.name))
    }

    /// What it is for: the first line of its file.
    pub fn about(&self) -> &'static str {
        self.toml.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    /// What it is sized for: of NAME and NAME-cpu the former is for a GPU; one that stands alone is for any device.
    pub fn device(&self) -> &'static str {
        let is_named = |name: &str| preset_names().any(|known| known == name);
        match self.name.ends_with("-cpu") {
            true => "cpu",
            false if is_named(&format!("{}-cpu", self.name)) => "gpu",
            false => "any",
        }
    }
}

pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The preset that fits a data set and a device.
pub fn default_preset(dataset: &Dataset, on_gpu: bool) -> &'static str {
    match (dataset, on_gpu) {
        (Dataset::Shapes, _) => "shapes",
        (Dataset::Cifar10, true) => "cifar10",
        (Dataset::Cifar10, false) => "cifar10-cpu",
        (Dataset::Cifar100, true) => "cifar100",
        (Dataset::Cifar100, false) => "cifar100-cpu",
        (Dataset::TinyImageNet, true) => "tinyimagenet",
        (Dataset::TinyImageNet, false) => "tinyimagenet-cpu",
        (Dataset::Folder(_) | Dataset::Hub(_), true) => "folder",
        (Dataset::Folder(_) | Dataset::Hub(_), false) => "folder-cpu",
    }
}
