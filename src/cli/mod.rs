//! What can be typed: clap types only, one file a subject, and their translation into configuration keys.

mod bench;
mod common;
mod data;
mod eval;
mod inspect;
mod run;
mod sample;
mod train;

pub use bench::BenchArgs;
pub use common::{Common, Configuring, DType};
pub use data::{DataAction, DataActionArgs, DataArgs};
pub use eval::{EvalArgs, EvalSplit, Judging};
pub use inspect::InspectArgs;
pub use run::RunArgs;
pub use sample::{SampleArgs, Sampling};
pub use train::{Stage, TrainArgs, Training};

use clap::{Parser, Subcommand};

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
