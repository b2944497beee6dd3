//! The one error type. Every message names the subject, what was expected, what was found and the remedy.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Why a command ended early; `main` turns it into the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be carried out as it was typed or configured: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something that was read or computed is not as it must be: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// A data set is in none of the places where it may lie: exit code 1.
    #[error("{0}")]
    NoData(String),
    /// The operating system refused a file operation: exit code 1.
    #[error("{path}: {source}{hint}", path = path.display(), hint = hint(source))]
    Io { path: PathBuf, source: std::io::Error },
    /// A tensor operation failed, which no input should be able to cause but one too large for a GPU: exit code 1.
    #[error("tensor operation failed: {0}{hint}", hint = hint_of_tensor(.0))]
    Tensor(#[from] candle_core::Error),
    /// Ctrl-C, SIGTERM or SIGHUP, after the work so far was saved: exit code 130, 143 or 129.
    #[error("interrupted")]
    Interrupted,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The process's exit code: 1 failure, 2 usage, 128 and the signal's number where one ended the work.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Interrupted => crate::interrupt::exit_code(),
            _ => 1,
        }
    }
}

/// What helps against a refusal of the operating system.
fn hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => {
            "; change its permissions, or choose another place with --out or --data-dir"
        }
        StorageFull | QuotaExceeded => "; free some space, then run the same command again",
        NotFound => "; check the spelling of the path",
        NotADirectory => "; a part of the path is a file, choose another place with --out or --data-dir",
        _ => "",
    }
}

/// What helps where a GPU has too little memory.
pub const LESS_MEMORY: &str = "use a smaller batch_size, in training of VAE or UNet a larger train.vae.accumulate or \
                               train.unet.accumulate, or --device cpu";

/// What helps against an error of a tensor operation, if it is known.
fn hint_of_tensor(error: &candle_core::Error) -> String {
    let full = error.to_string().contains("OUT_OF_MEMORY");
    if full { format!("; the GPU's memory is full: {LESS_MEMORY}") } else { String::new() }
}

/// Attaches the path to an I/O error: `fs::read(path).at(path)?`.
pub trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        // An error of our own that travelled inside of an I/O error is told as it was.
        self.map_err(|source| source.downcast().unwrap_or_else(|source| Error::Io { path: path.to_path_buf(), source }))
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of others that panics on some damaged files where this program owes an error; `None` if it did.
pub fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.ok()
}

/// Whether a panic of this thread is one that [`guard`] waits for, and so nothing to report.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Returns early with [`Error::Usage`], formatted.
#[macro_export]
macro_rules! usage {
    ($($arg:tt)*) => { return Err($crate::error::Error::Usage(format!($($arg)*))) };
}

/// Returns early with [`Error::Failed`], formatted.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::error::Error::Failed(format!($($arg)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cudarc words it inside candle's error.
    #[test]
    fn a_full_gpu_is_told_with_its_remedy() {
        let told = |text: &str| Error::from(candle_core::Error::Msg(text.into())).to_string();
        let full = told("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert!(full.contains("smaller batch_size"), "{full}");
        assert!(!told("shape mismatch in add").contains("batch_size"));
    }
}
