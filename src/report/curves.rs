//! The curves of a stage's metrics.jsonl.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::read::Problems;
use super::svg::{Line, chart, short};
use crate::error::Error;

/// A chart with what stands above it.
#[derive(Serialize)]
pub struct Figure {
    pub title: String,
    /// What the lines are, where there are several.
    pub legend: Vec<String>,
    pub svg: String,
}

/// Charts by title, each with its (figure of metrics.jsonl, name of the line). Other figures get a chart each.
const CHARTS: &[(&str, &[(&str, &str)])] = &[
    ("loss", &[("loss", "training"), ("validation_loss", "validation")]),
    ("Fréchet distance", &[("fd", "Fréchet distance")]),
    ("PSNR of reconstructions, dB", &[("validation_psnr", "PSNR")]),
    ("squared error of reconstructions", &[("validation_mse", "validation")]),
    ("gradient norm", &[("gradient_norm", "gradient norm")]),
    ("learning rate", &[("learning_rate", "learning rate")]),
];

/// All figures of a metrics.jsonl, each as (step, value) in order of steps.
pub type Metrics = BTreeMap<String, Vec<(f64, f64)>>;

/// Reads a metrics.jsonl. The last line may be cut off while a process writes it; others that are damaged are noted.
pub fn read(path: &Path, problems: &mut Problems) -> Metrics {
    let mut metrics = Metrics::new();
    let text = problems.text(path).unwrap_or_default();
    for (number, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
        let figures: Option<Map<String, Value>> = serde_json::from_str(line).ok();
        let step = figures.as_ref().and_then(|figures| figures.get("step")?.as_u64());
        let (Some(figures), Some(step)) = (figures, step) else {
            let problem = format!("{}: line {} is not an object with a step", path.display(), number + 1);
            problems.note::<()>(Err(Error::Failed(problem)));
            continue;
        };
        for (name, value) in figures.into_iter().filter(|(name, _)| name != "step") {
            if let Some(value) = value.as_f64() {
                metrics.entry(name).or_default().push((step as f64, value));
            }
        }
    }
    metrics.values_mut().for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    metrics
}

/// The charts of a stage, "VAE" or "UNet", which sees `batch` images a step.
pub fn figures(stage: &str, metrics: &Metrics, batch: Option<u64>) -> Vec<Figure> {
    let known: BTreeSet<&str> = CHARTS.iter().flat_map(|(_, lines)| *lines).map(|(key, _)| *key).collect();
    let others = metrics.keys().filter(|key| !known.contains(key.as_str()));
    let planned = CHARTS.iter().map(|(title, lines)| {
        (title.to_string(), lines.iter().map(|(key, name)| (key.to_string(), name.to_string())).collect::<Vec<_>>())
    });
    let charts = planned.chain(others.map(|key| (key.replace('_', " "), vec![(key.clone(), key.replace('_', " "))])));
    let drawn = charts.filter_map(|(title, lines)| {
        let lines = lines.into_iter().filter_map(|(key, name)| Some(Line { name, points: metrics.get(&key)?.clone() }));
        let lines: Vec<Line> = lines.collect();
        let title = format!("{stage}: {title}");
        // The cosine of the learning rate ends at zero, where a logarithmic scale would show little else.
        let logarithmic = !lines.iter().any(|line| line.name == "learning rate");
        let svg = chart(&escaped(&format!("{title}. {}", words(&lines))), &lines, batch, logarithmic)?;
        let legend = if lines.len() > 1 { lines.into_iter().map(|line| line.name).collect() } else { Vec::new() };
        Some(Figure { title, legend, svg })
    });
    drawn.collect()
}

/// What a chart shows, for those who don't see it.
fn words(lines: &[Line]) -> String {
    let one = |line: &Line| {
        let ((first, from), (last, to)) = (line.points.first()?, line.points.last()?);
        Some(format!("{} from {} at step {first} to {} at step {last}", line.name, short(*from), short(*to)))
    };
    lines.iter().filter_map(one).collect::<Vec<_>>().join("; ")
}

/// Text inside an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
