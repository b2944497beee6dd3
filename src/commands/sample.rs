//! `distill sample`: a distilled set from a trained run.

use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::budget::images_within;
use super::draw::Drawing;
use super::dry_run::dry_run;
use super::pool::{Choice, Pool};
use super::resolve::check_name;
use super::trained::Trained;
use super::{print, to_json};
use crate::checksums::sha256;
use crate::cli::SampleArgs;
use crate::config::{Config, Layers, Override};
use crate::data::Class;
use crate::diffusion::samplers::SamplerKind;
use crate::distilled::{Listing, Provenance, Staging};
use crate::environment::Environment;
use crate::error::Result;
use crate::progress::{Console, duration};
use crate::run_dir::RunDir;
use crate::stages::{ModelCard, Sampling};
use crate::usage;

/// The key of a plan that has the time limit in seconds.
const BUDGET: &str = "budget";

pub fn run(args: &SampleArgs, console: &Console) -> Result<()> {
    let run = RunDir::open(args.run.as_deref().unwrap_or(&args.common.out))?;
    let set: Vec<Override> = args.set.iter().map(|text| Override::parse(text)).collect::<Result<_>>()?;
    let config = configuration(&run, &set, args)?;
    if args.common.dry_run {
        let classes = ModelCard::read(&run.weights("unet"), "unet")?.classes;
        let chosen = chosen_classes(&args.classes, &classes)?;
        let choice = Choice::of(args, &config, &classes, console)?;
        let name = set_name(args, &sampling_of(args, &config), choice.as_ref(), (&chosen, classes.len()))?;
        return dry_run(&config, classes.len(), &[sets_of(&run, args).join(name)], &args.common);
    }
    let summary = sample(&run, &config, args, console)?;
    if args.common.json {
        return print(&to_json(&summary)?);
    }
    print(&format!(
        "{}: {} images, {} drawn in {} ({:.1} images/s)",
        summary.distilled,
        summary.images,
        summary.drawn,
        duration(summary.seconds),
        summary.images_per_second
    ))
}

/// What sampling ended with.
#[derive(Serialize)]
pub struct Summary {
    pub distilled: String,
    pub images: usize,
    /// Images that this call drew: those of a larger pool, less what an earlier call had drawn.
    pub drawn: usize,
    pub seconds: f64,
    pub images_per_second: f64,
}

/// The run's configuration with other sampler settings on top, and the guidance of this number of images a class alone.
fn configuration(run: &RunDir, set: &[Override], args: &SampleArgs) -> Result<Config> {
    let mut layers = Layers::written(&run.config())?;
    if let Some(other) = set.iter().find(|key| !key.key.starts_with("sampler.")) {
        usage!("{}: only sampler.* keys can change after training", other.source);
    }
    for key in set.iter().chain(&args.sampling.overrides()) {
        layers.set(key)?;
    }
    let mut config = layers.resolve()?;
    config.sampler.guidance = sampling_of(args, &config).guidance.into();
    Ok(config)
}

/// How the images of a set are drawn. A budget is for as many as can be had: it takes the guidance of the most.
fn sampling_of(args: &SampleArgs, config: &Config) -> Sampling {
    let ipc = if args.budget.is_some() { u32::MAX } else { args.sampling.ipc };
    Sampling::of(config, ipc, args.common.seed.unwrap_or(0))
}

/// Samples and writes a distilled set into the run's folder.
pub fn sample(run: &RunDir, config: &Config, args: &SampleArgs, console: &Console) -> Result<Summary> {
    let start = Instant::now();
    let sampling = sampling_of(args, config);
    let trained = Trained::load(run, &args.common)?;
    let choice = Choice::of(args, config, &trained.classes, console)?;
    let classes = chosen_classes(&args.classes, &trained.classes)?;
    let target =
        sets_of(run, args).join(set_name(args, &sampling, choice.as_ref(), (&classes, trained.classes.len()))?);
    let pool = choice.map(|choice| Pool::open(choice, &trained)).transpose()?;
    let staging = Staging::open(&target, args.overwrite)?; // a taken place is refused now, not after minutes of sampling
    if args.to.is_none() {
        console.log_to(&run.log())?;
    }
    let batch_size = config.sampler.batch_size;
    let ipc = match args.budget {
        None => args.sampling.ipc,
        Some(limit) => match begun(&staging, limit, &trained, classes.len()) {
            Some(ipc) => ipc,
            None => images_within((limit, start), &trained.generator(), &sampling, batch_size, &classes)?,
        },
    };
    let of_class = pool.as_ref().map_or(ipc, |pool| pool.choice.images);
    let best = if of_class > ipc { format!(", the best of {of_class},") } else { String::new() };
    console.info(format!(
        "sampling from {}: {ipc} images{best} of each of {} classes, {}, {} steps, guidance {}",
        run.root.display(),
        classes.len(),
        sampling.method,
        sampling.steps,
        sampling.guidance
    ));
    let named: Vec<(u32, u32)> =
        classes.iter().flat_map(|&class| (0..of_class).map(move |index| (class, index))).collect();
    let drawing = Drawing { generator: trained.generator(), sampling, named: &named, batch_size };
    let mut plan = drawing.plan(run)?;
    plan.extend(args.budget.map(|limit| (BUDGET.into(), json!(limit.as_secs_f64()))));
    let (batches, other) = staging.batches(&plan)?;
    if let Some(key) = other {
        console.warn(format!("{}: was begun with another {key}; its images are drawn anew", target.display()));
    }
    let drawn = drawing.draw(&batches, console)?;
    let (all, pixels) = (listing(run, config, &sampling, ipc, &trained, &named), drawing.pixels(&batches, console));
    let (listing, mut pixels): (_, Box<dyn Iterator<Item = _>>) = match &pool {
        Some(pool) => {
            let (kept, pixels) = pool.narrow(all, pixels, ipc, console)?;
            (kept, Box::new(iter::once(Ok(pixels))))
        }
        None => (all, Box::new(pixels)),
    };
    if args.to.is_none() {
        run.note(&target)?; // before the set stands: a line without a set names nothing, a set without a line is not the newest
    }
    staging.finish(&listing, &mut pixels)?;
    Ok(Summary {
        distilled: target.display().to_string(),
        images: listing.len(),
        drawn: drawn.images,
        seconds: drawn.seconds,
        images_per_second: drawn.images as f64 / drawn.seconds,
    })
}

