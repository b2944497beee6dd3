//! Options of `distill quality`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::Common;

/// Real images that generated ones are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Against {
    Train,
    Test,
    /// The held-out tenth of train
    Heldout,
}

impl Against {
    pub fn as_str(self) -> &'static str {
        match self {
            Against::Train => "train",
            Against::Test => "test",
            Against::Heldout => "heldout",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct QualityArgs {
    /// Distilled set [default: the newest]
    #[arg(long, value_name = "SET", value_hint = ValueHint::AnyPath)]
    pub on: Option<PathBuf>,
    /// Run whose distilled set is measured [default: the newest]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run: Option<PathBuf>,
    /// Teacher in whose features images are compared [default: the data set's newest under OUT/teachers]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub teacher: Option<PathBuf>,
    /// Weights of Inception-v3 (.safetensors, PyTorch's names), to compare in its features too, with at most 10,000 real
    /// images; 27 images a second on two cores with AVX-512
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub inception: Option<PathBuf>,
    /// Real images to compare with
    #[arg(long, value_name = "SPLIT", default_value = "train")]
    pub against: Against,
    /// k of precision, recall, density and coverage: a ball around an image reaches its k-th nearest neighbour
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub neighbours: u32,
    #[command(flatten)]
    pub common: Common,
}
