//! One student: built, trained by a protocol and tested once, at the end.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::Tensor;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::{
    Augmentation, BatchSource, EpochMetrics, Mistakes, Optimizer, PixelTable, Schedule, SoftTargets, TrainingSet,
    Trial, view,
};
use crate::data::ImageSet;
use crate::environment::Environment;
use crate::error::Result;
use crate::models::students::Classifier;
use crate::nn::Params;
use crate::ops::{Tape, Value, cross_entropy, distillation_loss};
use crate::progress::{Bar, Console};
use crate::rng::Rng;
use crate::train::MOST_PENDING;
use crate::{fail, interrupt};

/// Images a forward pass when testing; the result does not depend on it.
pub(super) const TEST_BATCH: usize = 256;

/// What one student reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Percent of all test images that the last network classifies correctly.
    pub accuracy: f64,
    /// The same among each class's test images; `None` for a class without any.
    pub per_class: Vec<Option<f64>>,
    /// None in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistakes: Option<Mistakes>,
    pub epochs: Vec<EpochMetrics>,
    /// Wall-clock time of training and testing.
    pub seconds: f64,
    /// The commit of the program that trained it, as in [`Environment`].
    #[serde(default)]
    pub commit: Option<String>,
}

/// Trains student number `run` of the trial, and tests it as it is after the last update. `metrics` gets every epoch.
///
/// All randomness comes from streams of (seed, run): the initialization, each epoch's order and each update's
/// augmentation.
pub fn train_and_test(
    trial: &Trial,
    run: u32,
    console: &Console,
    metrics: &mut dyn FnMut(&EpochMetrics) -> Result<()>,
) -> Result<RunResult> {
    let start = Instant::now();
    let params = Params::new(Rng::stream(trial.seed, "student-init", run, 0).next_u64(), trial.device);
    let network = build(trial, &params)?;
    let epochs = train(trial, run, network.as_ref(), &params, console, metrics)?;
    let (correct, mistakes) = test(trial, network.as_ref(), console)?;
    let all = correct.iter().fold((0, 0), |sum, class| (sum.0 + class.0, sum.1 + class.1));
    let percent = |(right, total): (u32, u32)| (total > 0).then(|| 100.0 * f64::from(right) / f64::from(total));
    Ok(RunResult {
        accuracy: percent(all).unwrap_or(0.0),
        per_class: correct.into_iter().map(percent).collect(),
        mistakes: Some(mistakes),
        epochs,
        seconds: start.elapsed().as_secs_f64(),
        commit: Environment::of(trial.device).commit,
    })
}

/// The trial's student, its parameters in `params`.
fn build(trial: &Trial, params: &Params) -> Result<Box<dyn Classifier>> {
    let images = &trial.train.images;
    trial.student.build(trial.protocol.convnet_at(images.size)?, images.size, images.classes.len(), params.builder())
}

/// Trains to the end of the protocol.
fn train(
    trial: &Trial,
    run: u32,
    network: &dyn Classifier,
    params: &Params,
    console: &Console,
    metrics: &mut dyn FnMut(&EpochMetrics) -> Result<()>,
) -> Result<Vec<EpochMetrics>> {
    let (protocol, set) = (trial.protocol, trial.train);
    let plan = protocol.plan(set.images.len());
    let batches = Batches { trial, run, source: BatchSource::new(set, trial.normalization, trial.device)? };
    // A GPU would wait at each.
    let read_every = if trial.device.is_cpu() { 1 } else { MOST_PENDING };
    let average = Params::new(0, trial.device);
    build(trial, &average)?;
    let mut optimizer = Optimizer::new(params, &average, protocol)?;
    let mut epochs = Vec::new();
    let mut update = 0;
    let label = format!("student {}/{}", run + 1, protocol.runs);
    let bar = console.bar(&label, 0, u64::from(plan.updates));
    while update < plan.updates {
        let epoch = epochs.len() as u32;
        let order = Rng::stream(trial.seed, "student-batch", run, epoch).permutation(set.images.len());
        let (mut total, mut seen, mut pending) = (0.0, 0, Vec::new());
        for indices in order.chunks(protocol.batch_size).take((plan.updates - update) as usize) {
            interrupt::check()?;
            if protocol.schedule == Schedule::Drop && update == plan.drop_at {
                optimizer.check()?;
                optimizer = Optimizer::new(params, &average, protocol)?;
                optimizer.set_lr(protocol.lr * protocol.drop_factor);
            }
            if let Some(lr) = protocol.lr_at(update, plan.updates) {
                optimizer.set_lr(lr);
            }
            let (images, targets) = batches.batch(indices, epoch, update)?;
            pending.push((train_step(network, &mut optimizer, images, &targets)?, indices.len()));
            update += 1;
            seen += indices.len();
            if pending.len() < read_every && seen < order.len() && update < plan.updates {
                continue;
            }
            total += read(&mut pending, update, &label, protocol.lr, &bar)?;
            optimizer.check()?;
        }
        let loss = (total / seen as f64) as f32;
        let done = EpochMetrics { run, epoch, update, loss, lr: optimizer.lr() };
        metrics(&done)?;
        epochs.push(done);
    }
    Ok(epochs)
}

