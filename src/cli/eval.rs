//! Options of `distill eval`, and of judging inside `distill run`.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Args, ValueEnum, ValueHint};

use super::common::{Named, datasets};
use super::sample::images_per_class;
use super::{Common, ReadingArgs};
use crate::data::Dataset;
use crate::eval::{Protocol, StudentKind};

/// Options of judging.
#[derive(Args, Clone, Debug)]
pub struct Judging {
    /// Network that is trained on the set; several, or all: with --compare, a table of students and sets
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "convnet", value_parser = students())]
    student: Vec<String>,
    /// Recipe of training and testing, by its name or as a TOML file of your own [default: the run's eval.protocol]
    #[arg(long, value_name = "NAME", value_parser = protocols(), hide_possible_values = true)]
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

impl Judging {
    /// The students that were named, each once, in the order of their naming.
    pub fn students(&self) -> Vec<StudentKind> {
        let mut students = Vec::new();
        for name in &self.student {
            let named = name.parse().map_or_else(|_| StudentKind::ALL.to_vec(), |kind| vec![kind]);
            students.extend(named.into_iter().filter(|kind| !students.contains(kind)).collect::<Vec<_>>());
        }
        students
    }
}

/// Stands for every student.
const ALL: &str = "all";

/// Where test images are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EvalSplit {
    Test,
    Heldout,
}

#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// What to train on: a distilled set, a folder of images, or another program's file; real, or so many real images a class:
    /// random-real, k-center, herding, mix (as `distill sample --pool` chooses), reconstructed (random-real through the run's
    /// VAE) [default: the newest distilled set]
    #[arg(long, value_name = "SET", value_hint = ValueHint::AnyPath)]
    pub on: Option<String>,
    /// Judge a distilled set beside real images under one protocol, and print a table
    #[arg(long)]
    pub compare: bool,
    /// Rows of that table [default: all that can be had; real if it was judged before]
    #[arg(long, value_name = "ROW,...", value_delimiter = ',', requires = "compare")]
    pub rows: Vec<RowKind>,
    /// Images per class of real images; with --compare, of the distilled set as well [default: that set's, else 10]
    #[arg(long, value_name = "N", value_parser = images_per_class())]
    pub ipc: Option<u32>,
    /// Data set of the real images, and the one that a file stands for [default: the newest run's]
    #[arg(long, value_name = "NAME", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Option<Dataset>,
    /// Run whose distilled set is judged [default: the newest]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run: Option<PathBuf>,
    /// Teacher by which k-center, herding and mix choose, and that labels real images where the protocol has soft labels
    /// [default: the data set's newest under OUT/teachers; to label, with --compare, the distilled set's own]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub teacher: Option<PathBuf>,
    /// Views of each real image that it labels [default: the distilled set's with --compare, else 20]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub views: Option<u32>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    #[command(flatten)]
    pub judging: Judging,
    #[command(flatten)]
    pub common: Common,
}

/// A row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowKind {
    /// Real images drawn at random
    RandomReal,
    /// Real images that cover the others in a teacher's features
    KCenter,
    /// Real images whose mean is near the class's in a teacher's features
    Herding,
    /// Of each cluster of real images that a teacher recognizes, the one that it is surest of: the choice without the model
    Mix,
    /// random-real through the run's VAE
    Reconstructed,
    /// The distilled set
    Distilled,
    /// The whole train split, under the protocol `steps`
    Real,
}

/// A student by name: plain ones, which shells complete, and those with sizes of their own.
pub(super) fn student() -> ValueParser {
    let known = || StudentKind::ALL.iter().map(ToString::to_string).collect();
    Named { parse: |name| name.parse().map(|kind: StudentKind| kind.to_string()), known }.into()
}

/// The same, or all of them.
fn students() -> ValueParser {
    let parse = |name: &str| match name {
        ALL => Ok(ALL.to_string()),
        _ => name.parse().map(|kind: StudentKind| kind.to_string()),
    };
    let known = || StudentKind::ALL.iter().map(ToString::to_string).chain([ALL.to_string()]).collect();
    Named { parse, known }.into()
}

/// Protocols: those with a name, which shells complete, and files, which are read when they are needed.
fn protocols() -> ValueParser {
    let parse = |text: &str| match Protocol::is_path(text) {
        true => Ok(text.to_string()),
        false => Protocol::named(text).map(|protocol| protocol.name),
    };
    Named { parse, known: || Protocol::names().into_iter().map(String::from).collect() }.into()
}
