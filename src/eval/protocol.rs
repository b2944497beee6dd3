//! The recipes that students are trained by. A result means something only beside its protocol's name.

mod depth;
mod file;

use serde::{Deserialize, Serialize};

pub use depth::Depth;

use crate::checksums::sha256;
use crate::error::{Error, Result};
use crate::models::students::ConvNetSize;
use crate::usage;

/// How a student is trained and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// The name of the recipe; it says so where the recipe was changed.
    pub name: String,
    pub length: Length,
    /// The learning rate's course.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: Schedule,
    /// Under [`Schedule::Drop`], the learning rate drops, and the momentum starts afresh, after this many of `length`'s
    /// units.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drop_after: u32,
    /// What the learning rate is multiplied with at the drop.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drop_factor: f32,
    /// Images an update, at least 1; the last batch of an epoch may be shorter.
    pub batch_size: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    pub optimizer: OptimizerKind,
    pub lr: f32,
    /// Of SGD.
    #[serde(default, skip_serializing_if = "is_default")]
    pub momentum: f32,
    /// On every parameter, norms and biases too.
    pub weight_decay: f32,
    /// Whether each batch goes through one random [`super::Augmentation`].
    pub augment: bool,
    /// Students learn the set's soft labels; without it, each image's class.
    #[serde(default, skip_serializing_if = "is_default")]
    pub soft_labels: Option<SoftTargets>,
    /// Students trained, each from its own initialization; the result is their mean.
    pub runs: u32,
    pub convnet: ConvNetSizes,
}

/// How the learning rate goes on from `lr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// One drop, see `drop_after`.
    #[default]
    Drop,
    /// Along half a cosine to 0 after the last update (Loshchilov and Hutter 2017, without restarts).
    Cosine,
    Constant,
}

/// What updates the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// With momentum; the decay is part of the gradient.
    #[default]
    Sgd,
    /// PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8.
    Adamw,
}

/// How soft labels are learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftTargets {
    /// Softens both the labels and the student's answer: softmax(logits / temperature). See
    /// [`crate::ops::distillation_loss`].
    pub temperature: f32,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNetSizes {
    /// Blocks, each of which halves the image.
    pub depth: Depth,
    pub width: usize,
}

/// A protocol's length on a set of known size, in optimizer updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub updates_per_epoch: u32,
    pub updates: u32,
    /// The first update (from 0) with the lower learning rate, under [`Schedule::Drop`].
    pub drop_at: u32,
}

impl Protocol {
    /// The recipe for images of `size` x `size` pixels: what depends on the size is decided.
    pub fn at(&self, size: usize) -> Result<Self> {
        let ConvNetSize { depth, width } = self.convnet_at(size)?;
        Ok(Protocol { convnet: ConvNetSizes { depth: depth.into(), width }, ..self.clone() })
    }

    /// The ConvNet for images of `size` x `size` pixels.
    pub fn convnet_at(&self, size: usize) -> Result<ConvNetSize> {
        let depth = self.convnet.depth.at(size).map_err(|e| Error::Usage(format!("protocol {}: {e}", self.name)))?;
        Ok(ConvNetSize { depth, width: self.convnet.width })
    }

    /// SHA-256 in hex of the protocol as JSON: of all that it says, its name and the number of runs included.
    pub fn sha256(&self) -> Result<String> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::Failed(format!("protocol {}: {e}", self.name)))?;
        Ok(sha256(&bytes))
    }

    /// Whether both train students alike: all but the name and the number of runs is equal.
    pub fn same_recipe(&self, other: &Protocol) -> bool {
        *self == Protocol { name: self.name.clone(), runs: self.runs, ..other.clone() }
    }

    /// The learning rate of update `update` of `updates`, both from 0. [`Schedule::Drop`] is the optimizer's own matter:
    /// it loses its momentum as well.
    pub fn lr_at(&self, update: u32, updates: u32) -> Option<f32> {
        let part = f64::from(update) / f64::from(updates);
        match self.schedule {
            Schedule::Drop => None,
            Schedule::Constant => Some(self.lr),
            Schedule::Cosine => Some((f64::from(self.lr) * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())) as f32),
        }
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
        if self.schedule == Schedule::Drop {
            self.drop_after = (part * f64::from(epochs)).round().max(1.0) as u32;
        }
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
