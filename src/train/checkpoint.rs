//! Training states on disk: a folder `step-0001000` each, whole or not there, with the hashes of all its files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::weights::{load_weights, save_weights};
use crate::checksums::{Checksums, sha256};
use crate::error::{AtPath, Error, Result};
use crate::fail;
use crate::fs::{sync_folder, write_atomic};
use crate::progress::Console;

/// The version of a checkpoint's layout; one of another version is refused.
const VERSION: u32 = 2;
/// The folder in which a checkpoint is made. There is one, so that a save that was cut off is cleared by the next.
const UNFINISHED: &str = ".tmp-step";
const STATE: &str = "state.json";
const METRICS: &str = "metrics.jsonl";
const SUMS: &str = "SHA256SUMS";
/// Every file that a checkpoint must have beside [`SUMS`].
const FILES: [&str; 5] = ["model.safetensors", "ema.safetensors", "optim.safetensors", METRICS, STATE];

/// What a training run needs to go on, besides tensors and metrics. All randomness follows from the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// Steps in all, once they are fixed.
    pub total: Option<u64>,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The mean loss that the last log line stated.
    pub loss: f64,
    pub recent: Recent,
    /// The best validation so far, where it is kept.
    pub best: Option<Best>,
}

impl Default for Checkpoint {
    /// The state before the first step.
    fn default() -> Self {
        let (seconds, loss) = (0.0, 0.0);
        Checkpoint { version: VERSION, step: 0, total: None, seconds, loss, recent: Recent::default(), best: None }
    }
}

/// A validation: the step after which it was made, and the figure that decides, with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    #[serde(default)]
    pub name: String,
    pub figure: f64,
}

/// Sums of the loss and the gradient's norm since the last log line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    loss: f64,
    norm: f64,
    count: u64,
}

impl Recent {
    pub fn add(&mut self, loss: f64, norm: f64) {
        self.loss += loss;
        self.norm += norm;
        self.count += 1;
    }

    /// The mean loss.
    pub fn loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }

    /// The mean loss and norm; the sums start again.
    pub fn take(&mut self) -> (f64, f64) {
        let means = (self.loss(), self.norm / self.count.max(1) as f64);
        *self = Recent::default();
        means
    }
}

/// The tensors of a checkpoint, by file: (file stem, live tensors).
pub type Parts<'a> = [(&'a str, Vec<(String, Tensor)>)];

impl Checkpoint {
    /// Takes note of a validation after this step; whether it is the best so far, by its first figure. Other figures than
    /// that, which an earlier call may have gone by, don't compare.
    pub fn note(&mut self, figures: &[(&str, f64)]) -> bool {
        let Some(&(name, figure)) = figures.first() else { return false };
        let before = self.best.as_ref().filter(|best| best.name == name);
        let better = figure < before.map_or(f64::INFINITY, |best| best.figure);
        if better {
            self.best = Some(Best { step: self.step, name: name.into(), figure });
        }
        better
    }

    /// Writes a folder `step-0001000` under `dir` with the lines of metrics so far, then removes all others but the
    /// `keep_last` newest and the best. Where it cannot be written, those before it stay as they are.
    pub fn save(&self, dir: &Path, parts: &Parts, metrics: &str, keep_last: usize) -> Result<()> {
        let unfinished = dir.join(UNFINISHED);
        remove(&unfinished)?;
        if let Err(error) = self.write(&unfinished, parts, metrics) {
            let _ = remove(&unfinished); // what is there may be what filled the disk
            return Err(error);
        }
        let target = folder(dir, self.step);
        remove(&target)?;
        fs::rename(&unfinished, &target).at(&target)?;
        sync_folder(dir)?;
        self.remove_others(dir, keep_last)
    }

    fn write(&self, folder: &Path, parts: &Parts, metrics: &str) -> Result<()> {
        fs::create_dir(folder).at(folder)?;
        let mut sums = Checksums::default();
        for (stem, tensors) in parts {
            let name = format!("{stem}.safetensors");
            sums.add(&name, save_weights(&folder.join(&name), tensors, self)?);
        }
        let state = serde_json::to_string_pretty(self).map_err(|e| Error::Failed(e.to_string()))?;
        for (name, text) in [(METRICS, metrics), (STATE, &state)] {
            write_atomic(&folder.join(name), text.as_bytes())?;
            sums.add(name, sha256(text.as_bytes()));
        }
        sums.write(&folder.join(SUMS))
    }