/// The sum over images of the losses of the updates before `update`, which must be finite: (mean loss, images) each.
fn read(pending: &mut Vec<(Tensor, usize)>, update: u32, label: &str, lr: f32, bar: &Bar) -> Result<f64> {
    let (first, mut total) = (update + 1 - pending.len() as u32, 0.0);
    for (update, (loss, images)) in (first..).zip(pending.drain(..)) {
        let loss = loss.to_scalar::<f32>()?;
        if !loss.is_finite() {
            fail!(
                "{label}: the loss at update {update} is {loss}, expected a finite number; look at the training images, or \
                 lower the protocol's lr of {lr}"
            );
        }
        total += f64::from(loss) * images as f64;
        bar.update(u64::from(update), images as u64, Some(loss));
    }
    Ok(total)
}

/// Draws the batches of one student.
struct Batches<'a> {
    trial: &'a Trial<'a>,
    run: u32,
    source: BatchSource<&'a TrainingSet>,
}

impl Batches<'_> {
    /// The images at `indices` as update `update` sees them, and what is to be learned of them.
    fn batch(&self, indices: &[u32], epoch: u32, update: u32) -> Result<(Tensor, Targets)> {
        let Trial { protocol, train: set, seed, .. } = *self.trial;
        let size = set.images.size;
        let soft = protocol.soft_labels.zip(set.soft_labels.as_ref());
        let views = soft.filter(|_| protocol.augment).map_or(1, |(_, labels)| labels.views as u32);
        let seen = epoch % views;
        let changes = if views > 1 {
            indices.iter().filter_map(|&index| view(size, index, seen)).collect()
        } else if protocol.augment {
            let mut rng = Rng::stream(seed, "student-augment", self.run, update);
            vec![Augmentation::draw(&mut rng, indices.len(), size)]
        } else {
            Vec::new()
        };
        let targets = match soft {
            None => Targets::Hard(indices.iter().map(|&i| set.images.labels[i as usize]).collect()),
            Some((how, labels)) => {
                let row = |&i: &u32| labels.row(i as usize, seen as usize, set.images.classes.len());
                Targets::Soft(indices.iter().flat_map(row).copied().collect(), how)
            }
        };
        Ok((self.source.batch(indices, &changes)?, targets))
    }
}

/// What a batch is to be recognized as.
pub enum Targets {
    /// (B): a class each.
    Hard(Vec<u16>),
    /// (B, classes): a probability for each class.
    Soft(Vec<f32>, SoftTargets),
}

/// One update on normalized pixels (B, size, size, 3); returns the mean loss before it, a scalar: cross-entropy, or
/// [`distillation_loss`].
pub fn train_step(
    network: &dyn Classifier,
    optimizer: &mut Optimizer,
    images: Tensor,
    targets: &Targets,
) -> Result<Tensor> {
    let tape = Tape::recording();
    let logits = network.forward(&tape, &Value::constant(images))?;
    let loss = match targets {
        Targets::Hard(labels) => cross_entropy(&tape, &logits, labels)?,
        Targets::Soft(labels, how) => distillation_loss(&tape, &logits, labels, how.temperature)?,
    };
    optimizer.step(&loss, &tape.backward(&loss)?)?;
    Ok(loss.tensor().clone())
}

/// For each class, how many of its test images are classified correctly, and how many there are; and all mistakes.
fn test(trial: &Trial, network: &dyn Classifier, console: &Console) -> Result<(Vec<(u32, u32)>, Mistakes)> {
    let (set, classes) = (trial.test, trial.test.classes.len());
    let pixels = PixelTable::new(trial.normalization);
    let mut correct = vec![(0, 0); classes];
    let mut mistakes = BTreeMap::new();
    let bar: Bar = console.bar("testing", 0, set.len() as u64);
    for indices in all_batches(set, TEST_BATCH) {
        interrupt::check()?;
        let tape = Tape::inference();
        let x = Tensor::from_vec(pixels.batch(set, &indices), (indices.len(), set.size, set.size, 3), trial.device)?;
        let logits = network.forward(&tape, &Value::constant(x))?;
        for (row, &i) in logits.tensor().flatten_all()?.to_vec1::<f32>()?.chunks(classes).zip(&indices) {
            let label = set.labels[i as usize];
            if !row.iter().all(|v| v.is_finite()) {
                fail!("test image {i}: the student's logits are not finite; its training went astray, lower the lr");
            }
            let (tally, predicted) = (&mut correct[label as usize], argmax(row) as u16);
            tally.0 += u32::from(predicted == label);
            tally.1 += 1;
            if predicted != label {
                *mistakes.entry((label, predicted)).or_insert(0) += 1;
            }
        }
        bar.update(u64::from(indices[0]) + indices.len() as u64, indices.len() as u64, None);
    }
    let mistakes = mistakes.into_iter().map(|((label, predicted), images)| (label, predicted, images)).collect();
    Ok((correct, mistakes))
}

/// All images of a set in their order, `most` at a time.
pub(super) fn all_batches(set: &ImageSet, most: usize) -> impl Iterator<Item = Vec<u32>> {
    let count = set.len() as u32;
    (0..count).step_by(most).map(move |first| (first..(first + most as u32).min(count)).collect())
}

/// The index of the largest value, the first of equals.
pub(super) fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
