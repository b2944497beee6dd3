//! `.order` in the folder of all runs: a line for each run and set in the order in which they were made. The times of
//! files would name the wrong one as newest once a clock was set back, or files were copied.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{AtPath, Result};

/// Appends `artefact`, a path inside `folder`, as the newest.
pub fn note(folder: &Path, artefact: &Path) -> Result<()> {
    let path = folder.join(".order");
    // A line that a full disk cut off must not swallow this one.
    let cut = fs::read(&path).is_ok_and(|bytes| bytes.last().is_some_and(|&last| last != b'\n'));
    let line = format!("{}{}\n", if cut { "\n" } else { "" }, artefact.display());
    let mut file = File::options().create(true).append(true).open(&path).at(&path)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).at(&path)
}

/// The lines of a folder's `.order`.
pub struct Order(BTreeMap<String, usize>);

impl Order {
    pub fn of(folder: &Path) -> Self {
        let bytes = fs::read(folder.join(".order")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Order(text.lines().enumerate().map(|(number, line)| (line.to_string(), number + 1)).collect())
    }

    /// What the newest of several artefacts has the most of: its line's number, then the time of its `witness` file, which
    /// decides among those without a line (copied from elsewhere). None if there is no witness: it is not whole.
    pub fn age(&self, artefact: &Path, witness: &Path) -> Option<(usize, SystemTime)> {
        let time = fs::metadata(witness).and_then(|m| m.modified()).ok()?;
        Some((self.0.get(&artefact.display().to_string()).copied().unwrap_or(0), time))
    }
}
