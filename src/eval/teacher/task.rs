//! Training a teacher.

use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::{Recipe, agreement, logits};
use crate::data::{ImageSet, Normalization};
use crate::error::Result;
use crate::eval::{Augmentation, PixelTable};
use crate::models::students::Classifier;
use crate::nn::Params;
use crate::ops::cpu::tensor;
use crate::ops::{Tape, Value, cross_entropy};
use crate::progress::{Console, Verbosity};
use crate::rng::Rng;
use crate::train::{Batches, Task, Validation};

/// The mean cross-entropy over shuffled batches of shifted and mirrored images.
pub struct TeacherTask<'a> {
    net: Box<dyn Classifier>,
    averaged: Box<dyn Classifier>,
    images: &'a ImageSet,
    validation: &'a ImageSet,
    normalization: Normalization,
    pixels: PixelTable,
    batches: Batches,
    recipe: &'a Recipe,
    seed: u64,
    device: Device,
}

impl<'a> TeacherTask<'a> {
    /// `params` and `ema` are empty; the networks are built in them.
    pub fn new(
        recipe: &'a Recipe,
        (params, ema): (&Params, &Params),
        (images, validation): (&'a ImageSet, &'a ImageSet),
        normalization: Normalization,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let build = |params: &Params| recipe.build(images.size, images.classes.len(), params.builder());
        Ok(TeacherTask {
            net: build(params)?,
            averaged: build(ema)?,
            images,
            validation,
            normalization,
            pixels: PixelTable::new(normalization),
            batches: Batches::new(seed, images.len(), recipe.batch_size),
            recipe,
            seed,
            device: device.clone(),
        })
    }

    /// Percent of `set` that the averaged network classifies correctly, and its mean cross-entropy.
    pub fn judge(&self, set: &ImageSet, console: &Console) -> Result<(f64, f64)> {
        let found = logits(self.averaged.as_ref(), set, self.normalization, &self.device, console)?;
        let accuracy = 100.0 * agreement(&found, set);
        let all = Value::constant(tensor(found, (set.len(), set.classes.len()))?);
        let loss = cross_entropy(&Tape::inference(), &all, &set.labels)?.scalar()?;
        Ok((accuracy, f64::from(loss)))
    }
}

impl Task for TeacherTask<'_> {
    /// Of the whole batch: a recipe knows no parts.
    fn loss(&self, tape: &Tape, step: u64, _: Range<usize>) -> Result<Value> {
        let indices: Vec<u32> = self.batches.at(step).into_iter().map(|i| i as u32).collect();
        let size = self.images.size;
        let mut batch = self.pixels.batch(self.images, &indices);
        let mut rng = Rng::stream(self.seed, "teacher step", step as u32, 0);
        let most = self.recipe.crop;
        let shift = |rng: &mut Rng| rng.below(2 * most + 1) as i32 - most as i32;
        let shifts = indices.iter().map(|_| [shift(&mut rng), shift(&mut rng)]).collect();
        Augmentation::Crop(shifts).apply(&mut batch, size);
        let flips = indices.iter().map(|_| rng.below(2) == 1 && self.recipe.flip).collect();
        Augmentation::Flip(flips).apply(&mut batch, size);
        let labels: Vec<u16> = indices.iter().map(|&i| self.images.labels[i as usize]).collect();
        let x = Value::constant(Tensor::from_vec(batch, (indices.len(), size, size, 3), &self.device)?);
        cross_entropy(tape, &self.net.forward(tape, &x)?, &labels)
    }

    /// The averaged network's loss and accuracy.
    fn validate(&self) -> Result<Validation> {
        let (accuracy, loss) = self.judge(self.validation, &Console::new(Verbosity::Quiet))?;
        Ok(vec![("validation_loss", loss), ("validation_accuracy", accuracy)])
    }

    /// A classifier draws nothing.
    fn draw(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}
