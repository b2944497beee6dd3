//! `distill run`: train, sample and evaluate in one, beside the same number of random real images.

use std::time::Instant;

use serde::Serialize;

use super::dry_run::dry_run;
use super::eval::{Judge, Source, Subject};
use super::resolve::{resolve, run_dir};
use super::{begin, fetch, print, sample, to_json, train};
use crate::cli::{Common, RunArgs, SampleArgs};
use crate::config::Config;
use crate::data::Split;
use crate::error::Result;
use crate::eval::{Evaluation, PoolSelection};
use crate::progress::{Console, duration};
use crate::usage;

#[derive(Serialize)]
struct Summary {
    run: String,
    distilled: String,
    seconds: f64,
    chance: f64,
    evaluations: Vec<Evaluation>,
}

pub fn run(args: &RunArgs, console: &Console) -> Result<()> {
    let start = Instant::now();
    let flags = args.sampling.overrides();
    let resolved = resolve(&args.training.configuring, args.training.dataset.as_ref(), &flags, &args.common, console)?;
    // One seed for all three steps, also where it came from --set or a file.
    let common = Common { seed: Some(resolved.config.seed), ..args.common.clone() };
    let [student] = args.judging.students()[..] else {
        usage!("--student: `distill run` judges with one student; judge with others by `distill eval --student all`");
    };
    let judge = Judge::new(&args.judging, &resolved.config.eval.protocol, &common)?;
    refuse_soft_labels(&judge)?;
    let dir = run_dir(&resolved, &args.training, &args.common)?;
    if args.common.dry_run {
        let outputs = [&train::outputs(&dir)[..], &[dir.distilled(), dir.eval()]].concat();
        let classes = train::class_count(&resolved.config, &args.common)?;
        return dry_run(&resolved.config, classes, &outputs, &args.common);
    }
    let config = &resolved.config;
    refuse_too_many(args, config, &judge, console)?;
    if train::finished_before(&dir, &args.training)? {
        begin::check_same(&dir, &resolved.config)?;
        console.info(format!("{}: training has finished before", dir.root.display()));
    } else {
        train::train(&resolved, &dir, &args.training, None, &args.common, console)?;
    }
    let sampling = SampleArgs {
        run: Some(dir.root.clone()),
        sampling: args.sampling.clone(),
        budget: None,
        pool: None,
        select: Some(PoolSelection::First), // the same set whatever teachers are there
        teacher: None,
        classes: Vec::new(),
        name: None,
        to: None,
        overwrite: true,
        set: Vec::new(),
        common: common.clone(),
    };
    let set = sample::sample(&dir, &resolved.config, &sampling, console)?;
    let sources = [Source::Distilled(set.distilled.clone().into()), Source::RandomReal(args.sampling.ipc)];
    let mut evaluations = Vec::new();
    for source in sources {
        let subject = Subject { source, folder: dir.eval(), config: config.clone() };
        evaluations.push(judge.judge(&subject, student, &judge.load(&subject, console)?, console)?);
    }
    let classes = evaluations[0].per_class.len();
    let summary = Summary {
        run: dir.root.display().to_string(),
        distilled: set.distilled,
        seconds: start.elapsed().as_secs_f64(),
        chance: 100.0 / classes as f64,
        evaluations,
    };
    if args.common.json { print(&to_json(&summary)?) } else { print(&table(&summary)) }
}

fn refuse_soft_labels(judge: &Judge) -> Result<()> {
    if judge.protocol.soft_labels.is_some() {
        usage!(
            "--protocol {}: it needs soft labels, which `distill run` does not give; train and sample first, then `distill \
             label` and `distill eval`",
            judge.protocol.name
        );
    }
    Ok(())
}

/// Asked before hours of training: are there as many real images to compare with?
fn refuse_too_many(args: &RunArgs, config: &Config, judge: &Judge, console: &Console) -> Result<()> {
    let real = fetch::load(&config.dataset, Split::Train, config.image_size, &args.common, console)?;
    let real = if judge.split() == "heldout" { real.hold_out().0 } else { real };
    real.random_per_class(args.sampling.ipc as usize, 0).map(|_| ())
}

fn table(summary: &Summary) -> String {
    let mut out = format!("{:<14} {:>8} {:>10} {:>8}  protocol\n", "trained on", "images", "accuracy", "spread");
    for e in &summary.evaluations {
        let on = if e.on == summary.distilled { "distilled" } else { &e.on };
        let spread = e.accuracy_std.map_or("-".into(), |std| format!("{std:.2}"));
        out += &format!("{on:<14} {:>8} {:>8.2} % {spread:>8}  {}\n", e.images, e.accuracy_mean, e.protocol);
    }
    out += &format!("{:<14} {:>8} {:>8.2} %\n", "chance", "-", summary.chance);
    out + &format!("{} in {}; look at {}/grid.png", summary.run, duration(summary.seconds), summary.distilled)
}
