//! Options of `distill run`.

use clap::Args;

use super::{Common, Judging, Sampling, Training};

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub training: Training,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub judging: Judging,
    #[command(flatten)]
    pub common: Common,
}
