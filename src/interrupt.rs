//! Ctrl-C and SIGTERM: the first asks the work to save itself and stop, the second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::progress::say;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen for signals.
pub fn install() -> Result<()> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say("stopping after this step; once more to stop at once");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Failed(format!("cannot listen for Ctrl-C: {e}")))
}

/// Whether a stop was asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Ends the work with [`Error::Interrupted`] if a stop was asked for.
pub fn check() -> Result<()> {
    if requested() { Err(Error::Interrupted) } else { Ok(()) }
}
