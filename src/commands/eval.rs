//! `distill eval`: students trained on a set, tested on real images.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::json;

use super::resolve::shortened;
use super::sample::load_vae;
use super::{fetch, print, to_json};
use crate::cli::{Common, EvalArgs, EvalSplit, Judging};
use crate::config::{Config, Layers, default_preset};
use crate::data::{Dataset, ImageSet, Split};
use crate::distilled::{self, DistilledSet};
use crate::error::{AtPath, Error, Result};
use crate::eval::{Evaluation, FinishedRuns, Origin, Protocol, StudentKind, Trial, evaluate};
use crate::fs::{lock, write_atomic};
use crate::nearest::nearest;
use crate::progress::{Console, duration};
use crate::run_dir::{RunDir, newest_distilled};
use crate::stages::reconstruct;
use crate::usage;

/// Images per class of a baseline where `--ipc` does not say otherwise.
const DEFAULT_IPC: u32 = 10;

pub fn run(args: &EvalArgs, console: &Console) -> Result<()> {
    let subject = Subject::of(args)?;
    let judge = Judge::new(&args.judging, &subject.config.eval.protocol, &args.common)?;
    if args.common.dry_run && args.common.json {
        let output = subject.output(&judge).join("eval.json");
        return print(&to_json(
            &json!({ "on": subject.name(), "dataset": subject.config.dataset, "protocol": judge.protocol,
                                       "outputs": [output] }),
        )?);
    }
    if args.common.dry_run {
        return print(&format!(
            "{} on {} ({}), protocol:\n{}\nwrites {}",
            args.judging.student.as_str(),
            subject.name(),
            subject.config.dataset,
            to_json(&judge.protocol)?,
            subject.output(&judge).join("eval.json").display()
        ));
    }
    if let Some(run) = subject.folder.parent().map(RunDir::new).filter(|run| run.config().is_file()) {
        console.log_to(&run.log())?;
    }
    let result = judge.judge(&subject, console)?;
    if args.common.json { print(&to_json(&result)?) } else { print(&sentence(&result)) }
}

/// The result in one line.
pub fn sentence(result: &Evaluation) -> String {
    let spread = result.accuracy_std.map_or(String::new(), |std| format!(" +- {std:.2}"));
    let ipc = result.ipc.map_or(String::new(), |ipc| format!(", {ipc} images a class"));
    format!(
        "{} on {}{ipc}: {:.2}{spread} % on {} {} (protocol {}, runs: {}, {}, {})",
        result.student,
        result.on,
        result.accuracy_mean,
        result.dataset,
        result.split,
        result.protocol,
        result.runs.len(),
        result.environment.dtype,
        duration(result.seconds)
    )
}

/// What students train on.
pub enum Source {
    Distilled(PathBuf),
    /// The whole train split.
    Real,
    /// Real images drawn at random, so many a class.
    RandomReal(u32),
    /// The same through the VAE of a run: the ceiling that the VAE allows.
    Reconstructed(u32, RunDir),
}

/// A set to judge.
pub struct Subject {
    pub source: Source,
    /// Where results go.
    pub folder: PathBuf,
    /// The configuration of the run that the set belongs to or is compared with; it names the data set.
    pub config: Config,
}

impl Subject {
    fn of(args: &EvalArgs) -> Result<Self> {
        let out = &args.common.out;
        let ipc = args.ipc.unwrap_or(DEFAULT_IPC);
        let place = args.run.as_deref().unwrap_or(out);
        match args.on.as_deref() {
            Some("real") if args.ipc.is_some() => {
                usage!("--ipc: real is the whole train set; use --on random-real for so many images a class")
            }
            Some("real") => Self::baseline(Source::Real, args, place),
            Some("random-real") => Self::baseline(Source::RandomReal(ipc), args, place),
            Some("reconstructed") => {
                let named = RunDir::new(place); // its VAE is enough
                let run = if named.weights("vae").is_file() { named } else { RunDir::open(place)? };
                let config = Layers::written(&run.config())?.resolve()?;
                Ok(Subject { folder: run.eval(), source: Source::Reconstructed(ipc, run), config })
            }
            Some(path) => Self::distilled(Path::new(path), args),
            None => Self::distilled(&newest_distilled(place)?, args),
        }
    }

    /// Real images: of the named data set, or of the newest run's.
    fn baseline(source: Source, args: &EvalArgs, place: &Path) -> Result<Self> {
        let config = match (&args.dataset, RunDir::open(place)) {
            (named, Ok(run)) => {
                let config = Layers::written(&run.config())?.resolve()?;
                match named.as_ref().filter(|dataset| **dataset != config.dataset) {
                    Some(dataset) => preset_of(dataset)?,
                    None => config,
                }
            }
            (Some(dataset), Err(_)) => preset_of(dataset)?,
            (None, Err(Error::Failed(problem))) => usage!("{problem}; or name the data set with --dataset"),
            (None, Err(other)) => return Err(other),
        };
        Ok(Subject { source, folder: args.common.out.join("eval"), config })
    }

