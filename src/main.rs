//! Parses the command line, runs the command, prints the error, sets the exit code.

use std::panic;
use std::process::ExitCode;

use clap::Parser;
use distill::cli::Cli;
use distill::{commands, interrupt};

/// Keeps the pages of freed buffers, which every training step allocates again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    panic::set_hook(Box::new(|info| eprintln!("internal error, please report it: {info}")));
    let run = || interrupt::install().and_then(|()| commands::run(&cli.command));
    match panic::catch_unwind(panic::AssertUnwindSafe(run)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
        Err(_) => ExitCode::FAILURE,
    }
}
