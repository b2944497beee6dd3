//! Finished students, where every protocol with the same recipe finds them: an evaluation goes on where it was stopped,
//! more runs cost only what is new, and so does another protocol that differs in name and number of runs alone.
//!
//! ```text
//! HASH/run-00.json    a student each; HASH stands for everything that decides it but the run's number
//! HASH/.lock          held by the process that trains there
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{RunResult, Trial};
use crate::checksums::sha256;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::fs::{lock, make_folder, write_atomic};
use crate::progress::Console;

/// Raised whenever a change makes students of equal settings end otherwise.
const REVISION: u32 = 2;

/// The finished students of one trial, which no other process trains as long as this lives.
pub struct FinishedRuns {
    folder: PathBuf,
    /// Everything that decides a student but its number.
    settings: Value,
    protocol: String,
    protocol_sha256: String,
    _lock: File,
}

/// What is in a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The protocol that it was trained for; others may use it too.
    protocol: String,
    protocol_sha256: String,
    run: u32,
    settings: Value,
    result: RunResult,
    /// Of all of the above.
    sha256: String,
}

impl FinishedRuns {
    /// Those below `folder`, which is made where it is missing. How many runs the protocol asks for, and its name, don't
    /// matter. An error if another process trains students of this trial.
    pub fn open(folder: &Path, trial: &Trial) -> Result<Self> {
        let protocol = trial.protocol.at(trial.train.images.size)?;
        let mut recipe = serde_json::to_value(&protocol).map_err(|e| Error::Failed(format!("protocol: {e}")))?;
        if let Some(recipe) = recipe.as_object_mut() {
            recipe.retain(|key, _| key != "name" && key != "runs");
        }
        // Another commit's students count as long as the revision is the same; each names its own.
        let environment = Environment { commit: None, ..Environment::of(trial.device) };
        let settings = json!({
            "revision": REVISION, "environment": environment, "student": trial.student.to_string(), "recipe": recipe,
            "normalization": trial.normalization, "seed": trial.seed, "train_sha256": trial.train_sha256(),
            "test_sha256": trial.test.sha256(),
        });
        let hash = sha256(&serde_json::to_vec(&settings).map_err(not_json)?);
        let folder = folder.join(&hash[..32]);
        make_folder(&folder)?;
        let lock = lock(&folder.join(".lock"), "is training these students")?;
        let protocol_sha256 = protocol.sha256()?;
        Ok(FinishedRuns { folder, settings, protocol: protocol.name, protocol_sha256, _lock: lock })
    }

    /// What student number `run` reached before; none if it is not there or damaged.
    pub(super) fn read(&self, run: u32, console: &Console) -> Option<RunResult> {
        let path = self.file(run);
        let bytes = fs::read(&path).ok()?;
        let kept = serde_json::from_slice::<Kept>(&bytes).ok();
        let whole = |kept: &Kept| kept.digest().is_ok_and(|digest| digest == kept.sha256);
        match kept.filter(|kept| whole(kept) && kept.settings == self.settings && kept.run == run) {
            Some(kept) => Some(kept.result),
            None => {
                console.warn(format!("{}: is damaged; this student is trained again", path.display()));
                None
            }
        }
    }

    pub(super) fn write(&self, run: u32, result: &RunResult) -> Result<()> {
        let mut kept = Kept {
            protocol: self.protocol.clone(),
            protocol_sha256: self.protocol_sha256.clone(),
            run,
            settings: self.settings.clone(),
            result: result.clone(),
            sha256: String::new(),
        };
        kept.sha256 = kept.digest()?;
        write_atomic(&self.file(run), &serde_json::to_vec_pretty(&kept).map_err(not_json)?)
    }

    /// The file of student number `run`.
    pub fn file(&self, run: u32) -> PathBuf {
        self.folder.join(format!("run-{run:02}.json"))
    }
}

impl Kept {
    fn digest(&self) -> Result<String> {
        let Kept { protocol, protocol_sha256, run, settings, result, .. } = self;
        let bytes = serde_json::to_vec(&(protocol, protocol_sha256, run, settings, result)).map_err(not_json)?;
        Ok(sha256(&bytes))
    }
}

fn not_json(error: serde_json::Error) -> Error {
    Error::Failed(format!("a student's result cannot be written as JSON: {error}"))
}
