//! Options of `export` and `import`, which write and read other programs' formats.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Common;
use super::common::datasets;
use crate::data::Dataset;
use crate::formats::{Format, Pixels};

#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A distilled folder or its tensor file [default: the newest distilled set]
    #[arg(value_hint = ValueHint::AnyPath)]
    pub set: Option<PathBuf>,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    pub format: Format,
    /// Where to write it [default: exports/SET/ in the folder of runs]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub to: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub common: Common,
}

/// How another program's file is to be read.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadingArgs {
    /// What the file is [default: guessed from its name]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// What the numbers of a tensor mean [default: bytes for whole numbers; floating-point ones need it]
    #[arg(long, value_name = "MEANING")]
    pub pixels: Option<Pixels>,
    /// PyTorch file of the labels [default: in the file itself, or labels*.pt beside images*.pt]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub labels: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// What to read
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Data set that the images stand for
    #[arg(long, value_name = "NAME", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Dataset,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Name of the distilled set's folder [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace a set of the same name
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub common: Common,
}