    /// Those of later steps are removed as well: training only passes a checkpoint that it found damaged.
    fn remove_others(&self, dir: &Path, keep_last: usize) -> Result<()> {
        let best = self.best.as_ref().map(|best| best.step);
        let mut newer = 0;
        for (step, folder) in folders(dir)?.into_iter().rev() {
            newer += usize::from(step <= self.step);
            if (step > self.step || newer > keep_last) && Some(step) != best {
                remove(&folder)?;
            }
        }
        Ok(())
    }

    /// Removes all checkpoints under `dir`: the final weights have taken their place.
    pub fn remove_all(dir: &Path) -> Result<()> {
        remove(&dir.join(UNFINISHED))?;
        folders(dir)?.iter().try_for_each(|(_, folder)| remove(folder))
    }

    /// The newest checkpoint under `dir` that is whole, with its folder; none where there are no checkpoints. A damaged
    /// one is warned about and passed over.
    ///
    /// # Errors
    /// All of them are damaged, the newest that is whole is of another version, or one cannot be read although it is there.
    pub fn newest(dir: &Path, console: &Console) -> Result<Option<(Checkpoint, PathBuf)>> {
        let all = folders(dir)?;
        for (_, folder) in all.iter().rev() {
            match Self::open(folder) {
                Ok(checkpoint) if checkpoint.version == VERSION => return Ok(Some((checkpoint, folder.clone()))),
                Ok(checkpoint) => fail!(
                    "{}: is a checkpoint of version {}, this program reads version {VERSION}; use the program that wrote \
                     it, or start again with --overwrite",
                    folder.display(),
                    checkpoint.version
                ),
                // Passed over, it would be removed by the next save.
                Err(unreadable @ Error::Io { .. }) => return Err(unreadable),
                Err(damage) => console.warn(format!("{damage}; trying the checkpoint before it")),
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        fail!(
            "{}: each of its checkpoints ({}) is damaged, as said above; put back a copy of one, or start again with \
             --overwrite",
            dir.display(),
            all.len()
        )
    }

    /// The state in a checkpoint's folder, all of whose files have been compared with their hashes.
    fn open(folder: &Path) -> Result<Checkpoint> {
        Checksums::check(&folder.join(SUMS), &FILES)?;
        let path = folder.join(STATE);
        serde_json::from_slice(&fs::read(&path).at(&path)?)
            .map_err(|e| Error::Failed(format!("{}: is not a checkpoint's state: {e}", path.display())))
    }

    /// The folder of the best checkpoint under `dir`, after a look at its hashes.
    pub fn open_best(dir: &Path, best: &Best) -> Result<PathBuf> {
        let folder = folder(dir, best.step);
        match Self::open(&folder) {
            Ok(_) => Ok(folder),
            Err(unreadable @ Error::Io { .. }) => Err(unreadable),
            Err(problem) => fail!("{problem}; without --keep-best the same command takes the weights of the last step"),
        }
    }

    /// Forgets the best validation where its checkpoint under `dir` is damaged, with a warning: better now than after the
    /// last step.
    pub fn check_best(&mut self, dir: &Path, console: &Console) -> Result<()> {
        let Some(best) = &self.best else { return Ok(()) };
        match Self::open(&folder(dir, best.step)) {
            Err(unreadable @ Error::Io { .. }) => return Err(unreadable),
            Err(damage) => {
                console.warn(format!("{damage}; it was the best, now the best of the validations to come is kept"));
                self.best = None;
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// The metrics in a checkpoint's folder.
    pub fn metrics(folder: &Path) -> Result<String> {
        let path = folder.join(METRICS);
        fs::read_to_string(&path).at(&path)
    }

    /// Fills the live tensors of `parts` from the checkpoint's folder.
    pub fn restore(folder: &Path, parts: &Parts) -> Result<()> {
        for (stem, tensors) in parts {
            let path = folder.join(format!("{stem}.safetensors"));
            let stored = load_weights(&path, &Device::Cpu)?;
            if let Some(name) = stored.keys().find(|name| !tensors.iter().any(|(known, _)| known == *name)) {
                fail!("{}: tensor {name} is not part of this network; it is of another configuration", path.display());
            }
            for (name, tensor) in tensors {
                let Some(source) = stored.get(name).filter(|s| s.shape() == tensor.shape()) else {
                    fail!(
                        "{}: has no tensor {name} of shape {:?}; it is of another configuration",
                        path.display(),
                        tensor.dims()
                    );
                };
                crate::ops::overwrite(tensor, source)?;
            }
        }
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.at(folder),
    }
}

/// The folder of the checkpoint of `step`.
fn folder(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("step-{step:07}"))
}

/// Checkpoint folders under `dir`, oldest first.
fn folders(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).at(dir)? {
        let path = entry.at(dir)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse().ok()) {
            out.push((step, path));
        }
    }
    out.sort();
    Ok(out)
}
