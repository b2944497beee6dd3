//! Results of evaluations: the table of accuracies, what students know best and worst, and what they mistake.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::read::{Problems, files_below, numbers};
use super::svg::short;
use crate::data::BASELINES;
use crate::error::Error;

/// Classes that are shown at each end, and below how many all are.
const ENDS: usize = 10;

/// The fields of eval.json that the page shows; any program may have written it, and earlier versions wrote fewer.
#[derive(Clone, Debug, Deserialize)]
pub struct Evaluation {
    pub student: String,
    pub protocol: String,
    pub dataset: String,
    pub on: String,
    pub split: String,
    pub accuracy_mean: f64,
    pub accuracy_std: Option<f64>,
    pub ipc: Option<u64>,
    #[serde(default)]
    pub runs: Vec<f64>,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    test_sha256: Option<String>,
    #[serde(default)]
    labelled_by: Option<Value>,
    /// The recipe as it was carried out.
    #[serde(default)]
    protocol_settings: Map<String, Value>,
    #[serde(default)]
    per_class: Vec<Class>,
    #[serde(default)]
    confusion: Vec<Confusion>,
    /// Whether it lies in the folder beside the run, which holds baselines and sets that are no run's.
    #[serde(skip)]
    beside: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Class {
    name: String,
    accuracy: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Confusion {
    name: String,
    predicted_name: String,
    share: f64,
}

impl Evaluation {
    /// Whether the run's model has no part in it.
    pub fn is_baseline(&self) -> bool {
        self.beside || BASELINES.contains(&self.on.as_str())
    }

    /// What the students were trained on, in one word.
    pub fn set(&self) -> String {
        let last = Path::new(&self.on).file_name().map(|name| name.to_string_lossy().into_owned());
        last.unwrap_or_else(|| self.on.clone())
    }

    /// "46.20 ± 0.31 %".
    pub fn accuracy(&self) -> String {
        let spread = self.accuracy_std.map_or(String::new(), |std| format!(" ± {std:.2}"));
        format!("{:.2}{spread} %", self.accuracy_mean)
    }

    /// The same trial with as many random real images.
    pub fn random<'a>(&self, results: &'a [Evaluation]) -> Option<&'a Evaluation> {
        let recipe = |e: &Evaluation| {
            let mut recipe = e.protocol_settings.clone();
            recipe.retain(|key, _| key != "name" && key != "runs");
            recipe
        };
        let teacher =
            |e: &Evaluation| e.labelled_by.as_ref().map(|by| (by["teacher_sha256"].clone(), by["views"].clone()));
        let same = |other: &&Evaluation| {
            other.on == "random-real"
                && (&other.student, &other.split, other.ipc) == (&self.student, &self.split, self.ipc)
                && (other.seed, &other.test_sha256) == (self.seed, &self.test_sha256)
                && (recipe(other), teacher(other)) == (recipe(self), teacher(self))
        };
        results.iter().filter(same).max_by_key(|other| other.runs.len())
    }
}

/// The results in and below the run's folder and the one beside it that are of `dataset`; test results first, then by
/// protocol, student and images a class, the best first.
pub fn evaluations(own: &Path, beside: &Path, dataset: Option<&str>, problems: &mut Problems) -> Vec<Evaluation> {
    let mut out = Vec::new();
    let found = |folder: &Path, beside| files_below(folder, "eval.json").into_iter().map(move |path| (path, beside));
    for (path, beside) in found(own, false).chain(found(beside, true)) {
        let Some(value) = problems.json(&path) else { continue };
        let read = serde_json::from_value::<Evaluation>(value).map(|result| Evaluation { beside, ..result });
        let read = read.map_err(|e| Error::Failed(format!("{}: is no result of an evaluation: {e}", path.display())));
        out.extend(problems.note(read).filter(|result| dataset.is_none_or(|dataset| result.dataset == dataset)));
    }
    out.sort_by(|a, b| {
        let key = |e: &Evaluation| (e.split != "test", e.split.clone(), e.protocol.clone(), e.student.clone(), e.ipc);
        let rest = |e: &Evaluation| (e.on.clone(), e.seed);
        key(a).cmp(&key(b)).then(b.accuracy_mean.total_cmp(&a.accuracy_mean)).then_with(|| rest(a).cmp(&rest(b)))
    });
    out
}

