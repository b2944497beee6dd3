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

/// A number for each of the channels R, G and B.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channels(pub [f32; 3]);

/// "0.49,0.48,0.45"
fn channels(text: &str) -> Result<Channels, String> {
    let numbers = text.split(',').map(|part| part.trim().parse::<f32>().ok()).collect::<Option<Vec<_>>>();
    match numbers.as_deref() {
        Some(&[r, g, b]) if [r, g, b].iter().all(|n| (0.001..=1.0).contains(n)) => Ok(Channels([r, g, b])),
        _ => Err("expected three numbers from 0.001 to 1, for pixels from 0 to 1, as in 0.49,0.48,0.45".into()),
    }
}

/// How another program's file is to be read.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct ReadingArgs {
    /// What the file is [default: guessed from its name]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// What the numbers of a tensor mean [default: bytes for whole numbers; floating-point ones need it]
    #[arg(long, value_name = "MEANING")]
    pub pixels: Option<Pixels>,
    /// Mean of each channel that normalized values were made with [default: the data set's]
    #[arg(long, value_name = "R,G,B", value_parser = channels, requires = "std")]
    pub mean: Option<Channels>,
    /// Standard deviation of each channel that normalized values were made with [default: the data set's]
    #[arg(long, value_name = "R,G,B", value_parser = channels, requires = "mean")]
    pub std: Option<Channels>,
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
