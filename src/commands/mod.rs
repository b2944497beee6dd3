//! The subcommands, one file each.

mod begin;
mod bench;
mod budget;
mod check;
mod completions;
mod data;
mod draw;
mod dry_run;
mod eval;
mod export;
mod fetch;
mod import;
mod inspect;
mod label;
mod man;
mod model_card;
mod pool;
mod presets;
mod quality;
mod report;
mod resolve;
mod reuse;
mod run;
mod runs;
mod sample;
mod sample_quality;
mod teacher;
mod train;
mod trained;

use std::io::Write;

use serde::Serialize;

use crate::cli::{Command, Common, DType};
use crate::device;
use crate::error::{Error, Result};
use crate::ops::cpu::isa::{self, Isa, Precision};
use crate::progress::Console;
use crate::usage;

/// Runs a command to its end.
pub fn run(command: &Command, console: &Console) -> Result<()> {
    if let Some(common) = command.common() {
        choose_kernels(common)?;
    }
    match command {
        Command::Train(args) => train::run(args, console),
        Command::Sample(args) => sample::run(args, console),
        Command::Eval(args) => eval::run(args, console),
        Command::Quality(args) => quality::run(args, console),
        Command::Label(args) => label::run(args, console),
        Command::Teacher(args) => teacher::run(args, console),
        Command::Run(args) => run::run(args, console),
        Command::Inspect(args) => inspect::run(args),
        Command::Export(args) => export::run(args, console),
        Command::Import(args) => import::run(args, console),
        Command::Data(args) => data::run(&args.action, console),
        Command::Bench(args) => bench::run(args, console),
        Command::Check(args) => check::run(args, console),
        Command::Runs(args) => runs::run(args),
        Command::Report(args) => report::run(args),
        Command::Presets(args) => presets::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// The variable that forces a set of CPU kernels.
const ISA: &str = "DISTILL_ISA";

/// Sets the CPU kernels, and with them the precision, for the whole process; a GPU has both precisions.
fn choose_kernels(common: &Common) -> Result<()> {
    let (dtype, on_cpu) = (common.dtype, !common.device.is_gpu());
    device::set_gpu_precision(wanted(dtype));
    let best = |precision| Isa::best(precision).unwrap_or(Isa::Portable);
    let chosen = match (dtype, forced()?) {
        (_, Some(isa)) if on_cpu && dtype != DType::Auto && isa.precision() != wanted(dtype) => {
            usage!("{ISA}={}: these kernels compute in {}; remove --dtype", isa.as_str(), isa.precision())
        }
        (_, Some(isa)) => isa,
        (DType::F32, None) => best(Precision::F32),
        (DType::Auto, None) => Isa::best(Precision::Bf16).unwrap_or(best(Precision::F32)),
        (DType::Bf16, None) => match Isa::best(Precision::Bf16) {
            Some(isa) => isa,
            None if !on_cpu => best(Precision::F32),
            None => usage!(
                "--dtype bf16: this processor has neither AMX nor AVX-512 BF16, one of which bf16 needs; use --dtype \
                 f32 or auto"
            ),
        },
    };
    if !isa::set(chosen) {
        usage!("{ISA}={}: this processor does not have it; `distill --version` lists what it has", chosen.as_str());
    }
    Ok(())
}

fn wanted(dtype: DType) -> Precision {
    if dtype == DType::F32 { Precision::F32 } else { Precision::Bf16 }
}

/// The kernels that the environment names.
fn forced() -> Result<Option<Isa>> {
    match std::env::var(ISA) {
        Ok(name) => match name.parse() {
            Ok(isa) => Ok(Some(isa)),
            Err(()) => usage!("{ISA}={name}: expected one of {}", Isa::ALL.map(Isa::as_str).join(", ")),
        },
        Err(_) => Ok(None),
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
