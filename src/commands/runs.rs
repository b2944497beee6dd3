//! `distill runs`: the runs and teachers of a folder, how far they are and what they are worth.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::inspect::read_json;
use super::{print, to_json};
use crate::cli::RunsArgs;
use crate::data::BASELINES;
use crate::error::{AtPath, Error, Result};
use crate::eval::TEACHERS;
use crate::fs::is_locked;
use crate::interrupt;
use crate::progress::duration;
use crate::run_dir::RunDir;

/// What can be told of a run or a teacher without opening a tensor.
#[derive(Serialize)]
struct Listed {
    run: String,
    kind: Kind,
    state: State,
    /// The network in training, or that training will go on with; null where all are trained.
    stage: Option<&'static str>,
    step: u64,
    /// Steps of that network in all, as far as they are known.
    steps: Option<u64>,
    dataset: Option<String>,
    /// Since anything in the folder was written.
    age_seconds: u64,
    /// Size of all files.
    bytes: u64,
    /// The last validation's figures by stage.
    validation: BTreeMap<&'static str, BTreeMap<String, f64>>,
    /// Of the run's distilled sets, the best accuracy for each number of images a class, under each protocol on each
    /// split; of a teacher its own.
    best: Vec<Accuracy>,
    /// What could not be read.
    problems: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Run,
    Teacher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Another process holds its lock.
    Running,
    Finished,
    /// The command that began it goes on, with the same options.
    Interrupted,
    /// A part is missing or cannot be read.
    Damaged,
}

#[derive(Clone, Debug, Serialize)]
struct Accuracy {
    protocol: String,
    split: String,
    /// Percent.
    accuracy: f64,
    student: String,
    ipc: Option<u64>,
}

pub fn run(args: &RunsArgs) -> Result<()> {
    let runs = RunDir::all(&args.out)?.into_iter().map(|run| (Kind::Run, run));
    let teachers = RunDir::teachers(&args.out.join(TEACHERS))?.into_iter().map(|teacher| (Kind::Teacher, teacher));
    let mut runs: Vec<Listed> = runs
        .chain(teachers)
        .collect::<Vec<_>>()
        .par_iter()
        .map(|(kind, dir)| interrupt::check().map(|()| listed(*kind, dir)))
        .collect::<Result<_>>()?;
    runs.sort_by_key(|run| run.age_seconds);
    if args.json {
        return print(&to_json(&runs)?);
    }
    if runs.is_empty() {
        return print(&format!("{}: no run is there; train one with `distill train`", args.out.display()));
    }
    print(&table(&runs))
}

fn listed(kind: Kind, dir: &RunDir) -> Listed {
    let mut problems = Vec::new();
    let stages = kind.stages(dir);
    let config = note(toml_file(&dir.config()), &mut problems);
    let (bytes, written) = size_and_time(&dir.root);
    let unfinished = stages.iter().find(|(_, folder)| !folder.join("final.safetensors").is_file());
    let stage = unfinished.map(|(stage, _)| *stage);
    let checkpoint = unfinished.and_then(|(_, folder)| note(newest_state(folder), &mut problems)).unwrap_or_default();
    let (mut step, mut steps) = (checkpoint["step"].as_u64().unwrap_or(0), checkpoint["total"].as_u64());
    let running = is_locked(&dir.lock());
    let mut validation = BTreeMap::new();
    for (stage_name, folder) in &stages {
        let metrics = folder.join("metrics.jsonl");
        // A pipe in its place would be waited for.
        let metrics = if metrics.is_file() { fs::read_to_string(metrics).unwrap_or_default() } else { String::new() };
        validation.extend(last_validation(&metrics).map(|figures| (*stage_name, figures)));
        if running && stage == Some(*stage_name) {
            step = step.max(last_step(&metrics));
        }
    }
    if let (Some(stage), None) = (stage, steps) {
        let planned = config.as_ref().and_then(|config| config.get("train")?.get(stage)?.get("steps")?.as_integer());
        steps = planned.and_then(|steps| u64::try_from(steps).ok());
    }
    let best = match kind {
        Kind::Run => best(dir, &mut problems),
        Kind::Teacher => of_teacher(dir, &mut problems),
    };
    let state = match stage {
        _ if running => State::Running,
        _ if !problems.is_empty() => State::Damaged,
        None => State::Finished,
        Some(_) => State::Interrupted,
    };
    Listed {
        run: dir.root.display().to_string(),
        kind,
        state,
        stage,
        step,
        steps,
        dataset: config.and_then(|config| Some(config.get("dataset")?.as_str()?.to_string())),
        age_seconds: SystemTime::now().duration_since(written).map_or(0, |age| age.as_secs()),
        bytes,
        validation,
        best,
        problems,
    }
}

/// The value, or none and a note of what is wrong.
fn note<T>(found: Result<T>, problems: &mut Vec<String>) -> Option<T> {
    found.map_err(|problem| problems.push(problem.to_string())).ok()
}

/// The state.json of a stage's newest checkpoint; null where there is none.
fn newest_state(stage: &Path) -> Result<Value> {
    let entries = fs::read_dir(stage).into_iter().flatten().flatten();
    let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let newest = entries.map(|entry| entry.path()).filter(|path| step(path).is_some()).max_by_key(step);
    newest.map_or(Ok(Value::Null), |folder| read_json(&folder.join("state.json")))
}

fn toml_file(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).at(path)?;
    text.parse()
        .map_err(|e: toml::de::Error| Error::Failed(format!("{}: is not valid TOML: {}", path.display(), e.message())))
}

