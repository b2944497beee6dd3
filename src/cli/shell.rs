//! Options of `distill completions` and `distill man`, which describe the program to a shell and to `man`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::Shell;

/// Load it at once with `source <(distill completions bash)`, or keep it where the shell looks for completions.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    pub shell: Shell,
}

#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Write distill.1 and a page for each subcommand into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}
