//! `distill sample --pool`: more images are drawn than are kept.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::trained::Trained;
use crate::cli::SampleArgs;
use crate::config::Config;
use crate::data::{Class, ImageSet};
use crate::distilled::Listing;
use crate::error::Result;
use crate::eval::{PoolSelection, Teacher};
use crate::progress::Console;
use crate::{fail, usage};

/// What of a pool is kept, and who chooses it.
pub struct Choice {
    /// Images of each class in the pool.
    pub images: u32,
    pub selection: PoolSelection,
    /// The teacher's folder.
    teacher: PathBuf,
}

impl Choice {
    /// What the arguments ask for, or else the configuration where a teacher of `classes` is there; none where all images
    /// are kept.
    pub fn of(args: &SampleArgs, config: &Config, classes: &[Class], console: &Console) -> Result<Option<Self>> {
        let ipc = args.sampling.ipc;
        let selection = args.select.unwrap_or(PoolSelection::Mix);
        let asked = args.pool.is_some() || args.select.is_some() || args.teacher.is_some();
        let images = match args.pool {
            Some(pool) if pool < ipc => {
                usage!("--pool {pool}: is less than the {ipc} images of each class that are to be kept (--ipc)")
            }
            Some(pool) => pool,
            None if args.budget.is_some() || selection == PoolSelection::First => return Ok(None),
            None if config.sampler.pool > ipc => config.sampler.pool,
            None if asked => {
                usage!(
                    "--select, --teacher: there is nothing to choose from; draw more than {ipc} images a class with --pool N"
                )
            }
            None => return Ok(None),
        };
        match teacher(args, config, classes) {
            Err(unfit) if !asked => {
                console
                    .info(format!("each class gets the first {ipc} images, not the best {ipc} of {images}: {unfit}"));
                Ok(None)
            }
            found => Ok(Some(Choice { images, selection, teacher: found? })),
        }
    }
}

/// The folder of a teacher that can tell `classes` apart. Where none was named it must not know more of the data set
/// than the model does.
fn teacher(args: &SampleArgs, config: &Config, classes: &[Class]) -> Result<PathBuf> {
    let folder = Teacher::locate(args.teacher.as_deref(), &args.common.out, &config.dataset, config.image_size)?;
    let card = Teacher::card(&folder)?;
    card.check(&folder, config.image_size, classes)?;
    if args.teacher.is_none() && config.train.hold_out && !card.hold_out {
        fail!(
            "{}: this teacher has seen the held-out images, the model has not; train one with `distill teacher --hold-out`, or \
             name this one with --teacher",
            folder.display()
        );
    }
    Ok(folder)
}

/// The pool that a set is chosen from.
pub struct Pool {
    pub choice: Choice,
    teacher: Teacher,
}

impl Pool {
    pub fn open(choice: Choice, trained: &Trained) -> Result<Self> {
        let teacher = Teacher::open(&choice.teacher, &trained.device)?;
        Ok(Pool { choice, teacher })
    }

    /// The `per_class` images of each class that are kept of those that `all` lists, and their pixels: (N, H, W, 3).
    /// `batches` have those of all, some at a time.
    pub fn narrow(
        &self,
        all: Listing,
        batches: impl Iterator<Item = Result<Vec<u8>>>,
        per_class: u32,
        console: &Console,
    ) -> Result<(Listing, Vec<u8>)> {
        let mut pixels = Vec::with_capacity(all.labels.len() * all.size * all.size * 3);
        for batch in batches {
            pixels.extend(batch?);
        }
        let drawn = ImageSet { pixels, labels: all.labels.clone(), size: all.size, classes: all.classes.clone() };
        let features = || self.teacher.features(&drawn, console);
        let how = (per_class as usize, all.provenance.seed);
        let chosen = self.choice.selection.choose(&self.teacher, features, &drawn, how, console)?;
        let kept = drawn.subset(&chosen);
        let mut provenance = all.provenance;
        provenance.details.insert("pool".into(), self.described());
        let indices = chosen.iter().map(|&i| all.indices[i]).collect();
        Ok((Listing { labels: kept.labels, indices, provenance, ..all }, kept.pixels))
    }

    /// What the set says of it.
    fn described(&self) -> Value {
        json!({
            "images_per_class": self.choice.images, "selection": self.choice.selection,
            "teacher": self.teacher.name(), "teacher_sha256": self.teacher.sha256,
            "teacher_hold_out": self.teacher.card.hold_out,
        })
    }
}
