//! Every path of a run's folder, and finding runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{AtPath, Result};
use crate::fail;
use crate::fs::folder_of;
use crate::order::{self, Order};

/// The folder of one run: its configuration, both networks, what was sampled from them and how it was judged.
#[derive(Clone, Debug)]
pub struct RunDir {
    pub root: PathBuf,
}

impl RunDir {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        RunDir { root: root.into() }
    }

    pub fn name(&self) -> String {
        self.root.file_name().map_or_else(|| self.root.display().to_string(), |n| n.to_string_lossy().into_owned())
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Version, command line, device, data hash and times.
    pub fn meta(&self) -> PathBuf {
        self.root.join("meta.json")
    }

    /// The model card of a finished run.
    pub fn model_card(&self) -> PathBuf {
        self.root.join("README.md")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("log.txt")
    }

    /// Held by the process that trains the run.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Metrics and checkpoints of a stage, "vae" or "unet".
    pub fn stage(&self, stage: &str) -> PathBuf {
        self.root.join(stage)
    }

    /// The final, averaged weights of a stage.
    pub fn weights(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("final.safetensors")
    }

    /// What a stage's training ended with.
    pub fn summary(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("summary.json")
    }

    /// The cached latents of the train split.
    pub fn latents(&self) -> PathBuf {
        self.stage("vae").join("latents.safetensors")
    }

    /// Pictures drawn while training.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// The event file of a stage for TensorBoard.
    pub fn tensorboard(&self, stage: &str) -> PathBuf {
        self.root.join("tensorboard").join(stage)
    }

    /// The page that `distill report` writes.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    pub fn distilled(&self) -> PathBuf {
        self.root.join("distilled")
    }

    pub fn eval(&self) -> PathBuf {
        self.root.join("eval")
    }

    /// Notes that `artefact`, this run or a set in it, is now the newest under the folder of all runs.
    pub fn note(&self, artefact: &Path) -> Result<()> {
        let inner = artefact.strip_prefix(&self.root).unwrap_or(artefact);
        let real = RunDir::new(self.root.canonicalize().at(&self.root)?); // `.` and links have another name and parent
        // By components: joined to the run's name, an empty path would add a slash.
        let named: PathBuf = Path::new(&real.name()).components().chain(inner.components()).collect();
        order::note(folder_of(&real.root), &named)
    }

    /// The runs under `out` by name, those that lost a part included.
    pub fn all(out: &Path) -> Result<Vec<RunDir>> {
        let runs = folders(out)?.into_iter().map(RunDir::new);
        Ok(runs.filter(|run| run.is_run() || run.stage("vae").is_dir() || run.stage("unet").is_dir()).collect())
    }

    /// The teachers in the folder `teachers` by name, those that lost a part included.
    pub fn teachers(teachers: &Path) -> Result<Vec<RunDir>> {
        let parts = ["config.toml", "metrics.jsonl", "final.safetensors"];
        let found =
            folders(teachers)?.into_iter().filter(|folder| parts.iter().any(|part| folder.join(part).is_file()));
        Ok(found.map(RunDir::new).collect())
    }

    fn is_run(&self) -> bool {
        self.config().is_file()
    }

    pub fn is_finished(&self) -> bool {
        self.is_run() && self.weights("unet").is_file()
    }

    /// The run at `path`: a run's folder, or the newest finished run below it.
    pub fn open(path: &Path) -> Result<RunDir> {
        let run = RunDir::new(path);
        if run.is_finished() {
            return Ok(run);
        }
        if run.is_run() {
            fail!("{}: this run has not finished training; run `distill train` with its options again", path.display());
        }
        let order = Order::of(path);
        let dated = |root: PathBuf| {
            let age = order.age(root.strip_prefix(path).ok()?, &RunDir::new(&root).weights("unet"))?;
            Some((age, root))
        };
        match folders(path)?.into_iter().filter_map(dated).max() {
            Some((_, root)) => Ok(RunDir::new(root)),
            None => fail!(
                "{}: no finished run is there; train one with `distill train --dataset cifar100`, or name one with --run DIR",
                path.display()
            ),
        }
    }

    /// The distilled sets in this folder, each with what the newest has the most of. `order` calls the folder `name`.
    fn dated_sets(&self, order: &Order, name: &str) -> Result<Vec<((usize, SystemTime), PathBuf)>> {
        let dated = |set: PathBuf| {
            let inner = set.strip_prefix(&self.root).ok()?;
            Some((order.age(&Path::new(name).join(inner), &set.join("distilled.safetensors"))?, set))
        };
        Ok(folders(&self.distilled())?.into_iter().filter_map(dated).collect())
    }
}

/// The distilled sets of the run `out`, or of all runs under `out` and those that were imported there; the newest first.
pub fn distilled_sets(out: &Path) -> Result<Vec<PathBuf>> {
    let here = RunDir::new(out);
    let mut found = if here.is_run() {
        let real = RunDir::new(out.canonicalize().at(out)?);
        here.dated_sets(&Order::of(folder_of(&real.root)), &real.name())?
    } else {
        let order = Order::of(out);
        let mut found = here.dated_sets(&order, "")?;
        for run in folders(out)?.into_iter().map(RunDir::new) {
            found.extend(run.dated_sets(&order, &run.name())?);
        }
        found
    };
    found.sort();
    Ok(found.into_iter().rev().map(|(_, set)| set).collect())
}

/// The newest distilled set of the run `out`, or of any run under `out` and those that were imported there.
pub fn newest_distilled(out: &Path) -> Result<PathBuf> {
    match distilled_sets(out)?.into_iter().next() {
        Some(set) => Ok(set),
        None => fail!(
            "{}: no distilled set is there; make one with `distill sample`, or name one with --on PATH",
            out.display()
        ),
    }
}

/// The folders directly inside `parent`, sorted; none where it does not exist.
fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    if !parent.is_dir() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for entry in fs::read_dir(parent).at(parent)? {
        let path = entry.at(parent)?.path();
        if path.is_dir() {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}
