//! The recipes that students are trained by. A result means something only beside its protocol's name.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::usage;

/// The protocols compiled in, as (name, file).
const FILES: [(&str, &str); 3] = [
    ("challenge", include_str!("../../configs/protocols/challenge.toml")),
    ("steps", include_str!("../../configs/protocols/steps.toml")),
    ("quick", include_str!("../../configs/protocols/quick.toml")),
];

/// How a student is trained and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// The name of the recipe; it says so where the recipe was changed.
    pub name: String,
    pub length: Length,
    /// The learning rate drops, and the momentum starts afresh, after this many of `length`'s units.
    pub drop_after: u32,
    /// What the learning rate is multiplied with at the drop.
    pub drop_factor: f32,
    /// Images an update, at least 1; the last batch of an epoch may be shorter.
    pub batch_size: usize,
    pub lr: f32,
    pub momentum: f32,
    /// On every parameter, norms and biases too.
    pub weight_decay: f32,
    /// Whether each batch goes through one random [`super::Augmentation`].
    pub augment: bool,
    /// Students trained, each from its own initialization; the result is their mean.
    pub runs: u32,
    pub convnet: ConvNetSize,
}

/// How long one student trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Passes over the training images.
    Epochs(u32),
    /// Optimizer updates; the last epoch is cut short where it does not fit.
    Updates(u32),
}

/// The size of the ConvNet student.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNetSize {
    pub depth: usize,
    pub width: usize,
}

/// A protocol's length on a set of known size, in optimizer updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub updates_per_epoch: u32,
    pub updates: u32,
    /// The first update (from 0) with the lower learning rate.
    pub drop_at: u32,
}

impl Protocol {
    /// The protocol called `name` in configs/protocols.
    pub fn named(name: &str) -> Result<Self> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            let near = nearest(name, Self::names()).map_or(String::new(), |near| format!("; did you mean {near}?"));
            usage!("protocol {name} is unknown; expected one of {}{near}", Self::names().join(", "));
        };
        toml::from_str(text).map_err(|e| Error::Failed(format!("configs/protocols/{name}.toml: {e}")))
    }

    /// The names that [`Protocol::named`] knows.
    pub fn names() -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    /// The same recipe over `epochs` epochs, named as changed, with the drop at the same part of the way.
    pub fn with_epochs(mut self, epochs: u32) -> Result<Self> {
        if epochs == 0 {
            usage!("--epochs 0: expected at least 1 epoch");
        }
        if self.length == Length::Epochs(epochs) {
            return Ok(self);
        }
        let (Length::Epochs(total) | Length::Updates(total)) = self.length;
        let part = f64::from(self.drop_after) / f64::from(total);
        self.drop_after = (part * f64::from(epochs)).round() as u32;
        self.length = Length::Epochs(epochs);
        self.rename(&format!("epochs={epochs}"));
        Ok(self)
    }

    /// The same recipe `runs` times, named as changed.
    pub fn with_runs(mut self, runs: u32) -> Result<Self> {
        if runs == 0 {
            usage!("--runs 0: expected at least 1 run");
        }
        if self.runs != runs {
            self.runs = runs;
            self.rename(&format!("runs={runs}"));
        }
        Ok(self)
    }

    /// Says in the name what was changed.
    fn rename(&mut self, change: &str) {
        self.name = match self.name.strip_suffix(')') {
            Some(start) => format!("{start}, {change})"),
            None => format!("{} (changed: {change})", self.name),
        };
    }

    /// The number of updates on `images` training images.
    pub fn plan(&self, images: usize) -> Plan {
        let updates_per_epoch = images.div_ceil(self.batch_size) as u32;
        match self.length {
            Length::Epochs(epochs) => Plan {
                updates_per_epoch,
                updates: epochs.saturating_mul(updates_per_epoch),
                drop_at: self.drop_after.saturating_mul(updates_per_epoch),
            },
            Length::Updates(updates) => Plan { updates_per_epoch, updates, drop_at: self.drop_after },
        }
    }
}
