//! `report.html`: all that a run's folder tells, on one page that needs nothing else: no script, no font, no file beside it.
//!
//! Each section is there where its files are. A file that cannot be read is named on the page. The page of equal files has
//! equal bytes.

mod curves;
mod facts;
mod pictures;
mod read;
mod results;
mod svg;

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use crate::distilled::{self, TENSOR_FILE};
use crate::error::{Error, Result};
use crate::fail;
use crate::fs::folder_of;
use crate::run_dir::{RunDir, distilled_sets};
use curves::{Figure, Metrics};
use facts::{Fact, Known};
use pictures::ClassRow;
use read::{Problems, files_below};
use results::{Evaluation, Knowledge, Row};

/// A page, and what it says could not be read.
pub struct Report {
    pub html: String,
    pub problems: Vec<String>,
}

/// All that the template shows.
#[derive(Serialize)]
struct Page {
    name: String,
    dataset: String,
    state: String,
    best: Vec<Fact>,
    facts: Vec<Fact>,
    figures: Vec<Figure>,
    samples: Option<Samples>,
    reconstructions: Option<Picture>,
    drawn: Option<Picture>,
    quality: Vec<Quality>,
    rows: Vec<Row>,
    knowledge: Option<Knowledge>,
    config: Option<String>,
    commands: Vec<String>,
    made_with: Vec<Fact>,
    problems: Vec<String>,
}

/// The grid of a distilled set.
#[derive(Serialize)]
struct Samples {
    set: String,
    method: String,
    images: usize,
    classes: usize,
    rows: Vec<ClassRow>,
}

#[derive(Serialize)]
struct Picture {
    title: String,
    uri: String,
}

/// What a folder of `distill quality` holds.
#[derive(Serialize)]
struct Quality {
    name: String,
    numbers: Vec<(String, String)>,
    nearest: Option<String>,
}

/// The page of a run, finished or not.
pub fn report(run: &RunDir) -> Result<Report> {
    if ![run.config(), run.meta(), run.stage("vae"), run.stage("unet")].iter().any(|path| path.exists()) {
        fail!("{}: expected a run's folder (config.toml, vae/, unet/); `distill runs` lists runs", run.root.display());
    }
    let mut problems = Problems::default();
    let page = page(run, &mut problems);
    let page = Page { problems: problems.0, ..page };
    Ok(Report { html: render(&page)?, problems: page.problems })
}

fn page(run: &RunDir, problems: &mut Problems) -> Page {
    let known = Known::read(run, problems);
    let [vae, unet] = ["vae", "unet"].map(|stage| curves::read(&run.stage(stage).join("metrics.jsonl"), problems));
    // The folder of baselines stands beside the run, also where the run was named `.`.
    let root = run.root.canonicalize().unwrap_or_else(|_| run.root.clone());
    let beside = folder_of(&root).join("eval");
    let results = results::evaluations(&run.eval(), &beside, known.dataset_word(), problems);
    let figures = [("VAE", "vae", &vae), ("UNet", "unet", &unet)];
    let figures = figures.into_iter().flat_map(|(title, stage, m)| curves::figures(title, m, known.batch(stage)));
    let samples = samples(run, problems);
    let drawn = if samples.is_none() { picture(run, "unet", problems) } else { None };
    Page {
        name: RunDir::new(&root).name(),
        dataset: known.dataset_title(),
        state: known.state(run, &vae, &unet),
        best: best(&results, &vae, &unet),
        facts: known.facts(&results),
        figures: figures.collect(),
        samples,
        reconstructions: picture(run, "vae", problems),
        drawn,
        quality: quality(run, problems),
        rows: results::rows(&results),
        knowledge: results::knowledge(&results),
        config: problems.text(&run.config()),
        commands: known.commands(problems.text(&run.log())),
        made_with: known.made_with(),
        problems: Vec::new(),
    }
}

/// The figures that a reader looks for first.
fn best(results: &[Evaluation], vae: &Metrics, unet: &Metrics) -> Vec<Fact> {
    let mut out = Vec::new();
    for result in results::best(results) {
        let ipc = result.ipc.map_or(String::new(), |ipc| format!(", {ipc} images a class"));
        let trial = format!("{}{ipc}, {}, {} images", result.student, result.protocol, result.split);
        let random =
            result.random(results).map_or(String::new(), |r| format!("; random real images: {}", r.accuracy()));
        out.push(Fact::new("accuracy", result.accuracy(), trial + &random));
    }
    let lowest = |metrics: &Metrics, key: &str| {
        metrics.get(key)?.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(step, value)| (value, step))
    };
    let last = |metrics: &Metrics, key: &str| metrics.get(key)?.last().map(|(step, value)| (*value, *step));
    let figures = [
        ("lowest Fréchet distance", lowest(unet, "fd")),
        ("UNet's validation loss", last(unet, "validation_loss")),
        ("VAE's PSNR, dB", last(vae, "validation_psnr")),
    ];
    for (name, found) in figures {
        out.extend(found.map(|(value, step)| Fact::new(name, svg::short(value), format!("step {step}"))));
    }
    out
}

/// The images of the newest distilled set.
fn samples(run: &RunDir, problems: &mut Problems) -> Option<Samples> {
    let folder = problems.note(distilled_sets(&run.root).map(|sets| sets.into_iter().next()))??;
    let reader = problems.note(distilled::open(&folder.join(TENSOR_FILE)))?;
    let listing = &reader.listing;
    let classes = listing.images_per_class().iter().filter(|&&n| n > 0).count();
    let (images, method) = (listing.len(), listing.provenance.method.clone());
    let set = folder.file_name()?.to_string_lossy().into_owned();
    let rows = problems.note(pictures::samples(reader))?;
    Some(Samples { set, method, images, classes, rows })
}

/// The newest picture that a stage drew while it trained.
fn picture(run: &RunDir, stage: &str, problems: &mut Problems) -> Option<Picture> {
    let (step, path) = pictures::newest(&run.samples(), stage)?;
    Some(Picture { title: format!("after step {step}"), uri: pictures::file(&path, problems)? })
}

fn quality(run: &RunDir, problems: &mut Problems) -> Vec<Quality> {
    let mut folders: Vec<_> = ["quality.json", "nearest.png"]
        .iter()
        .flat_map(|name| files_below(&run.eval(), name))
        .map(|path| folder_of(&path).to_path_buf())
        .collect();
    folders.sort();
    folders.dedup();
    let mut one = |folder: &Path| {
        let json = problems.json(&folder.join("quality.json")).unwrap_or(Value::Null);
        Quality {
            name: folder.strip_prefix(run.eval()).unwrap_or(folder).display().to_string(),
            numbers: results::quality(&json),
            nearest: pictures::file(&folder.join("nearest.png"), problems),
        }
    };
    folders.iter().map(|folder| one(folder)).collect()
}

fn render(page: &Page) -> Result<String> {
    // Of its name the library knows that everything is to be escaped that the template does not call safe.
    let name = "page.html";
    let render = || {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_template(name, include_str!("page.html"))?;
        environment.get_template(name)?.render(Serde(page))
    };
    render().map_err(|e: minijinja::Error| Error::Failed(format!("{name}: {e:#}")))
}
