//! What `distill eval` judges: a set by its name or place, and the configuration that it is judged in.

use std::path::{Path, PathBuf};

use super::DEFAULT_IPC;
use super::selected::Selection;
use crate::checksums::sha256;
use crate::cli::{EvalArgs, ReadingArgs};
use crate::commands::resolve::shortened;
use crate::config::{Config, Layers, default_preset};
use crate::data::{BASELINES, Dataset};
use crate::distilled::{self, TENSOR_FILE};
use crate::error::{Error, Result};
use crate::eval::Teacher;
use crate::fs::folder_of;
use crate::nearest::nearest;
use crate::run_dir::{RunDir, newest_distilled};
use crate::usage;

/// What students train on.
pub enum Source {
    Distilled(PathBuf),
    /// Another program's file or folder.
    File(PathBuf, ReadingArgs),
    /// The whole train split.
    Real,
    /// Real images drawn at random, so many a class.
    RandomReal(u32),
    /// Real images chosen as the teacher in a folder sees them.
    Selected(Selection, u32, PathBuf),
    /// Random real images through the VAE of a run: the ceiling that the VAE allows.
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
    pub fn of(args: &EvalArgs) -> Result<Self> {
        let ipc = args.ipc.unwrap_or(DEFAULT_IPC);
        let place = args.run.as_deref().unwrap_or(&args.common.out);
        let subject = match args.on.as_deref() {
            Some("real") if args.ipc.is_some() => {
                usage!("--ipc: real is the whole train set; use --on random-real for so many images a class")
            }
            Some("real") => Self::baseline(Source::Real, args)?,
            Some("random-real") => Self::baseline(Source::RandomReal(ipc), args)?,
            Some("k-center") => Self::selected(Selection::KCenter, ipc, args)?,
            Some("herding") => Self::selected(Selection::Herding, ipc, args)?,
            Some("mix") => Self::selected(Selection::Mix, ipc, args)?,
            Some("reconstructed") => {
                let run = reconstructing(place)?;
                let config = Layers::written(&run.config())?.resolve()?;
                Subject { folder: run.eval(), source: Source::Reconstructed(ipc, run), config }
            }
            Some(path) => Self::at(Path::new(path), args)?,
            None => Self::at(&newest_distilled(place)?, args)?,
        };
        if args.reading != ReadingArgs::default() && !matches!(subject.source, Source::File(..)) {
            usage!(
                "--format, --pixels, --mean, --std and --labels are for other programs' files, but {} is none",
                subject.name()
            );
        }
        Ok(subject)
    }

    fn selected(selection: Selection, ipc: u32, args: &EvalArgs) -> Result<Self> {
        let real = Self::baseline(Source::Real, args)?;
        let teacher = teacher_of(&real.config, args)?;
        Ok(Subject { source: Source::Selected(selection, ipc, teacher), ..real })
    }

    /// The set at a path, judged whole.
    pub fn at(path: &Path, args: &EvalArgs) -> Result<Self> {
        let typed = path.to_string_lossy();
        if let Some(word) = nearest(&typed, BASELINES).filter(|_| !path.exists()) {
            usage!("--on {typed}: there is no such set; did you mean {word}?");
        }
        if args.ipc.is_some() && !args.compare {
            usage!("--ipc: a distilled set is judged whole; sample another with `distill sample --ipc N`");
        }
        let is_tensor_file = path.extension().is_some_and(|e| e == "safetensors") && !distilled::is_foreign(path);
        if path.exists() && !is_tensor_file && !path.join(TENSOR_FILE).is_file() || args.reading.format.is_some() {
            return Self::baseline(Source::File(path.into(), args.reading.clone()), args);
        }
        let set = distilled::open(path)?.listing;
        let (dataset, image_size) = (set.provenance.dataset, set.size);
        if let Some(other) = args.dataset.as_ref().filter(|d| **d != dataset) {
            usage!("--dataset {other}: {} was made from {dataset}; drop --dataset", path.display());
        }
        // A set inside a run's folder is judged as the run says, any other one as the data set's preset does.
        let (folder, config) = match run_of(path) {
            Some(run) => (run.eval(), Layers::written(&run.config())?.resolve()?),
            None => (args.common.out.join("eval"), preset_of(&dataset)?),
        };
        let config = Config { dataset, image_size, ..config };
        Ok(Subject { source: Source::Distilled(path.into()), folder, config })
    }

