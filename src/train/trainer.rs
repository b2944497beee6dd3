//! The training loop.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adamw::{AdamW, Figures, StepSizes};
use super::checkpoint::{Best, Checkpoint};
use super::metrics::Metrics;
use super::pace::{Budget, learning_rate};
use super::tensorboard::Events;
use crate::error::{Error, Result};
use crate::fs::make_folder;
use crate::nn::Params;
use crate::ops::{Gradients, Tape, Value, add, weighted_sum};
use crate::progress::{Console, duration};
use crate::{fail, interrupt};

/// Steps whose figures may wait on a GPU until they are read.
pub const MOST_PENDING: usize = 32;

/// How one network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Steps in all; a time limit can only lower it.
    pub steps: u64,
    /// Images a step.
    pub batch_size: usize,
    /// Parts of the batch, a divisor of its size, that are computed one after the other, their gradients added up: less memory,
    /// the same steps but for rounding.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Peak of AdamW's learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises from 0 to its peak; afterwards it falls as half a cosine to 0.
    pub warmup: u64,
    /// AdamW's decoupled weight decay, times the learning rate at each step.
    pub weight_decay: f64,
    /// Gradients are scaled down to this L2 norm.
    pub clip_norm: f64,
    /// Decay of the weights' moving average; lower during the first steps.
    pub ema_decay: f64,
}

fn one() -> usize {
    1
}

/// How often a run writes, in steps.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    pub log: u64,
    pub checkpoint: u64,
    /// Validation and pictures.
    pub sample: u64,
}

/// What is to be written after a step.
#[derive(Clone, Copy)]
struct Due {
    log: bool,
    checkpoint: bool,
    sample: bool,
    /// A signal asked for the end.
    stop: bool,
}

impl Due {
    fn any(self) -> bool {
        self.log || self.checkpoint || self.sample || self.stop
    }
}

/// Which checkpoints stay.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The newest ones, at least one.
    pub last: usize,
    /// The one with the best validation, whose averaged weights then become the final ones.
    pub best: bool,
}

/// The figures of a validation with their names.
pub type Validation = Vec<(&'static str, f64)>;

/// What is trained.
pub trait Task {
    /// The scalar loss of the images `part` of step `step`'s batch. Batch and noise follow from the step alone.
    fn loss(&self, tape: &Tape, step: u64, part: Range<usize>) -> Result<Value>;

    /// Figures of the averaged weights on fixed data, for metrics.jsonl. The first one says which weights are best: the
    /// lower the better.
    fn validate(&self) -> Result<Validation>;

    /// Draws samples of the averaged weights to `path` (PNG).
    fn draw(&self, path: &Path) -> Result<()>;
}

/// One network in training.
pub struct Trainer<'a> {
    pub name: &'a str,
    pub params: &'a Params,
    pub ema: &'a Params,
    pub config: &'a StageConfig,
    /// The start of its keys' names, for messages: "train.vae."
    pub section: &'a str,
    pub intervals: Intervals,
    pub keep: Keep,
    /// Where metrics and checkpoints go.
    pub dir: PathBuf,
    /// Where pictures go.
    pub pictures: PathBuf,
    /// Where an event file for TensorBoard goes, if one is wanted.
    pub tensorboard: Option<PathBuf>,
    pub deadline: Option<Instant>,
    pub console: &'a Console,
}

/// The end of a training run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    pub steps: u64,
    pub seconds: f64,
    pub images: u64,
    /// The mean loss of the last steps.
    pub loss: f64,
    /// The validation whose weights were taken, if not simply the last ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
}

