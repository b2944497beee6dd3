//! The subcommands, one file each.

mod bench;
mod data;
mod eval;
mod inspect;
mod resolve;
mod run;
mod sample;
mod train;

use std::io::Write;

use serde::Serialize;

use crate::cli::Command;
use crate::error::{Error, Result};
use crate::progress::Console;

/// Runs a command to its end.
pub fn run(command: &Command) -> Result<()> {
    let console = Console::new(command.common().verbosity());
    match command {
        Command::Train(args) => train::run(args, &console),
        Command::Sample(args) => sample::run(args, &console),
        Command::Eval(args) => eval::run(args, &console),
        Command::Run(args) => run::run(args, &console),
        Command::Inspect(args) => inspect::run(args),
        Command::Data(args) => data::run(&args.action),
        Command::Bench(args) => bench::run(args, &console),
    }
}

/// Prints a result to stdout; a reader that closed the pipe early is no error.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Failed(format!("stdout: {e}"))),
        _ => Ok(()),
    }
}

/// A value as an indented JSON document.
fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::Failed(format!("a result cannot be written as JSON: {e}")))
}