/// Images a class of a set that was begun on this machine within the same budget, which keeps them.
fn begun(staging: &Staging, limit: Duration, trained: &Trained, classes: usize) -> Option<u32> {
    let plan = staging.begun()?;
    let same = |key: &str, value: serde_json::Value| plan.get(key) == Some(&value);
    if !same(BUDGET, json!(limit.as_secs_f64())) || !same("environment", json!(Environment::of(&trained.device))) {
        return None;
    }
    Some(plan.get("images")?.as_u64()? as u32 / classes as u32).filter(|&ipc| ipc > 0)
}

/// What the set lists, images named by (class, index within the class).
fn listing(
    run: &RunDir,
    config: &Config,
    sampling: &Sampling,
    ipc: u32,
    trained: &Trained,
    named: &[(u32, u32)],
) -> Listing {
    let details = json!({
        "run": run.name(), "sampler": sampling.method, "steps": sampling.steps, "guidance": sampling.guidance, "eta": sampling.eta,
        "ipc": ipc, "unet_steps": trained.steps,
        "environment": Environment::of(&trained.device),
    });
    Listing {
        labels: named.iter().map(|&(class, _)| class as u16).collect(),
        indices: named.iter().map(|&(_, index)| index).collect(),
        size: config.image_size,
        classes: Arc::new(trained.classes.clone()),
        soft_labels: None,
        provenance: Provenance {
            dataset: config.dataset.clone(),
            method: format!("sampled from a class-conditional latent diffusion model with {}", sampling.method),
            seed: sampling.seed,
            details: details.as_object().cloned().unwrap_or_default(),
        },
    }
}

/// The numbers of the classes named by number or name; all of them where none is named.
fn chosen_classes(named: &[String], classes: &[Class]) -> Result<Vec<u32>> {
    if named.is_empty() {
        return Ok((0..classes.len() as u32).collect());
    }
    let mut chosen = Vec::new();
    for text in named {
        let by_number = text.parse().ok().filter(|&n: &usize| n < classes.len());
        let found = by_number.or_else(|| classes.iter().position(|c| c.name == *text || c.id == *text));
        match found {
            Some(class) => chosen.push(class as u32),
            None => {
                let near = crate::nearest::nearest(text, classes.iter().map(|c| c.name.as_str()));
                let hint = near.map_or(String::new(), |name| format!("; did you mean {name}?"));
                usage!("--classes {text}: expected a number from 0 to {} or a class name{hint}", classes.len() - 1)
            }
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// Where the set's folder is made.
fn sets_of(run: &RunDir, args: &SampleArgs) -> PathBuf {
    args.to.clone().unwrap_or_else(|| run.distilled())
}

/// The folder of a set: its settings, in words.
fn set_name(
    args: &SampleArgs,
    sampling: &Sampling,
    choice: Option<&Choice>,
    (chosen, all): (&[u32], usize),
) -> Result<PathBuf> {
    if let Some(name) = &args.name {
        check_name("--name", name)?;
        return Ok(name.into());
    }
    let Sampling { method, steps, guidance, eta, seed } = *sampling;
    let length = match args.budget {
        Some(limit) => format!("budget{}s", limit.as_secs_f64()),
        None => format!("ipc{}", args.sampling.ipc),
    };
    let mut name = format!("{length}-guidance{guidance}-steps{steps}");
    if method != SamplerKind::Ddim {
        name += &format!("-{}", method.as_str());
    }
    if let Some(Choice { images, selection, .. }) = choice {
        name += &format!("-pool{images}-{}", selection.as_str());
    }
    if eta != 0.0 {
        name += &format!("-eta{eta}");
    }
    if chosen.len() < all {
        let list = chosen.iter().map(u32::to_string).collect::<Vec<_>>().join("_");
        let few = list.len() <= 40; // a folder's name has a limit
        name += &if few { format!("-classes{list}") } else { format!("-classes{}", &sha256(list.as_bytes())[..8]) };
    }
    Ok(format!("{name}-seed{seed}").into())
}