/// Bytes of all files below `folder`, and when the last one was written. A file that vanishes meanwhile does not count.
fn size_and_time(folder: &Path) -> (u64, SystemTime) {
    let mut found = (0, SystemTime::UNIX_EPOCH);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (bytes, time) = match metadata.is_dir() {
            true => size_and_time(&entry.path()),
            false => (metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
        };
        found = (found.0 + bytes, found.1.max(time));
    }
    found
}

/// The figures of the last line of metrics.jsonl that has any of a validation.
fn last_validation(metrics: &str) -> Option<BTreeMap<String, f64>> {
    let line = metrics.lines().rev().find(|line| line.contains("\"validation_"))?;
    let figures: BTreeMap<String, Value> = serde_json::from_str(line).ok()?;
    let named = |(key, value): (String, Value)| Some((key.strip_prefix("validation_")?.to_string(), value.as_f64()?));
    Some(figures.into_iter().filter_map(named).collect())
}

fn last_step(metrics: &str) -> u64 {
    let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
    metrics.lines().rev().find_map(step).unwrap_or(0)
}

/// The best accuracy of a distilled set for each number of images a class, under each protocol on each split.
fn best(dir: &RunDir, problems: &mut Vec<String>) -> Vec<Accuracy> {
    let mut best: BTreeMap<(String, String, Option<u64>), Accuracy> = BTreeMap::new();
    for entry in fs::read_dir(dir.eval()).into_iter().flatten().flatten() {
        let path = entry.path().join("eval.json");
        if !path.is_file() {
            continue; // not finished yet
        }
        let Some(result) = note(read_json(&path), problems) else { continue };
        let text = |key: &str| result[key].as_str().map(str::to_string);
        let found = (text("protocol"), text("split"), text("student"), text("on"), result["accuracy_mean"].as_f64());
        let (Some(protocol), Some(split), Some(student), Some(on), Some(accuracy)) = found else {
            problems.push(format!("{}: is no result of an evaluation", path.display()));
            continue;
        };
        let ipc = result["ipc"].as_u64();
        let key = (protocol.clone(), split.clone(), ipc);
        if !BASELINES.contains(&on.as_str()) && best.get(&key).is_none_or(|known| known.accuracy < accuracy) {
            best.insert(key, Accuracy { protocol, split, accuracy, student, ipc });
        }
    }
    best.into_values().collect()
}

/// A finished teacher's accuracy on the test split, or on the held-out tenth that it has not seen.
fn of_teacher(dir: &RunDir, problems: &mut Vec<String>) -> Vec<Accuracy> {
    let summary = dir.root.join("summary.json");
    let summary = summary.is_file().then(|| note(read_json(&summary), problems)).flatten().unwrap_or_default();
    let splits = [("test", "test_accuracy"), ("heldout", "held_out_accuracy")];
    let found = splits.into_iter().find_map(|(split, key)| Some((split.into(), summary[key].as_f64()?)));
    let teacher = |(split, accuracy)| Accuracy {
        protocol: "teacher".into(),
        split,
        accuracy,
        student: "teacher".into(),
        ipc: None,
    };
    found.map(teacher).into_iter().collect()
}

fn table(runs: &[Listed]) -> String {
    let width = runs.iter().map(|run| run.run.chars().count()).max().unwrap_or(0);
    let mut out = format!(
        "{:<width$}  {:<28} {:>8} {:>10}  {:<14} {:<24} {}",
        "run", "state", "age", "size", "data set", "validation", "best accuracy"
    );
    for run in runs {
        let state = match (run.state, run.stage) {
            (State::Running | State::Interrupted, Some(stage)) => {
                let steps = run.steps.map_or("?".into(), |steps| steps.to_string());
                format!("{}, {stage} {}/{steps}", run.state.word(), run.step)
            }
            (state, _) => state.word().into(),
        };
        out += &format!(
            "\n{:<width$}  {state:<28} {:>8} {:>6.1} MiB  {:<14} {:<24} {}",
            run.run,
            duration(run.age_seconds as f64),
            run.bytes as f64 / 1048576.0,
            run.dataset.as_deref().unwrap_or("-"),
            validation(run),
            accuracies(run)
        );
        run.problems.iter().for_each(|problem| out += &format!("\n{:<width$}  {problem}", ""));
    }
    out
}

impl Kind {
    /// The networks and their folders, in order of training.
    fn stages(self, dir: &RunDir) -> Vec<(&'static str, PathBuf)> {
        match self {
            Kind::Run => ["vae", "unet"].map(|stage| (stage, dir.stage(stage))).into(),
            Kind::Teacher => vec![("teacher", dir.root.clone())],
        }
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Finished => "finished",
            State::Interrupted => "interrupted",
            State::Damaged => "damaged",
        }
    }
}

fn validation(run: &Listed) -> String {
    let figure = |stage: &str, name: &str| run.validation.get(stage)?.get(name).copied();
    let psnr = figure("vae", "psnr").map(|psnr| format!("PSNR {psnr:.1} dB"));
    let loss = figure("unet", "loss").map(|loss| format!("loss {loss:.4}"));
    let of_teacher = figure("teacher", "loss").map(|loss| format!("loss {loss:.4}"));
    let words: Vec<String> = [psnr, loss, of_teacher].into_iter().flatten().collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn accuracies(run: &Listed) -> String {
    let one = |best: &Accuracy| {
        let ipc = best.ipc.map_or(String::new(), |ipc| format!(", IPC {ipc}"));
        let split = if best.split == "test" { String::new() } else { format!(", {}", best.split) };
        format!("{:.2} % ({}{ipc}{split})", best.accuracy, best.protocol)
    };
    if run.best.is_empty() { "-".into() } else { run.best.iter().map(one).collect::<Vec<_>>().join("; ") }
}
