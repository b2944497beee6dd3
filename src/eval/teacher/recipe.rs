//! How a teacher is trained: the recipes of configs/teachers.

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::models::students::{Classifier, ConvNetSize, StudentKind};
use crate::nearest::nearest;
use crate::train::StageConfig;
use crate::usage;

/// The recipes compiled in, as (name, file).
const FILES: [(&str, &str); 1] = [("cpu", include_str!("../../../configs/teachers/cpu.toml"))];

/// The ConvNet of an architecture that does not state its size.
const CONVNET: ConvNetSize = ConvNetSize { depth: 3, width: 128 };

/// How a teacher is trained, by AdamW on random crops and flips of the train split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// A student's name, for example "resnet18-w32-group".
    pub arch: String,
    /// Passes over the train split; a time limit can only lower them.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: usize,
    /// Peak of AdamW's learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises to its peak; afterwards it falls as half a cosine to 0.
    pub warmup: u64,
    pub weight_decay: f64,
    /// Gradients are scaled down to this L2 norm.
    pub clip_norm: f64,
    /// Decay of the weights' moving average, which is the teacher.
    pub ema_decay: f64,
    /// Largest shift of an image in pixels, to each side; what comes in is of the mean colour.
    pub crop: usize,
    /// Whether images are mirrored at random.
    pub flip: bool,
    /// Steps from one line of metrics, checkpoint and validation to the next.
    pub log_every: u64,
    pub checkpoint_every: u64,
    pub validate_every: u64,
}

impl Recipe {
    /// The recipe called `name` in configs/teachers.
    pub fn named(name: &str) -> Result<Self> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            let near = nearest(name, Self::names()).map_or(String::new(), |near| format!("; did you mean {near}?"));
            usage!("recipe {name} is unknown; expected one of {}{near}", Self::names().join(", "));
        };
        toml::from_str(text).map_err(|e| Error::Failed(format!("configs/teachers/{name}.toml: {e}")))
    }

    /// The names that [`Recipe::named`] knows.
    pub fn names() -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    /// The recipe with `value` for `key`; `source` names the option that says so.
    pub fn with(&self, key: &str, value: toml::Value, source: &str) -> Result<Self> {
        let not_toml = |e: &dyn std::fmt::Display| Error::Failed(format!("the recipe: {e}"));
        let mut table = toml::Table::try_from(self).map_err(|e| not_toml(&e))?;
        if !table.contains_key(key) {
            let near = nearest(key, table.keys().map(String::as_str));
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            usage!("{source}: there is no key `{key}` in a teacher's recipe{near}");
        }
        table.insert(key.into(), value);
        table.try_into().map_err(|e| Error::Usage(format!("{source}: {e}")))
    }

    /// The architecture, after a look at every number.
    pub fn check(&self) -> Result<StudentKind> {
        let kind: StudentKind = self.arch.parse()?;
        let positive = [
            ("epochs", f64::from(self.epochs)),
            ("batch_size", self.batch_size as f64),
            ("learning_rate", self.learning_rate),
            ("clip_norm", self.clip_norm),
            ("checkpoint_every", self.checkpoint_every as f64),
        ];
        if let Some((key, value)) = positive.iter().find(|(_, value)| !value.is_finite() || *value <= 0.0) {
            usage!("{key} is {value}, expected more than 0");
        }
        for (key, value) in [("ema_decay", self.ema_decay), ("weight_decay", self.weight_decay)] {
            if !(0.0..1.0).contains(&value) {
                usage!("{key} is {value}, expected at least 0 and less than 1");
            }
        }
        if self.batch_size > 1 << 16 || self.crop > 1 << 10 {
            usage!("batch_size is {} and crop {}, expected at most 65536 and 1024", self.batch_size, self.crop);
        }
        Ok(kind)
    }

    /// The network for images of `size` x `size` pixels.
    pub fn build(&self, size: usize, classes: usize, vb: VarBuilder) -> Result<Box<dyn Classifier>> {
        self.check()?.build(CONVNET, size, classes, vb)
    }

    /// Steps on a train split of `images` images.
    pub fn steps(&self, images: usize) -> u64 {
        (u64::from(self.epochs) * images as u64).div_ceil(self.batch_size as u64)
    }

    /// The same for the trainer.
    pub fn stage(&self, images: usize) -> StageConfig {
        StageConfig {
            steps: self.steps(images),
            batch_size: self.batch_size,
            accumulate: 1,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            ema_decay: self.ema_decay,
        }
    }
}
