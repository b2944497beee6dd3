//! Options of `distill check`.

use clap::Args;

use super::Common;

#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Only checks whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    #[command(flatten)]
    pub common: Common,
}
