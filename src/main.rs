//! Parses the command line, runs the command, prints the error, sets the exit code.

use std::ffi::{c_int, c_long};
use std::panic;
use std::process::ExitCode;

use clap::Parser;
use distill::cli::{Cli, Common};
use distill::error::{Error, is_guarded};
use distill::progress::{Console, Verbosity, say};
use distill::{commands, interrupt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Part of mimalloc's stable interface, which the crate `mimalloc` links but does not name.
    safe fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps the pages of freed buffers, which every training step allocates again: to get them from the system, zeroed,
/// would cost a tenth of the time.
fn keep_freed_pages() {
    const PURGE_DELAY: c_int = 15;
    mi_option_set(PURGE_DELAY, -1);
}

/// Makes the main thread one of the kernels' threads: it works instead of waiting for the others.
fn join_pool() {
    // A pool that exists already is as right, if slower.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

fn main() -> ExitCode {
    keep_freed_pages();
    join_pool();
    let cli = Cli::parse();
    panic::set_hook(Box::new(|info| {
        if !is_guarded() {
            say(&format!("internal error, please report it: {info}"));
        }
    }));
    let console = Console::new(cli.command.common().map_or(Verbosity::Normal, Common::verbosity));
    let run = || interrupt::install().and_then(|()| commands::run(&cli.command, &console));
    let fault = |_| Err(Error::Failed("this is a fault of the program; please report the message above".into()));
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(run)).unwrap_or_else(fault);
    console.end_log(&outcome);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
