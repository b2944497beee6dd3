//! `distill train`: the VAE, its latents, the UNet.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dry_run::dry_run;
use super::resolve::{Resolved, hex, resolve, run_dir};
use super::sample::load_vae;
use super::{print, to_json};
use crate::cli::{Common, Stage, TrainArgs, Training};
use crate::config::{Config, Layers};
use crate::data::{self, ImageSet, Split};
use crate::device;
use crate::error::{AtPath, Error, Result};
use crate::fs::{lock, write_atomic};
use crate::models::vae::Vae;
use crate::nn::Params;
use crate::ops::cpu::products;
use crate::progress::{Console, duration};
use crate::rng::Rng;
use crate::run_dir::RunDir;
use crate::stages::{Latents, ModelCard, UNetTask, VALIDATION_IMAGES, VaeTask, spread};
use crate::train::{FORMAT_VERSION, Finished, Intervals, Task, Trainer, save_weights};
use crate::{fail, usage};

/// Share of a time limit that the VAE gets where both networks are trained.
const VAE_SHARE: f64 = 0.25;

/// What is written once a run starts.
#[derive(Serialize, Deserialize)]
struct Meta {
    distill: String,
    command: Vec<String>,
    device: String,
    /// What matrix products were computed in.
    dtype: String,
    preset: String,
    /// Hash of the train split's pixels, labels and classes.
    data_sha256: String,
    images: usize,
    classes: usize,
}

