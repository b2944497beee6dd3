//! A protocol, ready for any set and any student.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Device;

use super::labelling::{Labelling, labeller};
use super::selected::selected;
use super::subject::{Source, Subject};
use crate::cli::{Common, EvalArgs, EvalSplit, Judging};
use crate::commands::trained::load_vae;
use crate::commands::{fetch, import, to_json};
use crate::data::{ImageSet, Split};
use crate::distilled::{self, DistilledSet};
use crate::error::{AtPath, Error, Result};
use crate::eval::{
    Evaluation, FinishedRuns, Labeller, Origin, Protocol, StudentKind, Teacher, TrainingSet, Trial, evaluate,
};
use crate::formats::{self, Reading};
use crate::fs::{lock, make_folder, write_atomic};
use crate::progress::Console;
use crate::stages::reconstruct;

pub struct Judge<'a> {
    pub protocol: Protocol,
    /// Names results: the protocol's name before `--runs`, as other numbers share students; of a user's file also eight
    /// digits of its hash.
    recipe: String,
    split: EvalSplit,
    pub seed: u64,
    common: &'a Common,
    device: Device,
    labelling: Labelling<'a>,
}

/// The images of an evaluation.
pub struct Material {
    train: TrainingSet,
    test: ImageSet,
    /// Who gave its soft labels, where that is known and they are learned.
    labelled_by: Option<Labeller>,
}

impl<'a> Judge<'a> {
    pub fn new(args: &Judging, default_protocol: &str, common: &'a Common) -> Result<Self> {
        let named = Protocol::of(args.protocol.as_deref().unwrap_or(default_protocol))?;
        let mut recipe = args.epochs.map_or(Ok(named.clone()), |epochs| named.clone().with_epochs(epochs))?.name;
        if args.protocol.as_deref().is_some_and(Protocol::is_path) {
            let hash = Protocol { runs: 0, ..named.clone() }.sha256()?;
            recipe += &format!("-{}", &hash[..8]); // the file may change and keep its name
        }
        let mut protocol = named;
        if let Some(runs) = args.runs {
            protocol = protocol.with_runs(runs)?;
        }
        if let Some(epochs) = args.epochs {
            protocol = protocol.with_epochs(epochs)?;
        }
        let device = common.device.open()?;
        let seed = common.seed.unwrap_or(0);
        let labelling = Labelling { teacher: None, views: None, common, device: device.clone() };
        Ok(Judge { protocol, recipe, split: args.split, seed, common, device, labelling })
    }

    /// With everything that `distill eval` says.
    pub fn of(args: &'a EvalArgs, default_protocol: &str) -> Result<Self> {
        let mut judge = Self::new(&args.judging, default_protocol, &args.common)?;
        judge.labelling.teacher = args.teacher.clone();
        judge.labelling.views = args.views;
        Ok(judge)
    }

    /// Labels real images as those of `subject` are, where soft labels are learned.
    pub fn label_as(&mut self, subject: &Subject) -> Result<()> {
        if self.protocol.soft_labels.is_some() { self.labelling.follow(subject, &self.protocol) } else { Ok(()) }
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
        if self.split == EvalSplit::Heldout {
            warn_of_the_seen(subject, console)?;
        }
        let size = subject.config.image_size;
        match &subject.source {
            Source::Distilled(path) => {
                let (_, test) = self.real(subject, size, false, console)?;
                let set = DistilledSet::read(path)?;
                let labelled_by = self.protocol.soft_labels.and_then(|_| labeller(&set.provenance));
                let DistilledSet { images, soft_labels, .. } = set;
                let train = TrainingSet::new(images, None, soft_labels, subject.config.dataset.normalization());
                Ok(Material { train, test, labelled_by })
            }
            Source::File(path, reading) => {
                let reading = Reading { exact: true, ..import::reading(path, &subject.config.dataset, reading)? };
                self.file(subject, path, &reading, console)
            }
            _ => {
                let (train, test) = self.real(subject, size, true, console)?;
                let images = self.real_images(subject, train, console)?;
                let (train, labelled_by) = match self.protocol.soft_labels {
                    None => (TrainingSet::from(images), None),
                    Some(_) => {
                        let (train, by) = self.labelling.label(subject, images, console)?;
                        (train, Some(by))
                    }
                };
                Ok(Material { train, test, labelled_by })
            }
        }
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
        Ok(Material { train, test, labelled_by: None })
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
                let ipc = *ipc as usize;
                Ok(real.subset(&selected(*selection, ipc, teacher, &self.device, &real, self.seed, console)?))
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
        let Material { train, test, labelled_by } = material;
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
        let origin = Origin {
            dataset: subject.config.dataset.to_string(),
            on: subject.name(),
            split,
            labelled_by: labelled_by.clone(),
        };
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
        let file = output.join("eval.json");
        if let Some(before) = holds_more(&file, &result) {
            fs::remove_file(&path).at(&path)?;
            console.info(format!("{}: left as it is, with these students and more, {before} in all", file.display()));
            return Ok(result);
        }
        let finished = output.join("metrics.jsonl");
        metrics.sync_all().at(&path)?;
        fs::rename(&path, &finished).at(&finished)?;
        write_atomic(&file, to_json(&result)?.as_bytes())?;
        console.info(format!("wrote {}", file.display()));
        Ok(result)
    }
}

/// How many students the result in `file` is of, if it holds those of `result` and more.
fn holds_more(file: &Path, result: &Evaluation) -> Option<usize> {
    let before: Evaluation = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let same = before.train_sha256 == result.train_sha256
        && before.test_sha256 == result.test_sha256
        && before.protocol_settings.same_recipe(&result.protocol_settings)
        && before.runs.starts_with(&result.runs);
    Some(before.runs.len()).filter(|&runs| same && runs > result.runs.len())
}

/// Says who has seen the held-out images, on which settings are to be chosen.
fn warn_of_the_seen(subject: &Subject, console: &Console) -> Result<()> {
    if subject.is_learned() && !subject.config.train.hold_out {
        console.warn("the model has seen the held-out images; train one with --set train.hold_out=true");
    }
    let teacher_held_out = match &subject.source {
        Source::Selected(_, _, teacher) => Some(Teacher::card(teacher)?.hold_out),
        Source::Distilled(path) => {
            let details = distilled::open(path)?.listing.provenance.details;
            details.get("pool").and_then(|pool| pool["teacher_hold_out"].as_bool())
        }
        _ => None,
    };
    if teacher_held_out == Some(false) {
        console.warn(
            "the teacher that chose the images has seen the held-out images; `distill teacher --hold-out` has not",
        );
    }
    Ok(())
}
