//! `distill sample --pool`: more images are drawn than are kept.

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

/// Images a class of a pool that has done well for sets of up to `SMALL` images a class (docs/results.md).
const POOL: u32 = 100;
const SMALL: u32 = 10;

/// The pool that a set is chosen from.
pub struct Pool {
    /// Images of each class in it.
    pub images: u32,
    selection: PoolSelection,
    teacher: Teacher,
}

/// Tells that a teacher of the same data set could choose the images of a small set, where it was not asked to.
pub fn advise(args: &SampleArgs, config: &Config, console: &Console) {
    let (ipc, asked) = (args.sampling.ipc, args.pool.is_some() || args.budget.is_some());
    let teacher = || Teacher::locate(None, &args.common.out, &config.dataset, config.image_size);
    if !asked && ipc <= SMALL && teacher().is_ok() {
        console.info(format!("a teacher is there: --pool {POOL} draws {POOL} images a class and keeps the best {ipc}"));
    }
}

impl Pool {
    /// None where `--pool` was not given.
    pub fn of(args: &SampleArgs, trained: &Trained) -> Result<Option<Self>> {
        let Some(images) = args.pool else { return Ok(None) };
        if images < args.sampling.ipc {
            usage!(
                "--pool {images}: is less than the {} images of each class that are to be kept (--ipc)",
                args.sampling.ipc
            );
        }
        let Config { dataset, image_size: size, .. } = &trained.config;
        let teacher = Teacher::locate(args.teacher.as_deref(), &args.common.out, dataset, *size)?;
        let teacher = Teacher::open(&teacher, &trained.device)?;
        let (size, classes) = (*size, trained.classes.clone().into());
        let none = ImageSet { pixels: Vec::new(), labels: Vec::new(), size, classes };
        teacher.check(&none)?; // now, not when all are drawn
        Ok(Some(Pool { images, selection: args.select, teacher }))
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
        let chosen = self.selection.choose(&self.teacher, &drawn, per_class as usize, all.provenance.seed, console)?;
        let kept = drawn.subset(&chosen);
        let mut provenance = all.provenance;
        provenance.details.insert("pool".into(), self.described());
        let indices = chosen.iter().map(|&i| all.indices[i]).collect();
        Ok((Listing { labels: kept.labels, indices, provenance, ..all }, kept.pixels))
    }

    /// What the set says of it.
    fn described(&self) -> Value {
        json!({
            "images_per_class": self.images, "selection": self.selection,
            "teacher": self.teacher.name(), "teacher_sha256": self.teacher.sha256,
        })
    }
}
