//! What can be typed: clap types only, and their translation into configuration keys.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Override;
use crate::data::DatasetName;
use crate::device::DeviceChoice;
use crate::error::Result;
use crate::progress::Verbosity;

/// Distil a data set into a few generated images per class, and measure what they are worth.
///
/// A VAE and a class-conditional latent diffusion model learn the data set; DDIM samples a few images a class; students
/// trained on these are tested on real images.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train the VAE and the diffusion model on a data set
    Train(TrainArgs),
    /// Sample a distilled set from a trained run
    Sample(SampleArgs),
    /// Train students on a set and test them on real images
    Eval(EvalArgs),
    /// Train, sample and evaluate, with a summary at the end
    Run(RunArgs),
    /// Show what is in a run, a checkpoint, a weights file or a distilled set
    Inspect(InspectArgs),
    /// Describe a data set, or check every image of it
    Data(DataArgs),
    /// Measure training and sampling speed on this machine
    Bench(BenchArgs),
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Where to compute: auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Common options")]
    pub device: DeviceChoice,
    /// Precision of matrix products: f32, bf16 (sums in f32), or auto: bf16 where the processor has AMX
    #[arg(long, value_name = "DTYPE", default_value = "auto", help_heading = "Common options")]
    pub dtype: DType,
    /// Folder that holds the data sets [default: $DISTILL_DATA, else the user's cache folder]
    #[arg(long, value_name = "DIR", help_heading = "Common options")]
    pub data_dir: Option<PathBuf>,
    /// Folder under which runs live
    #[arg(long, value_name = "DIR", default_value = "runs", help_heading = "Common options")]
    pub out: PathBuf,
    /// Seed of all randomness
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    #[arg(help_heading = "Common options")]
    pub seed: Option<u64>,
    /// Show what would be done: configuration, parameter counts, FLOPs an image, output paths
    #[arg(long, help_heading = "Common options")]
    pub dry_run: bool,
    /// Print results as JSON
    #[arg(long, help_heading = "Common options")]
    pub json: bool,
    /// Say less: warnings and results only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Common options")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, help_heading = "Common options")]
    pub verbose: bool,
}

impl Common {
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// What `--dtype` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DType {
    Auto,
    F32,
    Bf16,
}

/// Options that choose and change the configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Configuring {
    /// Named settings from configs/ [default: the data set's preset for the device]
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub preset: Option<String>,
    /// TOML file whose keys replace the preset's
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Replace one key, for example --set unet.channels=96; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Configuration")]
    pub set: Vec<String>,
}

impl Configuring {
    /// The keys of `--set`, parsed.
    pub fn overrides(&self) -> Result<Vec<Override>> {
        self.set.iter().map(|text| Override::parse(text)).collect()
    }
}

/// Options of training.
#[derive(Args, Clone, Debug)]
pub struct Training {
    /// shapes (built in), cifar100 or tinyimagenet [default: the configuration's, else shapes]
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<DatasetName>,
    /// Train for about this long, for example 30m: the first steps are timed, then the number of steps is fixed
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_time: Option<Duration>,
    /// Name of the run's folder [default: made of the preset and the configuration]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Start again even if the run has finished, removing what it trained
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub configuring: Configuring,
}

#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    pub training: Training,
    /// Train one of the two networks only
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<Stage>,
    #[command(flatten)]
    pub common: Common,
}

/// One of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    Vae,
    Unet,
}

/// Options of sampling.
#[derive(Args, Clone, Debug)]
pub struct Sampling {
    /// Images per class
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = images_per_class())]
    pub ipc: u32,
    /// DDIM steps [default: the run's sampler.steps]
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Scale of classifier-free guidance; 1 is none [default: the run's sampler.guidance]
    #[arg(long, value_name = "S")]
    pub guidance: Option<f64>,
    /// Noise added on the way: 0 none (DDIM), 1 as DDPM [default: the run's sampler.eta]
    #[arg(long, value_name = "ETA")]
    pub eta: Option<f64>,
}

impl Sampling {
    pub fn overrides(&self) -> Vec<Override> {
        let steps = self.steps.map(|v| Override::new("sampler.steps", i64::from(v), "--steps"));
        let guidance = self.guidance.map(|v| Override::new("sampler.guidance", v, "--guidance"));
        let eta = self.eta.map(|v| Override::new("sampler.eta", v, "--eta"));
        [steps, guidance, eta].into_iter().flatten().collect()
    }
}

#[derive(Args, Clone, Debug)]
pub struct SampleArgs {
    /// Run to sample from [default: the newest finished run]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Sample only these classes: numbers or names, separated by commas [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Name of the distilled set's folder [default: made of the settings]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace a set of the same name
    #[arg(long)]
    pub overwrite: bool,
    /// Replace a sampler.* key, for example --set sampler.batch_size=50
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Options of judging.
#[derive(Args, Clone, Debug)]
pub struct Judging {
    /// Network that is trained on the set: convnet
    #[arg(long, value_name = "NAME", default_value = "convnet")]
    pub student: String,
    /// Recipe: challenge, steps or quick [default: the run's eval.protocol]
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Students trained; the result is their mean [default: the protocol's]
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,
    /// Epochs a student trains; the result then names the protocol as changed
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Test on the real test set, or on the held-out tenth of train (for choosing settings)
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    pub split: EvalSplit,
}

/// Where test images are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EvalSplit {
    Test,
    Heldout,
}

#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// What to train on: a distilled set, real, random-real, or reconstructed (random-real through the run's VAE)
    /// [default: the newest distilled set]
    #[arg(long, value_name = "SET")]
    pub on: Option<String>,
    /// Images per class of random-real and reconstructed
    #[arg(long, value_name = "N", value_parser = images_per_class())]
    pub ipc: Option<u32>,
    /// Data set of real, random-real and reconstructed [default: the newest run's]
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<DatasetName>,
    /// Run whose distilled set is judged [default: the newest]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    #[command(flatten)]
    pub judging: Judging,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub training: Training,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub judging: Judging,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A run's folder, a checkpoint's folder, a .safetensors file or a distilled set
    pub path: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    pub action: DataAction,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DataAction {
    /// Where a data set was found, its size and its classes
    Info(DataActionArgs),
    /// Decode every image; count classes and duplicates, measure mean and std
    Verify(DataActionArgs),
}

#[derive(Args, Clone, Debug)]
pub struct DataActionArgs {
    /// shapes (built in), cifar100 or tinyimagenet
    #[arg(long, value_name = "NAME")]
    pub dataset: DatasetName,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Only work whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Seconds spent on each piece of work
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub configuring: Configuring,
    #[command(flatten)]
    pub common: Common,
}

fn images_per_class() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=100_000)
}

/// A time such as 30m, 1h30m or 90s; a bare number counts seconds. At most a year.
fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    match seconds.map_or_else(|| humantime::parse_duration(text).map_err(|e| e.to_string()), Ok) {
        Ok(time) if !time.is_zero() && time <= YEAR => Ok(time),
        Ok(_) => Err("expected more than no time and at most a year, for example 30m".into()),
        Err(problem) => Err(format!("{problem}; expected a time such as 30m, 1h30m or 90s")),
    }
}

impl Command {
    pub fn common(&self) -> &Common {
        match self {
            Command::Train(args) => &args.common,
            Command::Sample(args) => &args.common,
            Command::Eval(args) => &args.common,
            Command::Run(args) => &args.common,
            Command::Inspect(args) => &args.common,
            Command::Data(DataArgs { action: DataAction::Info(args) | DataAction::Verify(args) }) => &args.common,
            Command::Bench(args) => &args.common,
        }
    }
}
