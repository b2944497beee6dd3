//! metrics.jsonl: one JSON object a line, each with its step; and the event file that follows it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::tensorboard::Events;
use crate::error::{AtPath, Result};
use crate::fs::write_atomic;

/// An open metrics file.
pub struct Metrics {
    path: PathBuf,
    file: File,
    text: String,
    events: Option<Events>,
}

impl Metrics {
    /// Starts `dir/metrics.jsonl` with the lines of the checkpoint that training goes on from. Lines of later steps, which
    /// a run that was cut off may have left, are gone. `events`, which holds the same lines, gets what is written.
    pub fn start(dir: &Path, text: String, events: Option<Events>) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        write_atomic(&path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).at(&path)?;
        Ok(Metrics { path, file, text, events })
    }

    /// All lines so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends one line.
    pub fn write(&mut self, step: u64, figures: &[(&str, f64)]) -> Result<()> {
        let mut object = Map::from_iter([("step".to_string(), Value::from(step))]);
        object.extend(figures.iter().map(|(name, value)| (name.to_string(), Value::from(*value))));
        let line = format!("{}\n", Value::Object(object));
        self.text += &line;
        self.file.write_all(line.as_bytes()).at(&self.path)?;
        self.events.as_mut().map_or(Ok(()), |events| events.write(step, figures))
    }

    /// Shows the PNG file at `path` where there is an event file.
    pub fn picture(&mut self, step: u64, path: &Path) -> Result<()> {
        self.events.as_mut().map_or(Ok(()), |events| events.picture(step, path))
    }

    /// Makes the lines last. While a network trains its checkpoints hold them too.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().at(&self.path)
    }
}
