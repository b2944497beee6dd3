//! `distill train`: the VAE, its latents, the UNet.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;
use rand::RngCore;
use serde::Serialize;

use super::begin;
use super::dry_run::dry_run;
use super::model_card;
use super::resolve::{Resolved, resolve, run_dir};
use super::reuse::{copy_vae, run_with_vae};
use super::sample_quality::SampleQuality;
use super::trained::load_vae;
use super::{fetch, print, to_json};
use crate::checksums::sha256_file;
use crate::cli::{Common, Stage, TrainArgs, Training};
use crate::config::Config;
use crate::data::{self, ImageSet, Split};
use crate::device;
use crate::error::Result;
use crate::models::vae::Vae;
use crate::nn::Params;
use crate::progress::{Console, duration};
use crate::rng::Rng;
use crate::run_dir::RunDir;
use crate::stages::{Latents, ModelCard, TrainedSummary, UNetTask, VALIDATION_IMAGES, VaeTask, spread, write_trained};
use crate::train::{Checkpoint, FORMAT_VERSION, Finished, Intervals, Keep, Task, Trainer};
use crate::usage;

/// Share of a time limit that the VAE gets where both networks are trained.
const VAE_SHARE: f64 = 0.25;

pub fn run(args: &TrainArgs, console: &Console) -> Result<()> {
    let resolved = resolve(&args.training.configuring, args.training.dataset.as_ref(), &[], &args.common, console)?;
    let dir = run_dir(&resolved, &args.training, &args.common)?;
    if args.common.dry_run {
        let classes = class_count(&resolved.config, &args.common)?;
        return dry_run(&resolved.config, classes, &outputs(&dir), &args.common);
    }
    if finished_before(&dir, &args.training)? {
        usage!(
            "{}: this run has finished; sample from it with `distill sample`, start again with --overwrite, or choose \
             another --name",
            dir.root.display()
        );
    }
    let summary = train(&resolved, &dir, &args.training, args.stage, &args.common, console)?;
    match args.common.json {
        true => print(&to_json(&summary)?),
        false => print(&format!("trained {}", dir.root.display())),
    }
}

/// Whether there is nothing left to train. A process that was killed at its very end may have left checkpoints, which go,
/// and no model card, which is written.
pub fn finished_before(dir: &RunDir, training: &Training) -> Result<bool> {
    let finished = dir.is_finished() && !training.overwrite;
    if finished {
        Checkpoint::remove_all(&dir.stage("unet"))?;
        if !dir.model_card().is_file() {
            model_card::write(dir)?;
        }
    }
    Ok(finished)
}

/// The number of classes, for a plan that reads no image.
pub fn class_count(config: &Config, common: &Common) -> Result<usize> {
    data::class_count(&config.dataset, config.image_size, common.data_dir.as_deref())
}

/// What training writes.
pub fn outputs(dir: &RunDir) -> [PathBuf; 4] {
    [dir.config(), dir.weights("vae"), dir.weights("unet"), dir.samples()]
}

/// What training ended with.
#[derive(Serialize)]
pub struct Summary {
    pub run: String,
    pub vae: Option<Finished>,
    pub unet: Option<Finished>,
}

/// Trains what is missing of a run.
pub fn train(
    resolved: &Resolved,
    dir: &RunDir,
    training: &Training,
    stage: Option<Stage>,
    common: &Common,
    console: &Console,
) -> Result<Summary> {
    let start = Instant::now();
    let device = common.device.open()?;
    let config = &resolved.config;
    let set = fetch::load(&config.dataset, Split::Train, config.image_size, common, console)?;
    let held = set.held_out();
    let held = if held.is_empty() { (0..set.len()).collect() } else { held };
    let quality = SampleQuality::of(training, config, &common.out, &set.subset(&held), &device)?; // before anything is removed
    let wanted = training.overwrite || !dir.weights("vae").is_file();
    let reused = training.vae.as_deref().filter(|_| wanted);
    let reused = reused.map(|from| run_with_vae(from, dir, config, &set)).transpose()?;
    let _lock = begin::prepare(dir, config, training.overwrite, stage)?;
    console.log_to(&dir.log())?;
    begin::write_meta(resolved, dir, &set, &device, console)?;
    console.info(format!("{}: {} on {}", dir.root.display(), config.dataset, device::describe(&device)));

    if let Some(other) = reused.filter(|_| !dir.weights("vae").is_file()) {
        copy_vae(&other, dir)?;
        console.info(format!("took the VAE of {}", other.root.display()));
    }
    let validation: Vec<usize> = spread(held.len(), VALIDATION_IMAGES).into_iter().map(|i| held[i]).collect();
    let validation = set.subset(&validation);
    let images = if config.train.hold_out { set.hold_out().0 } else { set };
    let deadline = |share: f64| training.max_time.map(|limit: Duration| start + limit.mul_f64(share));
    let keep = Keep { last: training.keep_last as usize, best: training.keep_best };
    let session = Session {
        config,
        dir,
        device: &device,
        console,
        images: &images,
        validation: &validation,
        keep,
        tensorboard: training.tensorboard,
        quality,
    };
    let vae_share = if stage == Some(Stage::Vae) { 1.0 } else { VAE_SHARE };
    let (vae, of_vae) = session.vae(deadline(vae_share))?;
    let mut of_unet = None;
    if stage != Some(Stage::Vae) {
        of_unet = Some(session.unet(&vae, deadline(1.0))?);
        model_card::write(dir)?;
    }
    console.info(format!("training took {}", duration(start.elapsed().as_secs_f64())));
    Ok(Summary { run: dir.root.display().to_string(), vae: Some(of_vae), unet: of_unet })
}

