//! Options of `distill bench`.

use clap::Args;

use super::{Common, Configuring};

#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Only work whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Seconds spent on each piece of work
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub configuring: Configuring,
    #[command(flatten)]
    pub common: Common,
}