pub fn run(args: &TrainArgs, console: &Console) -> Result<()> {
    let resolved = resolve(&args.training.configuring, args.training.dataset.as_ref(), &[], &args.common, console)?;
    let dir = run_dir(&resolved, &args.training, &args.common)?;
    if args.common.dry_run {
        let classes = class_count(&resolved.config, &args.common)?;
        return dry_run(&resolved.config, classes, &outputs(&dir), &args.common);
    }
    if dir.is_finished() && !args.training.overwrite {
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
    let set = data::load(&config.dataset, Split::Train, config.image_size, common.data_dir.as_deref())?;
    let _lock = prepare(dir, config, training.overwrite, stage)?;
    console.log_to(&dir.log())?;
    write_meta(resolved, dir, &set, &device, console)?;
    console.info(format!("{}: {} on {}", dir.root.display(), config.dataset, device::describe(&device)));

    let (kept, held) = set.hold_out();
    let images = if config.train.hold_out { &kept } else { &set };
    let held = if held.is_empty() { &set } else { &held };
    let deadline = |share: f64| training.max_time.map(|limit: Duration| start + limit.mul_f64(share));
    let session = Session { config, dir, device: &device, console, images, validation: held };
    let vae_share = if stage == Some(Stage::Vae) { 1.0 } else { VAE_SHARE };
    let (vae, of_vae) = session.vae(deadline(vae_share))?;
    let mut of_unet = None;
    if stage != Some(Stage::Vae) {
        of_unet = Some(session.unet(&vae, deadline(1.0))?);
    }
    console.info(format!("training took {}", duration(start.elapsed().as_secs_f64())));
    Ok(Summary { run: dir.root.display().to_string(), vae: Some(of_vae), unet: of_unet })
}

/// Makes the run's folder, or checks that it belongs to this configuration; the lock keeps a second process out.
fn prepare(dir: &RunDir, config: &Config, overwrite: bool, stage: Option<Stage>) -> Result<File> {
    fs::create_dir_all(&dir.root).at(&dir.root)?;
    let lock = lock(&dir.root.join(".lock"), "is training this run")?;
    if stage == Some(Stage::Unet) && !dir.weights("vae").is_file() {
        usage!("--stage unet: {} has no finished VAE; train it first with --stage vae", dir.root.display());
    }
    if !overwrite || stage == Some(Stage::Unet) {
        check_same(dir, config)?;
    }
    if overwrite {
        // A UNet is worth nothing without the VAE that it was trained on.
        let stages: &[&str] = if stage == Some(Stage::Unet) { &["unet"] } else { &["vae", "unet"] };
        for folder in stages.iter().map(|stage| dir.stage(stage)).filter(|folder| folder.exists()) {
            fs::remove_dir_all(&folder).at(&folder)?;
        }
    }
    write_atomic(&dir.config(), config.to_toml().as_bytes())?;
    fs::create_dir_all(dir.samples()).at(&dir.samples())?;
    Ok(lock)
}

/// Refuses to mix two configurations in one run.
pub fn check_same(dir: &RunDir, config: &Config) -> Result<()> {
    if !dir.config().is_file() {
        return Ok(());
    }
    let before = Layers::written(&dir.config())?.resolve()?;
    match config.training_differences(&before).first() {
        Some(key) => usage!(
            "{}: this run was started with another {key}; choose another --name, or --overwrite to start again",
            dir.root.display()
        ),
        None => Ok(()),
    }
}

/// Writes meta.json, after a look at the one of a run that goes on: its data must be the same.
fn write_meta(resolved: &Resolved, dir: &RunDir, set: &ImageSet, device: &Device, console: &Console) -> Result<()> {
    let meta = Meta {
        distill: env!("CARGO_PKG_VERSION").into(),
        command: std::env::args().collect(),
        device: device::describe(device),
        dtype: products::current().to_string(),
        preset: resolved.preset.clone(),
        data_sha256: set.sha256(),
        images: set.len(),
        classes: set.classes.len(),
    };
    let begun = dir.weights("vae").is_file() || dir.stage("vae").join("metrics.jsonl").is_file();
    let old = fs::read(dir.meta()).ok().and_then(|bytes| serde_json::from_slice::<Meta>(&bytes).ok());
    if let Some(old) = old.filter(|_| begun) {
        if old.data_sha256 != meta.data_sha256 {
            fail!(
                "{}: this run was started on other images ({} then, {} now); name the same --data-dir, or another --name",
                dir.root.display(),
                old.images,
                meta.images
            );
        }
        if old.dtype != meta.dtype {
            console.warn(format!("this run was started with {} products and goes on with {}", old.dtype, meta.dtype));
        }
    }
    write_atomic(&dir.meta(), to_json(&meta)?.as_bytes())
}

/// One call of training, with everything that both stages need.
struct Session<'a> {
    config: &'a Config,
    dir: &'a RunDir,
    device: &'a Device,
    console: &'a Console,
    images: &'a ImageSet,
    validation: &'a ImageSet,
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
        Ok((load_vae(self.dir, self.device)?.0, self.summary("vae")?))
    }

    /// What a finished stage's training ended with.
    fn summary(&self, stage: &str) -> Result<Finished> {
        let path = self.dir.summary(stage);
        serde_json::from_slice(&fs::read(&path).at(&path)?)
            .map_err(|e| Error::Failed(format!("{}: is damaged ({e}); start again with --overwrite", path.display())))
    }

    fn unet(&self, vae: &Vae, deadline: Option<Instant>) -> Result<Finished> {
        if self.dir.weights("unet").is_file() {
            return self.summary("unet"); // another process finished it before this one got the lock
        }
        let flip = self.config.train.flip;
        let path = self.dir.weights("vae");
        let weights = hex(&Sha256::digest(fs::read(&path).at(&path)?));
        let latents = Latents::cached(&self.dir.latents(), vae, &weights, self.images, flip, self.console)?;
        let fixed = self.validation.subset(&spread(self.validation.len(), VALIDATION_IMAGES));
        let validation = Latents::with_statistics(vae, &fixed, &latents.statistics, self.console)?;
        let (params, ema) = (self.params("unet"), self.params("unet"));
        let classes = self.images.classes.len();
        let task = UNetTask::new(self.config, &params, &ema, vae, &latents, &validation, classes, self.device)?;
        let finished = self.fit("unet", &task, &params, &ema, deadline)?;
        self.finish("unet", &ema, finished, Some(&latents))?;
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
            intervals,
            dir: self.dir.stage(stage),
            pictures: self.dir.samples(),
            deadline,
            console: self.console,
        };
        self.console.detail(format!("{stage}: {} parameters", params.count()));
        trainer.run(task)
    }

    /// Writes the averaged weights as final, then removes the checkpoints that led to them.
    fn finish(&self, stage: &str, ema: &Params, training: Finished, latents: Option<&Latents>) -> Result<()> {
        let card = ModelCard {
            format: FORMAT_VERSION,
            kind: stage.into(),
            distill: env!("CARGO_PKG_VERSION").into(),
            classes: self.images.classes.to_vec(),
            config: self.config.clone(),
            steps: training.steps,
            images: training.images,
            latents: latents.map(|l| l.statistics.clone()),
        };
        write_atomic(&self.dir.summary(stage), to_json(&training)?.as_bytes())?;
        save_weights(&self.dir.weights(stage), &ema.named(), &card)?;
        crate::train::Checkpoint::remove_all(&self.dir.stage(stage))
    }
}
