//! metrics.jsonl: one JSON object a line, each with its step.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{AtPath, Result};
use crate::fs::write_atomic;

/// An open metrics file.
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens `dir/metrics.jsonl` to go on after `step`: lines of later steps, from a run that was cut off, are removed.
    pub fn resume(dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        if path.exists() {
            let text = fs::read_to_string(&path).at(&path)?;
            let kept: String = text.lines().filter(|line| step_of(line).is_some_and(|s| s <= step)).fold(
                String::new(),
                |mut out, line| {
                    out.push_str(line);
                    out.push('\n');
                    out
                },
            );
            write_atomic(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).at(&path)?;
        Ok(Metrics { path, file })
    }

    /// Appends one line.
    pub fn write(&mut self, step: u64, figures: &[(&str, f64)]) -> Result<()> {
        let mut object = Map::from_iter([("step".to_string(), Value::from(step))]);
        object.extend(figures.iter().map(|(name, value)| (name.to_string(), Value::from(*value))));
        let line = format!("{}\n", Value::Object(object));
        self.file.write_all(line.as_bytes()).at(&self.path)
    }
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64()
}
