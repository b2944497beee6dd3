//! What config.toml, meta.json and the summaries say of a run.

use serde::Serialize;
use serde_json::Value;

use super::curves::Metrics;
use super::read::Problems;
use super::results::Evaluation;
use super::svg::short;
use crate::data::Dataset;
use crate::error::Error;
use crate::progress::duration;
use crate::run_dir::RunDir;

/// A named value with a note.
#[derive(Serialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
    pub note: String,
}

impl Fact {
    pub fn new(name: &str, value: impl Into<String>, note: impl Into<String>) -> Self {
        Fact { name: name.into(), value: value.into(), note: note.into() }
    }
}

/// What is known of a run; parts that are missing or damaged are null.
pub struct Known {
    config: Option<toml::Table>,
    meta: Value,
    /// By stage, "vae" and "unet": summary.json, and the number of parameters.
    stages: [(&'static str, &'static str, Value, Option<u64>); 2],
}

impl Known {
    pub fn read(run: &RunDir, problems: &mut Problems) -> Self {
        if !run.config().is_file() {
            problems.note::<()>(Err(Error::Failed(format!("{}: is missing", run.config().display()))));
        }
        let config = problems.text(&run.config()).map(|text| text.parse::<toml::Table>());
        let invalid = |e: toml::de::Error| {
            Error::Failed(format!("{}: is not valid TOML: {}", run.config().display(), e.message()))
        };
        let stages = [("vae", "VAE"), ("unet", "UNet")].map(|(stage, title)| {
            let summary = problems.json(&run.summary(stage)).unwrap_or(Value::Null);
            (stage, title, summary, problems.parameters(&run.weights(stage)))
        });
        Known {
            config: config.and_then(|config| problems.note(config.map_err(invalid))),
            meta: problems.json(&run.meta()).unwrap_or(Value::Null),
            stages,
        }
    }

    /// As it stands in files, for example "cifar100".
    pub fn dataset_word(&self) -> Option<&str> {
        self.config.as_ref()?.get("dataset")?.as_str()
    }

    pub fn dataset_title(&self) -> String {
        let named = self.dataset_word().map(|word| word.parse::<Dataset>().map_or_else(|_| word.into(), |d| d.title()));
        named.unwrap_or_else(|| "a data set that is not known".into())
    }

    /// Images a step of a stage.
    pub fn batch(&self, stage: &str) -> Option<u64> {
        let batch = self.config.as_ref()?.get("train")?.get(stage)?.get("batch_size")?.as_integer()?;
        u64::try_from(batch).ok()
    }

    /// How far the run is.
    pub fn state(&self, run: &RunDir, vae: &Metrics, unet: &Metrics) -> String {
        let last =
            |metrics: &Metrics| metrics.values().filter_map(|points| points.last()).map(|p| p.0).fold(0.0, f64::max);
        match (run.weights("vae").is_file(), run.weights("unet").is_file()) {
            (true, true) => "trained".into(),
            (true, false) => format!("UNet in training, step {}", last(unet)),
            (false, _) => format!("VAE in training, step {}", last(vae)),
        }
    }

    pub fn facts(&self, results: &[Evaluation]) -> Vec<Fact> {
        let mut out = Vec::new();
        let (images, classes) = (text(&self.meta["images"]), text(&self.meta["classes"]));
        let size = self.config.as_ref().and_then(|config| config.get("image_size")?.as_integer());
        let size = size.map_or(String::new(), |size| format!(", {size} × {size} pixels"));
        if !images.is_empty() {
            out.push(Fact::new("data", format!("{images} images of {classes} classes{size}"), ""));
        }
        for (_, title, summary, parameters) in &self.stages {
            let parameters = parameters.map(|count| format!("{} parameters", short(count as f64)));
            let seconds = summary["seconds"].as_f64().map(duration);
            let trained =
                seconds.map(|time| format!("{} steps, {} images seen, {time}", summary["steps"], summary["images"]));
            if let Some(value) = parameters.or_else(|| trained.clone()) {
                let note = trained.filter(|trained| *trained != value).unwrap_or_default();
                out.push(Fact::new(title, value, note));
            }
        }
        if !results.is_empty() {
            out.push(Fact::new("evaluations", results.len().to_string(), ""));
        }
        let environment = &self.meta["environment"];
        let machine = [&environment["processor"], &environment["device"], &environment["system"]].map(text);
        let kernels = [&environment["dtype"], &environment["kernels"]].map(text);
        let version = text(&environment["version"]);
        let commit = environment["commit"].as_str().map_or(String::new(), |commit| format!("commit {commit}"));
        out.push(Fact::new("machine", joined(&machine), ""));
        out.push(Fact::new("computed in", joined(&kernels), ""));
        out.push(Fact::new("distill", version, commit));
        out.retain(|fact| !fact.value.is_empty());
        out
    }

    /// The commands that made the run: that of meta.json, then others of the log, each once.
    pub fn commands(&self, log: Option<String>) -> Vec<String> {
        let words: Vec<&str> =
            self.meta["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let quoted: Vec<String> = words.iter().skip(1).map(|word| shell_word(word)).collect();
        let mut out = Vec::new();
        if !words.is_empty() {
            out.push(format!("distill {}", quoted.join(" ")));
        }
        let log = log.unwrap_or_default();
        for command in log.lines().filter_map(|line| Some(line.split_once("Z version ")?.1.split_once(" begins: ")?.1))
        {
            let command = match command.split_once(' ') {
                Some((_, rest)) => format!("distill {rest}"),
                None => command.into(),
            };
            if command != format!("distill {}", words.get(1..).unwrap_or_default().join(" ")) && !out.contains(&command)
            {
                out.push(command);
            }
        }
        out
    }

    /// What the same commands need to come to the same result.
    pub fn made_with(&self) -> Vec<Fact> {
        let seed = self.config.as_ref().and_then(|config| config.get("seed")?.as_integer());
        let facts = [
            Fact::new("seed", seed.map_or(String::new(), |seed| seed.to_string()), ""),
            Fact::new("preset", text(&self.meta["preset"]), ""),
            Fact::new("SHA-256 of the train split", text(&self.meta["data_sha256"]), ""),
            Fact::new("SHA-256 of the VAE's weights", text(&self.stages[0].2["sha256"]), ""),
            Fact::new("SHA-256 of the UNet's weights", text(&self.stages[1].2["sha256"]), ""),
        ];
        facts.into_iter().filter(|fact| !fact.value.is_empty()).collect()
    }
}

/// A string or a number; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn joined(words: &[String]) -> String {
    words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(", ")
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
