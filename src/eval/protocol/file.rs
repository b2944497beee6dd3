//! Protocols out of files: those compiled in, and a user's own, whose every value is checked.

use std::fs;
use std::path::Path;

use super::{Length, OptimizerKind, Protocol, Schedule};
use crate::error::{AtPath, Error, Result};
use crate::nearest::nearest;
use crate::usage;

/// The protocols compiled in, as (name, file).
const FILES: [(&str, &str); 5] = [
    ("challenge", include_str!("../../../configs/protocols/challenge.toml")),
    ("dc", include_str!("../../../configs/protocols/dc.toml")),
    ("steps", include_str!("../../../configs/protocols/steps.toml")),
    ("quick", include_str!("../../../configs/protocols/quick.toml")),
    ("soft", include_str!("../../../configs/protocols/soft.toml")),
];
/// Epochs, updates and images a batch, at most: far above what is trained, far below what overflows.
const MOST: u32 = 1 << 30;
/// Letters of a name, at most: folders of results are called after it.
const LONGEST_NAME: usize = 60;

impl Protocol {
    /// The protocol called `name` in configs/protocols, or the one in the TOML file of this path.
    pub fn of(name: &str) -> Result<Self> {
        if Self::is_path(name) { Self::read(Path::new(name)) } else { Self::named(name) }
    }

    /// Whether [`Protocol::of`] takes `name` for a file.
    pub fn is_path(name: &str) -> bool {
        name.ends_with(".toml") || name.contains(['/', '\\'])
    }

    /// The protocol called `name` in configs/protocols.
    pub fn named(name: &str) -> Result<Self> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            let near = nearest(name, Self::names()).map_or(String::new(), |near| format!("; did you mean {near}?"));
            let known = Self::names().join(", ");
            usage!("protocol {name} is unknown; expected one of {known}, or the path of a .toml file{near}");
        };
        toml::from_str(text).map_err(|e| Error::Failed(format!("configs/protocols/{name}.toml: {e}")))
    }

    /// The names that [`Protocol::named`] knows.
    pub fn names() -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    /// A user's own protocol. Unknown keys, values out of range, and the name of another protocol are refused.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).at(path)?;
        let refuse = |what: String| Error::Usage(format!("{}: {what}", path.display()));
        let protocol: Protocol = toml::from_str(&text).map_err(|e| refuse(e.to_string().trim_end().into()))?;
        protocol.check().map_err(refuse)?;
        match Self::named(&protocol.name) {
            Ok(known) if known != protocol => {
                usage!("{}: name {} is that of another protocol; choose another name", path.display(), protocol.name)
            }
            _ => Ok(protocol),
        }
    }

    /// Refuses what cannot be carried out. Errors are sentences.
    pub fn check(&self) -> std::result::Result<(), String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > LONGEST_NAME || !self.name.chars().all(fits) {
            return Err(format!(
                "name is {:?}, expected 1 to {LONGEST_NAME} letters, digits, -, _ or .",
                self.name.chars().take(2 * LONGEST_NAME).collect::<String>()
            ));
        }
        let (Length::Epochs(length) | Length::Updates(length)) = self.length;
        whole("length", length as usize, 1, MOST as usize)?;
        whole("batch_size", self.batch_size, 1, MOST as usize)?;
        whole("runs", self.runs as usize, 1, 1000)?;
        whole("convnet.width", self.convnet.width, 1, 8192)?;
        for depth in self.convnet.depth.all()? {
            whole("convnet.depth", depth, 1, 16)?;
        }
        number("lr", self.lr, self.lr > 0.0, "a number above 0")?;
        number("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "0 or more")?;
        number("momentum", self.momentum, (0.0..1.0).contains(&self.momentum), "from 0 to below 1")?;
        if self.optimizer == OptimizerKind::Adamw && self.momentum != 0.0 {
            return Err("momentum is SGD's, but optimizer is \"adamw\"; remove it".into());
        }
        if let Some(soft) = self.soft_labels {
            number("soft_labels.temperature", soft.temperature, soft.temperature > 0.0, "a number above 0")?;
        }
        match self.schedule {
            Schedule::Drop => {
                whole("drop_after", self.drop_after as usize, 1, length as usize)?;
                number("drop_factor", self.drop_factor, self.drop_factor > 0.0, "a number above 0")
            }
            _ if self.drop_after != 0 || self.drop_factor != 0.0 => {
                Err("drop_after and drop_factor are of schedule \"drop\"; remove them, or the schedule".into())
            }
            _ => Ok(()),
        }
    }
}

fn whole(key: &str, value: usize, least: usize, most: usize) -> std::result::Result<(), String> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(format!("{key} is {value}, expected {least} to {most}")) }
}

fn number(key: &str, value: f32, fits: bool, expected: &str) -> std::result::Result<(), String> {
    if fits && value.is_finite() { Ok(()) } else { Err(format!("{key} is {value}, expected {expected}")) }
}
