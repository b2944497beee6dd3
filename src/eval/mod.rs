//! The judge of a distilled set: students trained on it and tested on real images, by a named protocol.

mod augment;
mod batch_source;
mod confusion;
mod features;
mod finished;
mod optimizer;
mod protocol;
pub mod quality;
pub mod select;
mod sgd;
mod student;
mod teacher;
mod training_set;

pub use augment::{Augmentation, Color, view};
pub use batch_source::BatchSource;
pub use confusion::{Confusion, Mistakes};
pub use features::Features;
pub use finished::FinishedRuns;
pub use optimizer::Optimizer;
pub use protocol::{ConvNetSizes, Depth, Length, OptimizerKind, Plan, Protocol, Schedule, SoftTargets};
pub use select::PoolSelection;
pub use student::{RunResult, Targets, train_and_test, train_step};
pub use teacher::{FOLDER as TEACHERS, Recipe, Teacher, TeacherCard, TeacherTask, write_teacher};
pub use training_set::{PixelTable, TrainingSet};

pub use crate::models::students::StudentKind;

use sgd::Sgd;

use std::collections::BTreeSet;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::data::{ImageSet, Normalization};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::progress::Console;
use crate::{fail, usage};

/// What is judged, and how. Both sets must list the same classes in the same order.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    pub student: StudentKind,
    pub protocol: &'a Protocol,
    /// The images to judge.
    pub train: &'a TrainingSet,
    /// Real images.
    pub test: &'a ImageSet,
    /// Of the data set, for both.
    pub normalization: Normalization,
    pub seed: u64,
    /// Where students are trained and tested.
    pub device: &'a Device,
}

impl Trial<'_> {
    /// [`TrainingSet::sha256`] of what the protocol has students learn.
    pub fn train_sha256(&self) -> String {
        self.train.sha256(self.protocol.soft_labels.is_some())
    }
}

/// The words that say where a trial's two sets come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The data set, for example "cifar100".
    pub dataset: String,
    /// What the students trained on: one of [`crate::data::BASELINES`] or a distilled folder.
    pub on: String,
    /// Where the test images are from: "test" or "heldout".
    pub split: String,
    /// Who gave the soft labels that are learned, where that is known.
    pub labelled_by: Option<Labeller>,
}

/// The teacher behind soft labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labeller {
    /// The name of its folder.
    pub teacher: String,
    /// Of its weights file.
    pub teacher_sha256: String,
    /// Labelled views of an image.
    pub views: u32,
}

/// One epoch of one student, for metrics.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    pub run: u32,
    pub epoch: u32,
    /// Updates done.
    pub update: u32,
    /// Mean cross-entropy over the epoch's images.
    pub loss: f32,
    pub lr: f32,
}

/// The result of a protocol: what eval.json holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub student: String,
    /// The protocol's name, which says so if its recipe was changed.
    pub protocol: String,
    pub dataset: String,
    /// Training images a class; null if classes differ.
    pub ipc: Option<usize>,
    /// Mean over runs of the accuracy in percent.
    pub accuracy_mean: f64,
    /// Sample standard deviation over runs (n - 1); null for one run.
    pub accuracy_std: Option<f64>,
    /// The accuracy of each run in percent.
    pub runs: Vec<f64>,
    pub on: String,
    pub split: String,
    /// Training images.
    pub images: usize,
    /// Images that the students were tested on.
    pub test_images: usize,
    pub seed: u64,
    pub per_class: Vec<ClassAccuracy>,
    /// What the students mistake most often, the largest share first.
    #[serde(default)]
    pub confusion: Vec<Confusion>,
    /// Wall-clock time of all runs, also of those that an earlier call trained.
    pub seconds: f64,
    /// What it was computed with.
    pub environment: Environment,
    /// The commits of the program that trained the students, each once, in the order of the runs.
    #[serde(default)]
    pub commits: Vec<String>,
    /// The recipe as it was carried out.
    pub protocol_settings: Protocol,
    /// [`Protocol::sha256`] of the recipe as it was carried out.
    pub protocol_sha256: String,
    /// What the students learned: "hard" or "soft" labels.
    pub labels: String,
    /// Who gave soft labels, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled_by: Option<Labeller>,
    /// Of all that the students learned from: [`TrainingSet::sha256`].
    pub train_sha256: String,
    /// Of the images that they were tested on: [`ImageSet::sha256`].
    pub test_sha256: String,
}

/// How well one class is recognized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    pub class: usize,
    pub name: String,
    /// Mean over runs in percent; null if no test image is of this class.
    pub accuracy: Option<f64>,
}

