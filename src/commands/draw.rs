//! Drawing the images of a set batch by batch, and going on where an earlier call was stopped.

use std::cell::Cell;
use std::time::Instant;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::checksums::{hex, sha256_file};
use crate::distilled::{Batch, Batches};
use crate::environment::Environment;
use crate::error::Result;
use crate::progress::Console;
use crate::run_dir::RunDir;
use crate::stages::{Generator, Sampling};
use crate::{fail, interrupt};

/// The images of a set, and how they are drawn.
pub struct Drawing<'a> {
    pub generator: Generator<'a>,
    pub sampling: Sampling,
    /// (class, index within the class) of every image; batches are cut from this list, across classes.
    pub named: &'a [(u32, u32)],
    pub batch_size: usize,
}

/// What drawing took.
pub struct Drawn {
    /// Images drawn by this call.
    pub images: usize,
    pub seconds: f64,
}

impl Drawing<'_> {
    /// Everything that decides the pixels. The batch size is among it: sums are rounded otherwise in another batch.
    pub fn plan(&self, run: &RunDir) -> Result<Map<String, Value>> {
        let Sampling { method, steps, guidance, eta, seed } = self.sampling;
        let mut images = Sha256::new();
        for &(class, index) in self.named {
            images.update([class.to_le_bytes(), index.to_le_bytes()].concat());
        }
        let plan = json!({
            "format": 1, "environment": Environment::of(&self.generator.device), "vae": sha256_file(&run.weights("vae"))?,
            "unet": sha256_file(&run.weights("unet"))?, "method": method, "steps": steps, "guidance": guidance, "eta": eta, "seed": seed,
            "batch_size": self.batch_size, "images": self.named.len(), "classes_and_indices": hex(&images.finalize()),
        });
        Ok(plan.as_object().cloned().unwrap_or_default())
    }

    /// Draws the batches that are not there yet.
    pub fn draw(&self, batches: &Batches, console: &Console) -> Result<Drawn> {
        let missing = self.missing(batches, console)?;
        let all = self.named.len().div_ceil(self.batch_size);
        if missing.len() < all {
            console.info(format!("{} of {all} batches were drawn before; going on", all - missing.len()));
        }
        let steps = self.sampling.steps;
        let done = Cell::new((all - missing.len()) * steps);
        let bar = console.bar("sampling", done.get() as u64, (all * steps) as u64);
        let start = Instant::now();
        let mut images = 0;
        for number in missing {
            let batch = self.batch(number);
            let on_step = || {
                interrupt::check()?;
                let step = done.get() % steps;
                done.set(done.get() + 1);
                let drawn = batch.len() * (step + 1) / steps - batch.len() * step / steps;
                bar.update(done.get() as u64, drawn as u64, None);
                Ok(())
            };
            batches.write(number, self.generator.sample(batch, &self.sampling, &on_step)?)?;
            images += batch.len();
        }
        Ok(Drawn { images, seconds: start.elapsed().as_secs_f64() })
    }

    /// All batches in order, as they are written into the set: (n, H, W, 3) bytes each.
    pub fn pixels<'b>(&self, batches: &'b Batches, console: &'b Console) -> impl Iterator<Item = Result<Vec<u8>>> + 'b {
        let all = self.named.len().div_ceil(self.batch_size);
        let bar = console.bar("writing", 0, all as u64);
        (0..all).map(move |number| {
            bar.update(number as u64, 0, None);
            match batches.read(number)? {
                Batch::Whole(pixels) => Ok(pixels),
                _ => fail!("batch {number} was damaged on disk after it was drawn; run the same command again"),
            }
        })
    }

    /// The numbers of the batches that have to be drawn.
    fn missing(&self, batches: &Batches, console: &Console) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for number in 0..self.named.len().div_ceil(self.batch_size) {
            match batches.read(number)? {
                Batch::Whole(_) => continue,
                Batch::Damaged => console.warn(format!("batch {number} is damaged on disk and is drawn again")),
                Batch::Missing => {}
            }
            missing.push(number);
        }
        Ok(missing)
    }

    fn batch(&self, number: usize) -> &[(u32, u32)] {
        let start = number * self.batch_size;
        &self.named[start..self.named.len().min(start + self.batch_size)]
    }
}
