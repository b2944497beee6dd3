//! Options of `export`, which writes other programs' formats.

use std::path::PathBuf;

use clap::Args;

use super::Common;
use crate::formats::Format;

#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A distilled folder or its tensor file [default: the newest distilled set]
    pub set: Option<PathBuf>,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    pub format: Format,
    /// Where to write it [default: exports/SET/ in the folder of runs]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub common: Common,
}