impl Trainer<'_> {
    /// Trains from the newest checkpoint, or from the start, to the end. On Ctrl-C the state is saved first.
    pub fn run(&self, task: &dyn Task) -> Result<Finished> {
        make_folder(&self.dir)?;
        if !self.config.batch_size.is_multiple_of(self.config.accumulate) {
            fail!(
                "{}: {} images do not split into {} equal parts",
                self.name,
                self.config.batch_size,
                self.config.accumulate
            );
        }
        let mut optimizer = AdamW::new(self.params, self.ema, self.config.weight_decay)?;
        let (mut state, mut metrics) = self.restore(&optimizer)?;
        let mut budget = Budget::new(self.deadline.filter(|_| state.total.is_none()));
        let (first, start, before) = (state.step, Instant::now(), state.seconds);
        let mut total = state.total.unwrap_or(self.config.steps);
        let bar = self.console.bar(self.name, first, total);
        let mut pending = Vec::new();
        while state.step < total {
            if let Some(fits) = budget.fit(state.step, first) {
                total = fits.clamp(state.step + 1, self.config.steps);
                state.total = Some(total);
                bar.set_total(total);
                self.console.info(format!("{}: {total} steps fit the time limit", self.name));
            }
            pending.push(self.step(task, &mut optimizer, state.step, total)?);
            state.step += 1;
            let due = self.due(state.step, total);
            if due.any() || pending.len() >= MOST_PENDING || matches!(pending[..], [Figures::Read { .. }]) {
                self.take(&mut pending, &mut state)?;
            }
            state.seconds = before + start.elapsed().as_secs_f64();
            bar.update(state.step, self.config.batch_size as u64, Some(state.recent.loss() as f32));
            self.write(task, &optimizer, &mut state, total, &mut metrics, due)?;
        }
        drop(bar);
        metrics.sync()?;
        let images = state.step * self.config.batch_size as u64;
        self.take_best(&state)?;
        let finished =
            Finished { steps: state.step, seconds: state.seconds, images, loss: state.loss, best: state.best };
        self.console.info(format!(
            "{}: {} steps, {} images in {}, loss {:.4}",
            self.name,
            finished.steps,
            images,
            duration(finished.seconds),
            finished.loss
        ));
        Ok(finished)
    }

    /// One step: loss, backward, clip, update.
    fn step(&self, task: &dyn Task, optimizer: &mut AdamW, step: u64, total: u64) -> Result<Figures> {
        let config = self.config;
        let (loss, gradients) = self.gradients(task, step)?;
        optimizer.update(
            &loss,
            &gradients,
            StepSizes {
                step,
                learning_rate: learning_rate(step, config.learning_rate, config.warmup, total),
                clip_norm: config.clip_norm,
                ema_decay: config.ema_decay.min((1 + step) as f64 / (10 + step) as f64),
            },
        )
    }

    /// The loss of a step's batch and its gradients, the sums over the batch's equal parts.
    fn gradients(&self, task: &dyn Task, step: u64) -> Result<(Value, Gradients)> {
        let parts = self.config.accumulate;
        let size = self.config.batch_size / parts;
        let of_part = |part: usize| {
            let tape = Tape::recording();
            let mut loss = task.loss(&tape, step, part * size..(part + 1) * size)?;
            if parts > 1 {
                loss = weighted_sum(&tape, &[(&loss, 1.0 / parts as f32)])?;
            }
            let gradients = tape.backward(&loss)?;
            Result::Ok((loss, gradients))
        };
        let (mut loss, mut gradients) = of_part(0)?;
        for part in 1..parts {
            let (other, more) = of_part(part)?;
            loss = add(&Tape::inference(), &loss, &other)?;
            gradients.add(more)?;
        }
        Ok((loss, gradients))
    }

    /// Adds the figures of the last steps to the state, which must be finite.
    fn take(&self, pending: &mut Vec<Figures>, state: &mut Checkpoint) -> Result<()> {
        let first = state.step - pending.len() as u64;
        for (step, figures) in (first..).zip(pending.drain(..)) {
            let (loss, norm) = figures.read()?;
            if !loss.is_finite() || !norm.is_finite() {
                fail!(
                    "{}: the loss is {loss} and the gradient's norm {norm} at step {step}; the last checkpoint in {} is \
                     intact, lower {}learning_rate and start a new run",
                    self.name,
                    self.dir.display(),
                    self.section
                );
            }
            state.recent.add(loss, norm);
        }
        Ok(())
    }

    /// What is to be written after step `step`.
    fn due(&self, step: u64, total: u64) -> Due {
        let last = step == total;
        let due = |every: u64| last || every > 0 && step.is_multiple_of(every);
        let Intervals { log, checkpoint, sample } = self.intervals;
        Due { log: due(log), checkpoint: due(checkpoint), sample: due(sample), stop: interrupt::requested() }
    }

    /// Log line, pictures and checkpoint where they are due, and the stop that a signal asked for.
    fn write(
        &self,
        task: &dyn Task,
        optimizer: &AdamW,
        state: &mut Checkpoint,
        total: u64,
        metrics: &mut Metrics,
        due: Due,
    ) -> Result<()> {
        let step = state.step;
        if due.log {
            let lr = learning_rate(step - 1, self.config.learning_rate, self.config.warmup, total);
            let (loss, norm) = state.recent.take();
            state.loss = loss;
            metrics.write(step, &[("loss", loss), ("gradient_norm", norm), ("learning_rate", lr)])?;
        }
        let mut better = false;
        if due.sample {
            // A stop meanwhile waits: the step is saved with its figures.
            let figures = interrupt::deferred(|| task.validate())?;
            metrics.write(step, &figures)?;
            better = self.keep.best && state.note(&figures);
            interrupt::deferred(|| task.draw(&self.picture(step)))?;
            metrics.picture(step, &self.picture(step))?;
        }
        let stop = due.stop || due.sample && interrupt::requested();
        if stop || better || due.checkpoint {
            state.save(&self.dir, &self.parts(optimizer), metrics.text(), self.keep.last)?;
        }
        if stop {
            self.console.info(format!(
                "{}: saved step {step}; the same command, but for --overwrite, goes on from there",
                self.name
            ));
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// The state and metrics of the newest checkpoint, whose tensors are now the live ones; or those of the start.
    fn restore(&self, optimizer: &AdamW) -> Result<(Checkpoint, Metrics)> {
        let Some((mut state, folder)) = Checkpoint::newest(&self.dir, self.console)? else {
            // The average starts at the weights themselves.
            self.ema.assign(&self.params.named().into_iter().collect(), self.name)?;
            return Ok((Checkpoint::default(), self.metrics(String::new())?));
        };
        Checkpoint::restore(&folder, &self.parts(optimizer))?;
        state.best = state.best.take().filter(|_| self.keep.best);
        state.check_best(&self.dir, self.console)?;
        self.console.info(format!("{}: goes on from step {}", self.name, state.step));
        Ok((state, self.metrics(Checkpoint::metrics(&folder)?)?))
    }

    /// The metrics after these lines.
    fn metrics(&self, text: String) -> Result<Metrics> {
        let events = self.tensorboard.as_ref().map(|folder| Events::start(folder, &text, &|step| self.picture(step)));
        Metrics::start(&self.dir, text, events.transpose()?)
    }

    /// Where the picture of a step goes.
    fn picture(&self, step: u64) -> PathBuf {
        self.pictures.join(format!("{}-{step:07}.png", self.name))
    }

    /// Replaces the averaged weights by those of the best validation, where these are to be kept and are not the last.
    fn take_best(&self, state: &Checkpoint) -> Result<()> {
        let Some(best) = state.best.as_ref().filter(|best| best.step != state.step) else { return Ok(()) };
        let folder = Checkpoint::open_best(&self.dir, best)?;
        self.console.info(format!("{}: takes the weights of step {}, the best validation", self.name, best.step));
        Checkpoint::restore(&folder, &[("ema", self.ema.named())])
    }

    fn parts(&self, optimizer: &AdamW) -> [(&'static str, Vec<(String, candle_core::Tensor)>); 3] {
        [("model", self.params.named()), ("ema", self.ema.named()), ("optim", optimizer.state())]
    }
}
