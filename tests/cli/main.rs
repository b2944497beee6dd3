//! The binary itself, end to end, on the built-in data set in a tiny configuration.

mod check;
mod documents;
mod errors;
mod exchange;
mod folder;
mod judge;
mod listings;
mod quality;
mod report;
mod resume;
mod sets;
mod teacher;
mod whole_way;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder of its own for one test, and the binary started in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    /// The command `distill` with `args`, split at spaces.
    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.args(args.split_whitespace()).current_dir(self.0.path());
        command.env_remove("DISTILL_DATA").env("XDG_CACHE_HOME", self.path("cache")).env("DISTILL_OFFLINE", "1");
        command
    }

    fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs to success; returns stdout.
    fn ok(&self, args: &str) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "distill {args}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON that a command prints with `--json`.
    fn json(&self, args: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{args} --json"))).unwrap()
    }

    /// Runs to failure with exit code `code`; returns the error, which may list places on further lines.
    fn fails(&self, code: i32, args: &str) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "distill {args}\n{stderr}");
        assert!(!stderr.contains("internal error"), "{stderr}");
        let start = stderr.find("error:").unwrap_or_else(|| panic!("no error in: {stderr}"));
        stderr[start..].to_string()
    }
}

/// `--config` with the tiny configuration.
fn tiny() -> String {
    format!("--config {}", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tiny.toml").display())
}