/// One line of the table of accuracies.
#[derive(Serialize)]
pub struct Row {
    pub set: String,
    pub baseline: bool,
    pub student: String,
    pub protocol: String,
    pub ipc: String,
    pub accuracy: String,
    /// Accuracy less that of as many random real images in the same trial.
    pub gain: String,
    pub runs: usize,
    pub split: String,
    pub held_out: bool,
}

pub fn rows(results: &[Evaluation]) -> Vec<Row> {
    let row = |result: &Evaluation| {
        let gain = result
            .random(results)
            .filter(|_| result.on != "random-real")
            .map(|r| result.accuracy_mean - r.accuracy_mean);
        Row {
            set: result.set(),
            baseline: result.is_baseline(),
            student: result.student.clone(),
            protocol: result.protocol.clone(),
            ipc: match result.ipc {
                Some(ipc) => ipc.to_string(),
                None if result.on == "real" => "all".into(),
                None => "varies".into(),
            },
            accuracy: result.accuracy(),
            gain: gain.map_or(String::new(), signed),
            runs: result.runs.len(),
            split: result.split.clone(),
            held_out: result.split != "test",
        }
    };
    results.iter().map(row).collect()
}

fn signed(value: f64) -> String {
    format!("{}{:.2}", if value < 0.0 { "−" } else { "+" }, value.abs())
}

/// The best result of a distilled set for each protocol and split.
pub fn best(results: &[Evaluation]) -> Vec<&Evaluation> {
    let mut best: Vec<&Evaluation> = Vec::new();
    for result in results.iter().filter(|result| !result.is_baseline()) {
        let key = |e: &Evaluation| (e.protocol.clone(), e.split.clone());
        match best.iter_mut().find(|known| key(known) == key(result)) {
            Some(known) if known.accuracy_mean < result.accuracy_mean => *known = result,
            Some(_) => {}
            None => best.push(result),
        }
    }
    best
}

/// What the students of one result know and mistake.
#[derive(Serialize)]
pub struct Knowledge {
    /// Whose students.
    pub of: String,
    /// Tables of (heading, classes).
    pub classes: Vec<(String, Vec<Share>)>,
    pub confusion: Vec<Pair>,
}

#[derive(Serialize)]
pub struct Share {
    pub name: String,
    /// Percent.
    pub percent: String,
}

#[derive(Serialize)]
pub struct Pair {
    pub name: String,
    pub predicted: String,
    pub percent: String,
}

/// Of the best distilled set on the first split there is, or of the best baseline where no set was judged.
pub fn knowledge(results: &[Evaluation]) -> Option<Knowledge> {
    let known = || results.iter().filter(|result| !result.per_class.is_empty());
    let split = &known().next()?.split;
    let of_split = || known().filter(|result| result.split == *split);
    let better = |a: &&Evaluation, b: &&Evaluation| a.accuracy_mean.total_cmp(&b.accuracy_mean);
    let result = of_split().filter(|r| !r.is_baseline()).max_by(better).or_else(|| of_split().max_by(better))?;
    let mut classes: Vec<(&str, f64)> =
        result.per_class.iter().filter_map(|class| Some((class.name.as_str(), class.accuracy?))).collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    let share = |(name, accuracy): &(&str, f64)| Share { name: name.to_string(), percent: format!("{accuracy:.1}") };
    let classes = if classes.len() <= 2 * ENDS {
        vec![("All classes".into(), classes.iter().map(share).collect())]
    } else {
        let (best, worst) = (classes.iter().take(ENDS), classes.iter().rev().take(ENDS));
        vec![("Best".into(), best.map(share).collect()), ("Worst".into(), worst.map(share).collect())]
    };
    let confusion = result.confusion.iter().map(|pair| Pair {
        name: pair.name.clone(),
        predicted: pair.predicted_name.clone(),
        percent: format!("{:.1}", pair.share),
    });
    let of = format!(
        "{} trained on {}, protocol {}, {} images: {}",
        result.student,
        result.set(),
        result.protocol,
        result.split,
        result.accuracy()
    );
    Some(Knowledge { of, classes, confusion: confusion.collect() })
}

/// The numbers of a quality.json, as (name, number).
pub fn quality(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    numbers(value, "", &mut found);
    found.retain(|(name, _)| name != "seconds" && !name.starts_with("environment."));
    found.into_iter().map(|(name, number)| (name.replace('_', " "), short(number))).collect()
}
