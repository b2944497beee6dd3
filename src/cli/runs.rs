//! Options of `distill runs`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Args, Clone, Debug)]
pub struct RunsArgs {
    /// Folder under which runs live
    #[arg(long, value_name = "DIR", default_value = "runs", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Print results as JSON
    #[arg(long)]
    pub json: bool,
}