/// Carries out all runs of the trial's protocol, less those that are among the `finished` ones. `metrics` gets every epoch
/// of every student as soon as it is done.
pub fn evaluate(
    trial: &Trial,
    origin: &Origin,
    finished: Option<&FinishedRuns>,
    console: &Console,
    metrics: &mut dyn FnMut(&EpochMetrics) -> Result<()>,
) -> Result<Evaluation> {
    check(trial)?;
    let protocol = trial.protocol.at(trial.train.images.size)?;
    let mut results = Vec::new();
    for run in 0..trial.protocol.runs {
        let before = finished.and_then(|finished| finished.read(run, console));
        let result = match before {
            Some(result) => {
                console.info(format!("student {}/{} was trained before", run + 1, trial.protocol.runs));
                result.epochs.iter().try_for_each(&mut *metrics)?;
                result
            }
            None => {
                let result = train_and_test(trial, run, console, metrics)?;
                finished.map_or(Ok(()), |finished| finished.write(run, &result))?;
                result
            }
        };
        console.detail(format!("student {}/{}: {:.2} %", run + 1, trial.protocol.runs, result.accuracy));
        results.push(result);
    }
    let runs: Vec<f64> = results.iter().map(|r| r.accuracy).collect();
    let (accuracy_mean, accuracy_std) = mean_and_std(&runs);
    Ok(Evaluation {
        student: trial.student.to_string(),
        protocol: trial.protocol.name.clone(),
        dataset: origin.dataset.clone(),
        ipc: images_per_class(&trial.train.images),
        accuracy_mean,
        accuracy_std,
        runs,
        on: origin.on.clone(),
        split: origin.split.clone(),
        images: trial.train.images.len(),
        test_images: trial.test.len(),
        seed: trial.seed,
        per_class: per_class(trial, &results),
        confusion: confusion::most_confused(trial.test, &results),
        seconds: results.iter().map(|r| r.seconds).sum(),
        environment: Environment::of(trial.device),
        commits: commits(&results),
        protocol_sha256: protocol.sha256()?,
        protocol_settings: protocol,
        labels: if trial.protocol.soft_labels.is_some() { "soft" } else { "hard" }.into(),
        labelled_by: origin.labelled_by.clone(),
        train_sha256: trial.train_sha256(),
        test_sha256: trial.test.sha256(),
    })
}

fn commits(results: &[RunResult]) -> Vec<String> {
    let mut commits: Vec<String> = results.iter().filter_map(|result| result.commit.clone()).collect();
    let mut seen = BTreeSet::new();
    commits.retain(|commit| seen.insert(commit.clone()));
    commits
}

/// The mean and the sample standard deviation (n - 1), which one value does not have.
pub fn mean_and_std(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
}

/// Refuses sets that do not fit each other.
fn check(trial: &Trial) -> Result<()> {
    let (train, test) = (&trial.train.images, trial.test);
    for (what, set) in [("training", train), ("test", test)] {
        if set.is_empty() {
            fail!("the {what} set of this evaluation is empty; expected at least one image");
        }
        if let Some(label) = set.labels.iter().find(|&&l| l as usize >= set.classes.len()) {
            fail!("the {what} set holds label {label}, but it lists only {} classes", set.classes.len());
        }
    }
    if train.size != test.size {
        fail!(
            "training images are {0} x {0} pixels and test images {1} x {1}; evaluate on the data set that the \
             training images were made from",
            train.size,
            test.size
        );
    }
    if train.classes.len() != test.classes.len() {
        fail!(
            "the training set lists {} classes and the test set {}; evaluate on the data set that the training images \
             were made from",
            train.classes.len(),
            test.classes.len()
        );
    }
    if let Some((i, (a, b))) = train.classes.iter().zip(test.classes.iter()).enumerate().find(|(_, (a, b))| a != b) {
        fail!(
            "class {i} is {} ({}) in the training set but {} ({}) in the test set; both must list the same classes in \
             the same order",
            a.name,
            a.id,
            b.name,
            b.id
        );
    }
    match &trial.train.soft_labels {
        Some(soft) => soft.check(train.len(), train.classes.len()).map_err(Error::Failed),
        None if trial.protocol.soft_labels.is_some() => usage!(
            "protocol {} needs soft labels, and the training set has none; add a teacher's with `distill label`",
            trial.protocol.name
        ),
        None => Ok(()),
    }
}

/// The number of images of each class that has any, if it is one number.
fn images_per_class(set: &ImageSet) -> Option<usize> {
    let mut counts = set.by_class().into_iter().map(|indices| indices.len()).filter(|&n| n > 0);
    let first = counts.next()?;
    counts.all(|n| n == first).then_some(first)
}

fn per_class(trial: &Trial, results: &[RunResult]) -> Vec<ClassAccuracy> {
    let mean = |class: usize| {
        let values: Option<Vec<f64>> = results.iter().map(|r| r.per_class[class]).collect();
        values.map(|v| mean_and_std(&v).0)
    };
    let classes = trial.test.classes.iter().enumerate();
    classes.map(|(class, c)| ClassAccuracy { class, name: c.name.clone(), accuracy: mean(class) }).collect()
}
