//! Options of `distill eval`, and of judging inside `distill run`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Args, ValueEnum, ValueHint};

use super::Common;
use super::common::datasets;
use super::sample::images_per_class;
use crate::data::Dataset;
use crate::eval::{Protocol, StudentKind};

/// Options of judging.
#[derive(Args, Clone, Debug)]
pub struct Judging {
    /// Network that is trained on the set
    #[arg(long, value_name = "NAME", default_value = "convnet", value_parser = students())]
    pub student: StudentKind,
    /// Recipe of training and testing [default: the run's eval.protocol]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Protocol::names()))]
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
    #[arg(long, value_name = "SET", value_hint = ValueHint::AnyPath)]
    pub on: Option<String>,
    /// Images per class of random-real and reconstructed
    #[arg(long, value_name = "N", value_parser = images_per_class())]
    pub ipc: Option<u32>,
    /// Data set of real, random-real and reconstructed [default: the newest run's]
    #[arg(long, value_name = "NAME", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Option<Dataset>,
    /// Run whose distilled set is judged [default: the newest]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run: Option<PathBuf>,
    #[command(flatten)]
    pub judging: Judging,
    #[command(flatten)]
    pub common: Common,
}

fn students() -> ValueParser {
    let names = PossibleValuesParser::new(StudentKind::ALL.map(StudentKind::as_str));
    names.try_map(|name| name.parse::<StudentKind>()).into()
}
