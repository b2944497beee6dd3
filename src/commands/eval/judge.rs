//! A protocol, ready for any set and any student.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Device;

use super::selected::selected;
use super::subject::{Source, Subject};
use crate::cli::{Common, EvalArgs, EvalSplit, Judging, VIEWS};
use crate::commands::trained::load_vae;
use crate::commands::{fetch, import, to_json};
use crate::data::{ImageSet, Split};
use crate::distilled::{self, DistilledSet};
use crate::error::{AtPath, Error, Result};
use crate::eval::{Evaluation, FinishedRuns, Origin, Protocol, StudentKind, Teacher, TrainingSet, Trial, evaluate};
use crate::formats::{self, Reading};
use crate::fs::{lock, make_folder, write_atomic};
use crate::progress::Console;
use crate::stages::reconstruct;
use crate::usage;

pub struct Judge<'a> {
    pub protocol: Protocol,
    /// The protocol's name before the number of runs was changed: with another number the same students are used.
    recipe: String,
    split: EvalSplit,
    pub seed: u64,
    common: &'a Common,
    device: Device,
    labelling: Labelling,
}

/// Who gives real images soft labels, where the protocol asks for them.
struct Labelling {
    /// None is the newest one.
    teacher: Option<PathBuf>,
    /// None is [`VIEWS`].
    views: Option<u32>,
}

/// The images of an evaluation.
pub struct Material {
    train: TrainingSet,
    test: ImageSet,
}

impl<'a> Judge<'a> {
    pub fn new(args: &Judging, default_protocol: &str, common: &'a Common) -> Result<Self> {
        let named = Protocol::of(args.protocol.as_deref().unwrap_or(default_protocol))?;
        let recipe = args.epochs.map_or(Ok(named.clone()), |epochs| named.clone().with_epochs(epochs))?.name;
        let mut protocol = named;
        if let Some(runs) = args.runs {
            protocol = protocol.with_runs(runs)?;
        }
        if let Some(epochs) = args.epochs {
            protocol = protocol.with_epochs(epochs)?;
        }
        let device = common.device.open()?;
        let seed = common.seed.unwrap_or(0);
        let labelling = Labelling { teacher: None, views: None };
        Ok(Judge { protocol, recipe, split: args.split, seed, common, device, labelling })
    }

    /// With everything that `distill eval` says.
    pub fn of(args: &'a EvalArgs, default_protocol: &str) -> Result<Self> {
        let judge = Self::new(&args.judging, default_protocol, &args.common)?;
        let labelling = Labelling { teacher: args.teacher.clone(), views: args.views };
        Ok(Judge { labelling, ..judge })
    }

    /// Labels real images as those of the distilled set at `set` are: the same teacher, and as many views unless it is
    /// said otherwise.
    ///
    /// # Errors
    /// The set has another teacher's labels.
    pub fn label_as(&mut self, set: &Path) -> Result<()> {
        let details = distilled::open(set)?.listing.provenance.details;
        let Some(theirs) = details.get("soft_labels").filter(|_| self.protocol.soft_labels.is_some()) else {
            return Ok(());
        };
        self.labelling.views = self.labelling.views.or(theirs["views"].as_u64().map(|views| views as u32));
        let teacher =
            Teacher::open(&Teacher::locate(self.labelling.teacher.as_deref(), &self.common.out)?, &self.device)?;
        if theirs["teacher_sha256"] != teacher.sha256.as_str() {
            usage!(
                "{}: its soft labels are of the teacher {}, but real images would be labelled by {}; name that teacher \
                 with --teacher",
                set.display(),
                theirs["teacher"],
                teacher.folder.display()
            );
        }
        Ok(())
    }

    /// The folder of a set's results.
    pub fn output(&self, subject: &Subject, student: StudentKind) -> PathBuf {
        subject.folder.join(format!("{}-{}-{}", subject.stem(), student, self.suffix()))
    }

    /// The end of a result's name: the protocol, the split and the seed.
    pub fn suffix(&self) -> String {
        let protocol: String = self.recipe.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let heldout = if self.split == EvalSplit::Heldout { "-heldout" } else { "" };
        format!("{}{heldout}-seed{}", protocol.trim_end_matches('-'), self.seed)
    }

