//! Finished students, kept as `run-00.json`, `run-01.json`, ... in the folder of an evaluation: it goes on where it was
//! stopped, and more runs cost only what is new.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{RunResult, Trial};
use crate::checksums::sha256;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::fs::write_atomic;
use crate::progress::Console;

/// The finished students of one trial.
pub struct FinishedRuns {
    folder: PathBuf,
    /// Everything that decides a student.
    settings: Value,
}

/// What is in a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    settings: Value,
    result: RunResult,
    /// Of the two above.
    sha256: String,
}

impl FinishedRuns {
    /// Those in `folder`, which must exist. How many runs the protocol asks for, and its name, don't matter.
    pub fn new(folder: &Path, trial: &Trial) -> Result<Self> {
        let mut recipe = serde_json::to_value(trial.protocol).map_err(|e| Error::Failed(format!("protocol: {e}")))?;
        if let Some(recipe) = recipe.as_object_mut() {
            recipe.retain(|key, _| key != "name" && key != "runs");
        }
        let settings = json!({
            "format": 1, "environment": Environment::of(trial.device), "student": trial.student.as_str(), "recipe": recipe,
            "normalization": trial.normalization, "seed": trial.seed, "train": trial.train.sha256(),
            "test": trial.test.sha256(),
        });
        Ok(FinishedRuns { folder: folder.into(), settings })
    }

    /// What student number `run` reached before; none if it is not there, damaged, or of another trial.
    pub(super) fn read(&self, run: u32, console: &Console) -> Option<RunResult> {
        let path = self.file(run);
        let bytes = fs::read(&path).ok()?;
        let kept = serde_json::from_slice::<Kept>(&bytes).ok();
        let whole = kept.filter(|kept| digest(&kept.settings, &kept.result).is_ok_and(|d| d == kept.sha256));
        let again = |what: &str| console.warn(format!("{}: {what}; this student is trained again", path.display()));
        match whole {
            None => again("is damaged"),
            Some(kept) if kept.settings == self.settings => return Some(kept.result),
            Some(kept) => again(&format!("was trained otherwise ({})", self.first_difference(&kept.settings))),
        }
        None
    }

    /// The first of the settings that `other` has otherwise, for example "seed" or "environment.threads".
    fn first_difference(&self, other: &Value) -> String {
        let mut key = String::new();
        let (mut ours, mut theirs) = (&self.settings, other);
        while let Some((name, value)) =
            ours.as_object().and_then(|all| all.iter().find(|(k, v)| theirs.get(k) != Some(v)))
        {
            key += if key.is_empty() { "" } else { "." };
            key += name;
            (ours, theirs) = (value, theirs.get(name).unwrap_or(&Value::Null));
        }
        key
    }

    pub(super) fn write(&self, run: u32, result: &RunResult) -> Result<()> {
        let sha256 = digest(&self.settings, result)?;
        let kept = Kept { settings: self.settings.clone(), result: result.clone(), sha256 };
        let bytes = serde_json::to_vec_pretty(&kept).map_err(not_json)?;
        write_atomic(&self.file(run), &bytes)
    }

    fn file(&self, run: u32) -> PathBuf {
        self.folder.join(format!("run-{run:02}.json"))
    }
}

fn digest(settings: &Value, result: &RunResult) -> Result<String> {
    let bytes = serde_json::to_vec(&(settings, result)).map_err(not_json)?;
    Ok(sha256(&bytes))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::Failed(format!("a student's result cannot be written as JSON: {error}"))
}
