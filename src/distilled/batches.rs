//! Batches of a set that is being drawn: those that are done wait on disk, so that a stop loses one batch at most.
//!
//! ```text
//! plan.json            everything that decides the pixels
//! batch-00000.bin      pixels (n, H, W, 3), then the SHA-256 of the plan, the batch's number and the pixels
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{AtPath, Error, Result};
use crate::fs::write_atomic;

/// The plan's file.
pub const PLAN: &str = "plan.json";
const DIGEST: usize = 32;

/// The batches in a folder.
pub struct Batches {
    folder: PathBuf,
    plan: String,
}

/// What is there of one batch.
pub enum Batch {
    /// Its pixels: (n, H, W, 3).
    Whole(Vec<u8>),
    Missing,
    Damaged,
}

impl Batches {
    /// The batches of `plan` in `folder`. Those of another plan are removed; then the first key that differs is returned.
    pub fn open(folder: &Path, plan: &Map<String, Value>) -> Result<(Self, Option<String>)> {
        let path = folder.join(PLAN);
        let text = serde_json::to_string_pretty(plan).map_err(|e| Error::Failed(format!("{PLAN}: {e}")))?;
        let differs = match fs::read(&path) {
            Err(_) => None,
            Ok(bytes) if bytes == text.as_bytes() => None,
            Ok(bytes) => Some(first_difference(&bytes, plan)),
        };
        if differs.is_some() {
            for entry in fs::read_dir(folder).at(folder)? {
                let path = entry.at(folder)?.path();
                if path.extension().is_some_and(|e| e == "bin") {
                    fs::remove_file(&path).at(&path)?;
                }
            }
        }
        write_atomic(&path, text.as_bytes())?;
        Ok((Batches { folder: folder.into(), plan: text }, differs))
    }

    /// Batch `number`, checked.
    pub fn read(&self, number: usize) -> Result<Batch> {
        let path = self.file(number);
        if !path.exists() {
            return Ok(Batch::Missing);
        }
        let mut bytes = fs::read(&path).at(&path)?;
        let digest = bytes.split_off(bytes.len().saturating_sub(DIGEST));
        Ok(if digest == self.digest(number, &bytes) { Batch::Whole(bytes) } else { Batch::Damaged })
    }

    /// Keeps a batch; it is on disk when this returns.
    pub fn write(&self, number: usize, mut pixels: Vec<u8>) -> Result<()> {
        pixels.extend(self.digest(number, &pixels));
        write_atomic(&self.file(number), &pixels)
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("batch-{number:05}.bin"))
    }

    fn digest(&self, number: usize, pixels: &[u8]) -> [u8; DIGEST] {
        let hash = Sha256::new().chain_update(&self.plan).chain_update((number as u64).to_le_bytes());
        hash.chain_update(pixels).finalize().into()
    }
}

/// The first key that another plan has otherwise.
fn first_difference(other: &[u8], plan: &Map<String, Value>) -> String {
    let other: Map<String, Value> = serde_json::from_slice(other).unwrap_or_default();
    let key = plan.keys().find(|key| plan.get(*key) != other.get(*key));
    key.map_or("format", String::as_str).into()
}