    fn distilled(path: &Path, args: &EvalArgs) -> Result<Self> {
        let typed = path.to_string_lossy();
        if let Some(word) = nearest(&typed, ["real", "random-real", "reconstructed"]).filter(|_| !path.exists()) {
            usage!("--on {typed}: there is no such set; did you mean {word}?");
        }
        if args.ipc.is_some() {
            usage!("--ipc: a distilled set is judged whole; sample another with `distill sample --ipc N`");
        }
        let set = distilled::open(path)?.listing;
        let (dataset, image_size) = (set.provenance.dataset, set.size);
        if let Some(other) = args.dataset.as_ref().filter(|d| **d != dataset) {
            usage!("--dataset {other}: {} was made from {dataset}; drop --dataset", path.display());
        }
        // A set inside a run's folder is judged as the run says, any other one as the data set's preset does.
        let folder = if path.is_file() { path.parent() } else { Some(path) };
        let run = folder.and_then(Path::parent).filter(|d| d.ends_with("distilled")).and_then(Path::parent);
        let run = run.map(RunDir::new).filter(|run| run.config().is_file());
        let (folder, config) = match run {
            Some(run) => (run.eval(), Layers::written(&run.config())?.resolve()?),
            None => (args.common.out.join("eval"), preset_of(&dataset)?),
        };
        let config = Config { dataset, image_size, ..config };
        Ok(Subject { source: Source::Distilled(path.into()), folder, config })
    }

    /// How results name the set.
    fn name(&self) -> String {
        match &self.source {
            Source::Distilled(path) => path.display().to_string(),
            Source::Real => "real".into(),
            Source::RandomReal(_) => "random-real".into(),
            Source::Reconstructed(..) => "reconstructed".into(),
        }
    }

    /// The folder of this set's results under a protocol.
    fn output(&self, judge: &Judge) -> PathBuf {
        let real = || self.config.dataset.file_stem(self.config.image_size);
        let set = match &self.source {
            Source::Distilled(path) => {
                let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
                folder.file_name().map_or("set".into(), |n| n.to_string_lossy().into_owned())
            }
            Source::Real => format!("{}-real", real()),
            Source::RandomReal(ipc) => format!("{}-random-real-ipc{ipc}", real()),
            Source::Reconstructed(ipc, _) => format!("reconstructed-ipc{ipc}"),
        };
        let protocol: String = judge.recipe.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let heldout = if judge.split == EvalSplit::Heldout { "-heldout" } else { "" };
        let set = shortened(set);
        let name =
            format!("{set}-{}-{}{heldout}-seed{}", judge.student.as_str(), protocol.trim_end_matches('-'), judge.seed);
        self.folder.join(name)
    }

    /// The images, given the real ones that they may be drawn from.
    fn images(&self, real: ImageSet, judge: &Judge, console: &Console) -> Result<ImageSet> {
        let seed = judge.seed;
        match &self.source {
            Source::Distilled(path) => Ok(DistilledSet::read(path)?.images),
            Source::Real => Ok(real),
            Source::RandomReal(ipc) => real.random_per_class(*ipc as usize, seed),
            Source::Reconstructed(ipc, run) => {
                let device = &judge.device;
                let (vae, _) = load_vae(run, device)?;
                let images = real.random_per_class(*ipc as usize, seed)?;
                Ok(ImageSet { pixels: reconstruct(&vae, &images, device, console)?, ..images })
            }
        }
    }
}

/// The configuration of a data set's preset.
fn preset_of(dataset: &Dataset) -> Result<Config> {
    let preset = Layers::preset(default_preset(dataset, false))?.resolve()?;
    Ok(Config { dataset: dataset.clone(), ..preset })
}

/// A student and a protocol, ready for any set.
pub struct Judge<'a> {
    student: StudentKind,
    protocol: Protocol,
    /// The protocol's name before the number of runs was changed: with another number the same students are used.
    recipe: String,
    split: EvalSplit,
    seed: u64,
    common: &'a Common,
    device: Device,
}

impl<'a> Judge<'a> {
    pub fn new(args: &Judging, default_protocol: &str, common: &'a Common) -> Result<Self> {
        let named = Protocol::named(args.protocol.as_deref().unwrap_or(default_protocol))?;
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
        Ok(Judge { student: args.student, protocol, recipe, split: args.split, seed, common, device })
    }

    /// Judges one set and writes eval.json and metrics.jsonl.
    pub fn judge(&self, subject: &Subject, console: &Console) -> Result<Evaluation> {
        let Config { dataset, image_size, .. } = &subject.config;
        let load = |split| fetch::load(dataset, split, *image_size, self.common, console);
        let needs_real = !matches!(subject.source, Source::Distilled(_));
        let (train, test) = match self.split {
            EvalSplit::Heldout => load(Split::Train)?.hold_out(),
            EvalSplit::Test => {
                let test = load(Split::Test)?;
                (if needs_real { load(Split::Train)? } else { test.subset(&[]) }, test)
            }
        };
        let learned = matches!(subject.source, Source::Distilled(_) | Source::Reconstructed(..));
        if learned && self.split == EvalSplit::Heldout && !subject.config.train.hold_out {
            console.warn("the model has seen the held-out images; train one with --set train.hold_out=true");
        }
        let images = subject.images(train, self, console)?;
        let normalization = dataset.normalization();
        let trial = Trial {
            student: self.student,
            protocol: &self.protocol,
            train: &images,
            test: &test,
            normalization,
            seed: self.seed,
            device: &self.device,
        };
        let split = if self.split == EvalSplit::Test { "test" } else { "heldout" };
        let origin = Origin { dataset: dataset.to_string(), on: subject.name(), split: split.into() };
        let output = subject.output(self);
        fs::create_dir_all(&output).at(&output)?;
        let _lock = lock(&output.join(".lock"), "is evaluating into this folder")?;
        let students = FinishedRuns::new(&output, &trial)?;
        let path = output.join("metrics.partial.jsonl");
        let mut metrics = File::create(&path).at(&path)?;
        console.info(format!(
            "{} on {} ({} images), protocol {}, tested on {} {split} images",
            self.student.as_str(),
            origin.on,
            images.len(),
            self.protocol.name,
            test.len()
        ));
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
