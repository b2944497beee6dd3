//! The presets of `configs/`, compiled into the binary.

use crate::data::Dataset;
use crate::error::Result;
use crate::usage;

const PRESETS: [(&str, &str); 7] = [
    ("shapes", include_str!("../../configs/shapes.toml")),
    ("cifar10", include_str!("../../configs/cifar10.toml")),
    ("cifar10-cpu", include_str!("../../configs/cifar10-cpu.toml")),
    ("cifar100", include_str!("../../configs/cifar100.toml")),
    ("cifar100-cpu", include_str!("../../configs/cifar100-cpu.toml")),
    ("tinyimagenet", include_str!("../../configs/tinyimagenet.toml")),
    ("tinyimagenet-cpu", include_str!("../../configs/tinyimagenet-cpu.toml")),
];

pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The text of a preset.
pub(super) fn preset(name: &str) -> Result<&'static str> {
    match PRESETS.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => Ok(text),
        None => usage!("--preset {name}: unknown; the presets are {}", preset_names().collect::<Vec<_>>().join(", ")),
    }
}

/// The preset that fits a data set and a device.
pub fn default_preset(dataset: &Dataset, on_gpu: bool) -> &'static str {
    match (dataset, on_gpu) {
        (Dataset::Shapes, _) => "shapes",
        (Dataset::Cifar10, true) => "cifar10",
        (Dataset::Cifar10, false) => "cifar10-cpu",
        (Dataset::Cifar100, true) => "cifar100",
        (Dataset::Cifar100, false) => "cifar100-cpu",
        (Dataset::Folder(_) | Dataset::Hub(_), true) => "tinyimagenet",
        (Dataset::Folder(_) | Dataset::Hub(_), false) => "tinyimagenet-cpu",
        (Dataset::TinyImageNet, true) => "tinyimagenet",
        (Dataset::TinyImageNet, false) => "tinyimagenet-cpu",
    }
}