    /// Real images, or those of a file: of the named data set, or of the newest run's.
    pub fn baseline(source: Source, args: &EvalArgs) -> Result<Self> {
        let config = match (&args.dataset, RunDir::open(args.run.as_deref().unwrap_or(&args.common.out))) {
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

    /// How results name the set.
    pub fn name(&self) -> String {
        match &self.source {
            Source::Distilled(path) | Source::File(path, _) => path.display().to_string(),
            Source::Real => "real".into(),
            Source::RandomReal(_) => "random-real".into(),
            Source::Selected(selection, ..) => selection.as_str().into(),
            Source::Reconstructed(..) => "reconstructed".into(),
        }
    }

    /// Whether a model of the run made the images.
    pub fn is_learned(&self) -> bool {
        matches!(self.source, Source::Distilled(_) | Source::Reconstructed(..))
    }

    /// The start of the name of this set's results.
    pub fn stem(&self) -> String {
        let real = || self.config.dataset.file_stem(self.config.image_size);
        let last = |path: &Path| path.file_name().map_or("set".into(), |n| n.to_string_lossy().into_owned());
        shortened(match &self.source {
            Source::Distilled(path) => stem_of(path),
            Source::File(path, _) => format!("{}-{}", last(&path.with_extension("")), digest(path)),
            Source::Real => format!("{}-real", real()),
            Source::RandomReal(ipc) => format!("{}-random-real-ipc{ipc}", real()),
            Source::Selected(selection, ipc, teacher) => {
                format!("{}-{}-ipc{ipc}-{}", real(), selection.as_str(), last(teacher))
            }
            Source::Reconstructed(ipc, _) => format!("reconstructed-ipc{ipc}"),
        })
    }
}

/// The folder of the teacher that is named, or else of the newest one of the data set.
pub fn teacher_of(config: &Config, args: &EvalArgs) -> Result<PathBuf> {
    Teacher::locate(args.teacher.as_deref(), &args.common.out, &config.dataset, config.image_size)
}

/// The start of the name of a distilled set's results: where the set is no run's, others may be called the same.
pub fn stem_of(set: &Path) -> String {
    let name = distilled::name_of(set);
    if run_of(set).is_some() { name } else { format!("{name}-{}", digest(set)) }
}

/// Tells sets apart that have the same name in other folders.
fn digest(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or(path.into());
    sha256(whole.as_os_str().as_encoded_bytes())[..8].into()
}

/// The folder of a distilled set, which may be named by its tensor file.
fn folder_of_set(path: &Path) -> &Path {
    if path.is_file() { path.parent().unwrap_or(path) } else { path }
}

/// The run whose folder a distilled set lies in, if it lies in one.
pub fn run_of(set: &Path) -> Option<RunDir> {
    let run = folder_of_set(set).parent().filter(|d| d.ends_with("distilled")).map(folder_of);
    run.map(RunDir::new).filter(|run| run.config().is_file())
}

/// The run at `place`, of which the VAE is enough, or the newest finished one below.
pub fn reconstructing(place: &Path) -> Result<RunDir> {
    let named = RunDir::new(place);
    if named.weights("vae").is_file() { Ok(named) } else { RunDir::open(place) }
}

/// The configuration of a data set's preset.
fn preset_of(dataset: &Dataset) -> Result<Config> {
    let preset = Layers::preset(default_preset(dataset, false))?.resolve()?;
    Ok(Config { dataset: dataset.clone(), ..preset })
}