    /// "test" or "heldout".
    pub fn split(&self) -> &'static str {
        if self.split == EvalSplit::Test { "test" } else { "heldout" }
    }

    /// Reads or makes the images of an evaluation.
    pub fn load(&self, subject: &Subject, console: &Console) -> Result<Material> {
        if subject.is_learned() && self.split == EvalSplit::Heldout && !subject.config.train.hold_out {
            console.warn("the model has seen the held-out images; train one with --set train.hold_out=true");
        }
        let size = subject.config.image_size;
        match &subject.source {
            Source::Distilled(path) => {
                let (_, test) = self.real(subject, size, false, console)?;
                let DistilledSet { images, soft_labels, .. } = DistilledSet::read(path)?;
                let train = TrainingSet::new(images, None, soft_labels, subject.config.dataset.normalization());
                Ok(Material { train, test })
            }
            Source::File(path, reading) => {
                let reading = Reading { exact: true, ..import::reading(path, &subject.config.dataset, reading)? };
                self.file(subject, path, &reading, console)
            }
            _ => {
                let (train, test) = self.real(subject, size, true, console)?;
                let train = self.labelled(self.real_images(subject, train, console)?, console)?;
                Ok(Material { train, test })
            }
        }
    }

    /// Real images, with a teacher's soft labels where the protocol asks for them.
    fn labelled(&self, images: ImageSet, console: &Console) -> Result<TrainingSet> {
        let mut train = TrainingSet::from(images);
        if self.protocol.soft_labels.is_some() {
            let teacher =
                Teacher::open(&Teacher::locate(self.labelling.teacher.as_deref(), &self.common.out)?, &self.device)?;
            let views = self.labelling.views.unwrap_or(VIEWS);
            console.info(format!("labels by {}, {views} views an image", teacher.folder.display()));
            train.soft_labels = Some(teacher.label(&train.images, views, console)?);
        }
        Ok(train)
    }

    /// The images of another program's file, as exact as they are there.
    fn file(&self, subject: &Subject, path: &Path, reading: &Reading, console: &Console) -> Result<Material> {
        let mut test = None;
        let imported = formats::import(path, reading, |size| {
            let (_, real) = self.real(subject, size, false, console)?;
            let classes = real.classes.to_vec();
            test = Some(real);
            Ok(Some(classes))
        })?;
        imported.warnings.iter().for_each(|warning| console.warn(warning));
        let DistilledSet { images, soft_labels, .. } = imported.set;
        let normalization = subject.config.dataset.normalization();
        let train = TrainingSet::new(images, imported.exact, soft_labels, normalization);
        if train.is_exact() {
            console.info("students train on the file's own values, not on bytes");
        }
        let test = test.ok_or_else(|| Error::Failed(format!("{}: its images have no size", path.display())))?;
        Ok(Material { train, test })
    }

    /// (what may be drawn from, the test images) of the data set; the former is empty unless it is needed.
    fn real(&self, subject: &Subject, size: usize, needed: bool, console: &Console) -> Result<(ImageSet, ImageSet)> {
        let load = |split| fetch::load(&subject.config.dataset, split, size, self.common, console);
        Ok(match self.split {
            EvalSplit::Heldout => load(Split::Train)?.hold_out(),
            EvalSplit::Test => {
                let test = load(Split::Test)?;
                (if needed { load(Split::Train)? } else { test.subset(&[]) }, test)
            }
        })
    }

    /// The images of a baseline, given the real ones that they may be drawn from.
    fn real_images(&self, subject: &Subject, real: ImageSet, console: &Console) -> Result<ImageSet> {
        match &subject.source {
            Source::RandomReal(ipc) => real.random_per_class(*ipc as usize, self.seed),
            Source::Selected(selection, ipc, teacher) => {
                Ok(real.subset(&selected(*selection, *ipc as usize, teacher, &self.device, &real, console)?))
            }
            Source::Reconstructed(ipc, run) => {
                let (vae, _) = load_vae(run, &self.device)?;
                let images = real.random_per_class(*ipc as usize, self.seed)?;
                Ok(ImageSet { pixels: reconstruct(&vae, &images, &self.device, console)?, ..images })
            }
            Source::Real | Source::Distilled(_) | Source::File(..) => Ok(real),
        }
    }

    /// Judges one set with one student and writes eval.json and metrics.jsonl.
    pub fn judge(
        &self,
        subject: &Subject,
        student: StudentKind,
        material: &Material,
        console: &Console,
    ) -> Result<Evaluation> {
        let Material { train, test } = material;
        let normalization = subject.config.dataset.normalization();
        let trial = Trial {
            student,
            protocol: &self.protocol,
            train,
            test,
            normalization,
            seed: self.seed,
            device: &self.device,
        };
        let split = self.split().to_string();
        let origin = Origin { dataset: subject.config.dataset.to_string(), on: subject.name(), split };
        let output = self.output(subject, student);
        make_folder(&output)?;
        let _lock = lock(&output.join(".lock"), "is evaluating into this folder")?;
        let students = FinishedRuns::open(&self.common.out.join("eval/students"), &trial)?;
        let path = output.join("metrics.partial.jsonl");
        let mut metrics = File::create(&path).at(&path)?;
        console.info(format!(
            "{} on {} ({} images), protocol {}, tested on {} {} images",
            student,
            origin.on,
            train.images.len(),
            self.protocol.name,
            test.len(),
            origin.split
        ));
        if train.soft_labels.is_some() && self.protocol.soft_labels.is_none() {
            console.info("the set's soft labels are left aside: this protocol learns each image's class");
        }
        let result = evaluate(&trial, &origin, Some(&students), console, &mut |epoch| {
            let line = serde_json::to_string(epoch).map_err(|e| Error::Failed(e.to_string()))?;
            writeln!(metrics, "{line}").at(&path)
        })?;
        let finished = output.join("metrics.jsonl");
        metrics.sync_all().at(&path)?;
        fs::rename(&path, &finished).at(&finished)?;
        write_atomic(&output.join("eval.json"), to_json(&result)?.as_bytes())?;
        console.info(format!("wrote {}", output.join("eval.json").display()));
        Ok(result)
    }
}
