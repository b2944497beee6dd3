//! Options of `distill report`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// A run's folder; it may be in training
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Where the page goes [default: RUN/report.html]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out_file: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long)]
    pub json: bool,
}
