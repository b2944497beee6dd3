//! What can be typed: clap types only, one file a subject, and their translation into configuration keys.

mod bench;
mod check;
mod common;
mod data;
mod eval;
mod exchange;
mod inspect;
mod label;
mod presets;
mod quality;
mod report;
mod run;
mod runs;
mod sample;
mod shell;
mod teacher;
mod train;

pub use bench::BenchArgs;
pub use check::CheckArgs;
pub use common::{Common, Configuring, DType};
pub use data::{DataAction, DataActionArgs, DataArgs, FetchArgs};
pub use eval::{EvalArgs, EvalSplit, Judging, RowKind};
pub use exchange::{ExportArgs, ImportArgs, ReadingArgs};
pub use inspect::InspectArgs;
pub use label::{LabelArgs, VIEWS};
pub use presets::PresetsArgs;
pub use quality::{Against, QualityArgs};
pub use report::ReportArgs;
pub use run::RunArgs;
pub use runs::RunsArgs;
pub use sample::{SampleArgs, Sampling};
pub use shell::{CompletionsArgs, ManArgs};
pub use teacher::TeacherArgs;
pub use train::{Stage, TrainArgs, Training};

use clap::{Parser, Subcommand};

use crate::environment::long_version;

/// Distil a data set into a few generated images per class, and measure what they are worth.
///
/// A VAE and a class-conditional latent diffusion model learn the data set; DDIM or DPM-Solver++ samples a few images a class;
/// students trained on these are tested on real images.
#[derive(Debug, Parser)]
#[command(version, long_version = long_version(), arg_required_else_help = true)]
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
    /// Train a classifier on the real train split, which then judges and labels other sets
    Teacher(TeacherArgs),
    /// Compare a distilled set's images with real ones in a teacher's features
    Quality(QualityArgs),
    /// Add a teacher's soft labels to a distilled set
    Label(LabelArgs),
    /// Train, sample and evaluate, with a summary at the end
    Run(RunArgs),
    /// Show what is in a run, a checkpoint, a weights file or a distilled set
    Inspect(InspectArgs),
    /// Write a distilled set in another program's format
    Export(ExportArgs),
    /// Turn another program's file into a distilled set
    Import(ImportArgs),
    /// List runs and teachers: how far they are, their size and their best figures
    Runs(RunsArgs),
    /// Write one HTML page about a run: curves, images, accuracies, configuration
    Report(ReportArgs),
    /// List the presets, print one, or describe every key of the configuration
    Presets(PresetsArgs),
    /// Describe a data set, check every image of it, or fetch it
    Data(DataArgs),
    /// Measure training and sampling speed on this machine
    Bench(BenchArgs),
    /// Check that this machine's device computes what it should: every op, the optimizers, ten steps of each network
    ///
    /// Ops and their gradients are compared with plain loops in double precision and, at the networks' sizes, with the CPU's
    /// portable kernels in f32. Exit code 1 if a check failed.
    Check(CheckArgs),
    /// Print a script that lets a shell complete commands, options and values
    Completions(CompletionsArgs),
    /// Print the manual page, or write a page for each command
    Man(ManArgs),
}

impl Command {
    /// The options of every command that works on data or runs.
    pub fn common(&self) -> Option<&Common> {
        match self {
            Command::Train(args) => Some(&args.common),
            Command::Sample(args) => Some(&args.common),
            Command::Eval(args) => Some(&args.common),
            Command::Teacher(args) => Some(&args.common),
            Command::Quality(args) => Some(&args.common),
            Command::Label(args) => Some(&args.common),
            Command::Run(args) => Some(&args.common),
            Command::Inspect(args) => Some(&args.common),
            Command::Export(args) => Some(&args.common),
            Command::Import(args) => Some(&args.common),
            Command::Data(DataArgs { action: DataAction::Info(args) | DataAction::Verify(args) }) => Some(&args.common),
            Command::Data(DataArgs { action: DataAction::Fetch(args) }) => Some(&args.common),
            Command::Bench(args) => Some(&args.common),
            Command::Check(args) => Some(&args.common),
            Command::Runs(_) | Command::Report(_) | Command::Presets(_) | Command::Completions(_) | Command::Man(_) => {
                None
            }
        }
    }
}
