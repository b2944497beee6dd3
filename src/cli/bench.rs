//! Options of `distill bench`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{Common, Configuring};

#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Only work whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Seconds spent on each piece of work
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub seconds: f64,
    /// Images that a network sees at once [default: as configured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Measure nothing; write each work's weights, inputs, output and gradients to DIR/WORK.safetensors, for comparison
    /// with other programs
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub save: Option<PathBuf>,
    #[command(flatten)]
    pub configuring: Configuring,
    #[command(flatten)]
    pub common: Common,
}
