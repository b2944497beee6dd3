//! Ctrl-C (SIGINT), SIGTERM and SIGHUP: the first asks the work to save itself and stop, the second ends the process at
//! once. Every file is written under a temporary name and renamed, so neither leaves a part of one.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::error::{Error, Result};

/// The signal that asked for a stop; 0 before.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

thread_local! {
    static DEFERRED: Cell<bool> = const { Cell::new(false) };
}

/// Starts to listen for signals. What the caller had set to be ignored stays so: `nohup` does that with SIGHUP.
#[cfg(unix)]
pub fn install() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let mut wanted = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(wanted)
        .map_err(|e| Error::Failed(format!("cannot listen for signals: {e}")))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if SIGNAL.swap(signal, Ordering::SeqCst) != 0 {
                signal_hook::low_level::exit(128 + signal);
            }
            crate::progress::say("stopping after this step; once more to stop at once");
        }
    });
    Ok(())
}

#[cfg(not(unix))]
pub fn install() -> Result<()> {
    Ok(())
}

/// Whether the process was started with this signal ignored, where the system says so (Linux).
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether a stop was asked for.
pub fn requested() -> bool {
    SIGNAL.load(Ordering::SeqCst) != 0
}

/// Ends the work with [`Error::Interrupted`] if a stop was asked for.
pub fn check() -> Result<()> {
    if requested() && !DEFERRED.get() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Work that comes to its end first: on this thread [`check`] lets it go on.
pub fn deferred<T>(work: impl FnOnce() -> T) -> T {
    let before = DEFERRED.replace(true);
    let out = work();
    DEFERRED.set(before);
    out
}

/// The exit code of work that a signal ended, as shells count it: 128 and the signal's number (Ctrl-C 130).
pub fn exit_code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 130, // ended without a signal, which only tests do
        signal => 128 + signal as u8,
    }
}
