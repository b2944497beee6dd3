//! `distill completions`: a script that lets a shell complete what is typed.

use clap::CommandFactory;

use super::print;
use crate::cli::{Cli, CompletionsArgs};
use crate::error::Result;

pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "distill", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
