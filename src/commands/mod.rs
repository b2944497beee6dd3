//! The subcommands, one file each.

mod begin;
mod bench;
mod completions;
mod data;
mod draw;
mod dry_run;
mod eval;
mod export;
mod fetch;
mod import;
mod inspect;
mod man;
mod model_card;
mod presets;
mod resolve;
mod run;
mod runs;
mod sample;
mod train;

use std::io::Write;

use serde::Serialize;

use crate::cli::{Command, DType};
use crate::error::{Error, Result};
use crate::ops::cpu::products::{self, Products};
use crate::progress::Console;
use crate::usage;

/// Runs a command to its end.
pub fn run(command: &Command, console: &Console) -> Result<()> {
    if let Some(common) = command.common() {
        choose_products(common.dtype)?;
    }
    match command {
        Command::Train(args) => train::run(args, console),
        Command::Sample(args) => sample::run(args, console),
        Command::Eval(args) => eval::run(args, console),
        Command::Run(args) => run::run(args, console),
        Command::Inspect(args) => inspect::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args, console),
        Command::Data(args) => data::run(&args.action, console),
        Command::Bench(args) => bench::run(args, console),
        Command::Runs(args) => runs::run(args),
        Command::Presets(args) => presets::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// Sets the precision of matrix products for the whole process.
fn choose_products(dtype: DType) -> Result<()> {
    let wanted = if dtype == DType::F32 { Products::F32 } else { Products::Bf16 };
    if products::set(wanted) != wanted && dtype == DType::Bf16 {
        usage!("--dtype bf16: this processor has no AMX, which bf16 products need; use --dtype f32 or auto");
    }
    Ok(())
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
