//! Options of `distill inspect`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Common;

#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A run's or teacher's folder, that of a run's network or a checkpoint, a .safetensors file or a distilled set
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    #[command(flatten)]
    pub common: Common,
}
