//! Reading what a run left, where any file may be missing or damaged.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{AtPath, Error, Result};

/// How deep below a folder of evaluations results are looked for.
const DEPTH: usize = 4;

/// What could not be read on the way.
#[derive(Default)]
pub struct Problems(pub Vec<String>);

impl Problems {
    /// The value, or none and a note of what is wrong.
    pub fn note<T>(&mut self, found: Result<T>) -> Option<T> {
        found.map_err(|problem| self.0.push(problem.to_string())).ok()
    }

    /// The bytes of a file; none, without a note, where there is none.
    pub fn bytes(&mut self, path: &Path) -> Option<Vec<u8>> {
        // A pipe in its place would be waited for.
        if path.is_file() { self.note(fs::read(path).at(path)) } else { None }
    }

    pub fn text(&mut self, path: &Path) -> Option<String> {
        let text = self.bytes(path).map(String::from_utf8)?;
        self.note(text.map_err(|_| Error::Failed(format!("{}: is not text in UTF-8", path.display()))))
    }

    pub fn json(&mut self, path: &Path) -> Option<Value> {
        let value = serde_json::from_slice(&self.bytes(path)?);
        self.note(value.map_err(|e| Error::Failed(format!("{}: is not valid JSON: {e}", path.display()))))
    }

    /// The number of values in a .safetensors file, by its header alone.
    pub fn parameters(&mut self, path: &Path) -> Option<u64> {
        if !path.is_file() {
            return None;
        }
        let count = count_values(path);
        self.note(count.map_err(|e| Error::Failed(format!("{}: is no whole safetensors file: {e}", path.display()))))
    }
}

fn count_values(path: &Path) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length).min(file.metadata()?.len());
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&header)?;
    let values = |tensor: &Value| {
        let shape = tensor.get("shape")?.as_array()?;
        shape.iter().try_fold(1, |product: u64, side| product.checked_mul(side.as_u64()?))
    };
    Ok(header.values().filter_map(values).fold(0, u64::saturating_add))
}

/// The files called `name` below `folder`, in order of their paths.
pub fn files_below(folder: &Path, name: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, name: &str, depth: usize, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth < DEPTH {
                collect(&path, name, depth + 1, out);
            } else if path.is_file() && path.file_name().is_some_and(|found| found == name) {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    collect(folder, name, 0, &mut out);
    out.sort();
    out
}

/// All numbers of a JSON document as (name, number), nested names joined by dots; lists are left out.
pub fn numbers(value: &Value, name: &str, out: &mut Vec<(String, f64)>) {
    if let Some(number) = value.as_f64() {
        out.push((name.to_string(), number));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        numbers(value, &name, out);
    }
}
