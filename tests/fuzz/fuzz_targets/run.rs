//! What all targets share.

use std::panic;
use std::sync::OnceLock;

use cap::Cap;
use distill_fuzz::Reader;
use tempfile::TempDir;

/// A parser that believes a size in a header ends the process here, which libFuzzer reports.
#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, 1 << 30);

/// The folder that inputs are put into; `scripts/fuzz.sh` clears it away.
static PLACE: OnceLock<TempDir> = OnceLock::new();

/// libFuzzer's own hook ends the process at every panic, also at those of other crates that the program catches. A panic
/// that nobody catches still ends it.
pub fn init() {
    panic::set_hook(Box::new(|info| {
        if !distill::error::is_guarded() {
            eprintln!("{info}");
        }
    }));
}

pub fn run(reader: &Reader, bytes: &[u8]) {
    let place = PLACE.get_or_init(|| tempfile::tempdir().unwrap());
    let _ = (reader.read)(bytes, place.path());
}
