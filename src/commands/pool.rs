//! `distill sample --pool`: more images are drawn than are kept.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::trained::Trained;
use crate::cli::SampleArgs;
use crate::config::Config;
use crate::data::ImageSet;
use crate::distilled::Listing;
use crate::error::Result;
use crate::eval::{PoolSelection, Teacher};
use crate::progress::Console;
use crate::usage;

/// What of a pool is kept, and who chooses it.
pub struct Choice {
    /// Images of each class in the pool.
    pub images: u32,
    pub selection: PoolSelection,
    /// The teacher's folder.
    teacher: PathBuf,
}

impl Choice {
    /// What the arguments ask for, or else the configuration where a teacher is there; none where all images are kept.
    pub fn of(args: &SampleArgs, config: &Config, console: &Console) -> Result<Option<Self>> {
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
        let teacher = Teacher::locate(args.teacher.as_deref(), &args.common.out, &config.dataset, config.image_size);
        if let (Err(missing), false) = (&teacher, asked) {
            console.info(format!("each class gets the first {ipc} images, not the best {ipc} of {images}: {missing}"));
            return Ok(None);
        }
        Ok(Some(Choice { images, selection, teacher: teacher? }))
    }
}

/// The pool that a set is chosen from.
pub struct Pool {
    pub choice: Choice,
    teacher: Teacher,
}

impl Pool {
    /// Opens the teacher.
    pub fn open(choice: Choice, trained: &Trained) -> Result<Self> {
        let teacher = Teacher::open(&choice.teacher, &trained.device)?;
        let (size, classes) = (trained.config.image_size, trained.classes.clone().into());
        let none = ImageSet { pixels: Vec::new(), labels: Vec::new(), size, classes };
        teacher.check(&none)?; // now, not when all are drawn
        Ok(Pool { choice, teacher })
    }

    /// The `per_class` images of each class that are kept of those that `all` lists, and their pixels: (N, H, W, 3).
    /// `pixels` are those of all, some at a time.
    pub fn narrow(
        &self,
        all: Listing,
        pixels: impl Iterator<Item = Result<Vec<u8>>>,
        per_class: u32,
        console: &Console,
    ) -> Result<(Listing, Vec<u8>)> {
        let pixels = pixels.collect::<Result<Vec<_>>>()?.concat();
        let drawn = ImageSet { pixels, labels: all.labels.clone(), size: all.size, classes: all.classes.clone() };
        let chosen =
            self.choice.selection.choose(&self.teacher, &drawn, per_class as usize, all.provenance.seed, console)?;
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
        })
    }
}