/// One call of training, with everything that both stages need.
struct Session<'a> {
    config: &'a Config,
    dir: &'a RunDir,
    device: &'a Device,
    console: &'a Console,
    images: &'a ImageSet,
    validation: &'a ImageSet,
    keep: Keep,
    tensorboard: bool,
    quality: Option<SampleQuality>,
}

impl Session<'_> {
    /// The trained VAE: read if it has finished, else trained.
    fn vae(&self, deadline: Option<Instant>) -> Result<(Vae, Finished)> {
        let (params, ema) = (self.params("vae"), self.params("vae"));
        if !self.dir.weights("vae").is_file() {
            let task = VaeTask::new(self.config, &params, &ema, self.images, self.validation, self.device)?;
            let finished = self.fit("vae", &task, &params, &ema, deadline)?;
            self.finish("vae", &ema, finished, None)?;
        }
        Checkpoint::remove_all(&self.dir.stage("vae"))?; // here, so that those left by a process that was killed go too
        Ok((load_vae(self.dir, self.device)?.0, TrainedSummary::read(self.dir, "vae")?.training))
    }

    fn unet(&self, vae: &Vae, deadline: Option<Instant>) -> Result<Finished> {
        if self.dir.weights("unet").is_file() {
            return Ok(TrainedSummary::read(self.dir, "unet")?.training); // another process finished it before this one got the lock
        }
        let flip = self.config.train.flip;
        let weights = sha256_file(&self.dir.weights("vae"))?;
        let (place, device) = (self.dir.latents(), self.device);
        let latents = Latents::cached(&place, vae, &weights, self.images, flip, device, self.console)?;
        let validation = Latents::with_statistics(vae, self.validation, &latents.statistics, device, self.console)?;
        let (params, ema) = (self.params("unet"), self.params("unet"));
        let classes = &self.images.classes;
        let task = UNetTask::new(self.config, &params, &ema, vae, &latents, &validation, classes, self.device)?;
        let task = task.measured_by(self.quality.as_ref().map(SampleQuality::measure));
        let finished = self.fit("unet", &task, &params, &ema, deadline)?;
        self.dir.note(&self.dir.root)?;
        self.finish("unet", &ema, finished.clone(), Some(&latents))?;
        Checkpoint::remove_all(&self.dir.stage("unet"))?;
        Ok(finished)
    }

    /// Each network starts from streams of its own.
    fn params(&self, stage: &str) -> Params {
        Params::new(Rng::stream(self.config.seed, stage, 0, 0).next_u64(), self.device)
    }

    fn fit(
        &self,
        stage: &str,
        task: &dyn Task,
        params: &Params,
        ema: &Params,
        deadline: Option<Instant>,
    ) -> Result<Finished> {
        let train = &self.config.train;
        let config = if stage == "vae" { &train.vae } else { &train.unet };
        let intervals =
            Intervals { log: train.log_every, checkpoint: train.checkpoint_every, sample: train.sample_every };
        let trainer = Trainer {
            name: stage,
            params,
            ema,
            config,
            section: &format!("train.{stage}."),
            intervals,
            keep: self.keep,
            dir: self.dir.stage(stage),
            pictures: self.dir.samples(),
            tensorboard: self.tensorboard.then(|| self.dir.tensorboard(stage)),
            deadline,
            console: self.console,
        };
        self.console.detail(format!("{stage}: {} parameters", params.count()));
        trainer.run(task)
    }

    /// Writes the averaged weights as final.
    fn finish(&self, stage: &str, ema: &Params, training: Finished, latents: Option<&Latents>) -> Result<()> {
        let steps = training.best.as_ref().map_or(training.steps, |best| best.step);
        let card = ModelCard {
            format: FORMAT_VERSION,
            kind: stage.into(),
            distill: env!("CARGO_PKG_VERSION").into(),
            classes: self.images.classes.to_vec(),
            config: self.config.clone(),
            steps,
            images: steps * (training.images / training.steps.max(1)),
            latents: latents.map(|l| l.statistics.clone()),
        };
        write_trained(self.dir, &ema.named(), &card, training)
    }
}
