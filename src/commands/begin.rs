//! What stands before training: the run's lock, its configuration and its meta.json, each compared with those of a run that
//! goes on.

use std::fs::{self, File};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::resolve::Resolved;
use super::to_json;
use crate::cli::Stage;
use crate::config::{Config, Layers};
use crate::data::ImageSet;
use crate::environment::Environment;
use crate::error::{AtPath, Error, Result};
use crate::fs::{clear_unfinished, lock, make_folder, sync_folder, write_atomic};
use crate::progress::Console;
use crate::run_dir::RunDir;
use crate::{fail, usage};

/// What is written once a run starts.
#[derive(Serialize, Deserialize)]
struct Meta {
    command: Vec<String>,
    environment: Environment,
    preset: String,
    /// Hash of the train split's pixels, labels and classes.
    data_sha256: String,
    images: usize,
    classes: usize,
}

/// What helps where the notes of a run that has begun are lost.
const REMEDY: &str = "put back a copy, or start again with --overwrite";

/// Makes the run's folder, or checks that it belongs to this configuration; the lock keeps a second process out.
pub fn prepare(dir: &RunDir, config: &Config, overwrite: bool, stage: Option<Stage>) -> Result<File> {
    make_folder(&dir.root)?;
    let lock = lock(&dir.lock(), "is training this run")?;
    if stage == Some(Stage::Unet) && !dir.weights("vae").is_file() {
        usage!("--stage unet: {} has no finished VAE; train it first with --stage vae", dir.root.display());
    }
    if !overwrite || stage == Some(Stage::Unet) {
        check_same(dir, config)?;
    }
    if overwrite {
        // A UNet is worth nothing without the VAE that it was trained on.
        let stages: &[&str] = if stage == Some(Stage::Unet) { &["unet"] } else { &["vae", "unet"] };
        let folders = stages.iter().flat_map(|stage| [dir.stage(stage), dir.tensorboard(stage)]);
        for folder in folders.filter(|folder| folder.exists()) {
            fs::remove_dir_all(&folder).at(&folder)?;
        }
        put_aside(dir)?;
    }
    for folder in [&dir.root, &dir.stage("vae"), &dir.stage("unet"), &dir.samples()] {
        clear_unfinished(folder)?;
    }
    write_atomic(&dir.config(), config.to_toml().as_bytes())?;
    make_folder(&dir.samples())?;
    Ok(lock)
}

/// Moves what was made with weights that are gone, sets, evaluations, the model's card and the report, into `old-1/`, `old-2/`, ...
fn put_aside(dir: &RunDir) -> Result<()> {
    let made = [dir.distilled(), dir.eval(), dir.model_card(), dir.report()];
    let made: Vec<_> = made.iter().filter(|path| path.exists()).collect();
    if made.is_empty() {
        return Ok(());
    }
    let mut free = (1..).map(|number| dir.root.join(format!("old-{number}"))).filter(|folder| !folder.exists());
    let old = free.next().unwrap_or_else(|| dir.root.join("old"));
    make_folder(&old)?;
    for path in made {
        let target = old.join(path.file_name().unwrap_or_default());
        fs::rename(path, &target).at(path)?;
    }
    sync_folder(&old)?;
    sync_folder(&dir.root)
}

/// Whether anything of the run has been trained.
fn has_begun(dir: &RunDir) -> bool {
    dir.weights("vae").is_file() || dir.stage("vae").join("metrics.jsonl").is_file()
}

/// Refuses to mix two configurations in one run.
pub fn check_same(dir: &RunDir, config: &Config) -> Result<()> {
    if !dir.config().is_file() {
        if has_begun(dir) {
            fail!("{}: is missing, but this run has begun; {REMEDY}", dir.config().display());
        }
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

/// Writes meta.json, after a look at the one of a run that goes on: its data must be the same, and where the program,
/// the precision or the device (with its number of threads, which orders the sums) are not, that is said.
pub fn write_meta(resolved: &Resolved, dir: &RunDir, set: &ImageSet, device: &Device, console: &Console) -> Result<()> {
    let meta = Meta {
        command: std::env::args().collect(),
        environment: Environment::of(device),
        preset: resolved.preset.clone(),
        data_sha256: set.sha256(),
        images: set.len(),
        classes: set.classes.len(),
    };
    if has_begun(dir) {
        let path = dir.meta();
        let unusable = |e: &dyn std::fmt::Display| {
            let path = path.display();
            Error::Failed(format!(
                "{path}: cannot be read ({e}), so it is not known which images this run has begun on; {REMEDY}"
            ))
        };
        let bytes = fs::read(&path).map_err(|e| unusable(&e))?;
        let old: Meta = serde_json::from_slice(&bytes).map_err(|e| unusable(&e))?;
        if old.data_sha256 != meta.data_sha256 {
            fail!(
                "{}: this run was started on other images ({} then, {} now); name the same --data-dir, or another --name",
                dir.root.display(),
                old.images,
                meta.images
            );
        }
        let (old, new) = (&old.environment, &meta.environment);
        let parts = [
            ("by version", &old.version, &new.version),
            ("in", &old.dtype, &new.dtype),
            ("by kernels", &old.kernels, &new.kernels),
            ("on", &old.device, &new.device),
        ];
        for (how, before, now) in parts.iter().filter(|(_, before, now)| before != now) {
            console.warn(format!(
                "this run was trained {how} {before} so far and goes on {how} {now}: its weights will be those of an \
                 unbroken run but for rounding, not to the bit"
            ));
        }
    }
    write_atomic(&dir.meta(), to_json(&meta)?.as_bytes())
}
