//! `distill teacher`: a classifier trained on the real train split.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::resolve::check_name;
use super::{fetch, print, to_json};
use crate::checksums::sha256;
use crate::cli::TeacherArgs;
use crate::config::{Layers, Override, default_preset};
use crate::data::{self, Dataset, Split};
use crate::environment::Environment;
use crate::error::{AtPath, Error, Result};
use crate::eval::{Recipe, TEACHERS, Teacher, TeacherCard, TeacherTask, write_teacher};
use crate::fs::{clear_unfinished, lock, make_folder, write_atomic};
use crate::nn::{Params, count};
use crate::progress::{Console, duration};
use crate::rng::Rng;
use crate::train::{Checkpoint, FORMAT_VERSION, Intervals, Keep, Trainer};
use crate::{order, usage};

/// config.toml: everything that decides the weights, times apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    dataset: Dataset,
    image_size: usize,
    seed: u64,
    hold_out: bool,
    recipe: Recipe,
}

impl Settings {
    fn of(args: &TeacherArgs) -> Result<Self> {
        let mut recipe = Recipe::named(&args.recipe)?;
        for text in &args.set {
            let Override { key, value, source } = Override::parse(text)?;
            recipe = recipe.with(&key, value, &source)?;
        }
        recipe.arch = args.arch.clone().unwrap_or(recipe.arch);
        recipe.epochs = args.epochs.unwrap_or(recipe.epochs);
        recipe.check()?;
        let preset = Layers::preset(default_preset(&args.dataset, false))?.resolve()?;
        let image_size = args.image_size.unwrap_or(preset.image_size);
        args.dataset.check_size(image_size)?;
        let seed = args.common.seed.unwrap_or(0);
        Ok(Settings { dataset: args.dataset.clone(), image_size, seed, hold_out: args.hold_out, recipe })
    }

    fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Failed(format!("the teacher's settings: {e}")))
    }

    fn folder(&self, args: &TeacherArgs) -> Result<PathBuf> {
        let name = match &args.name {
            Some(name) => {
                check_name("--name", name)?;
                name.clone()
            }
            None => {
                let stem = self.dataset.file_stem(self.image_size);
                format!("{stem}-{}-{}", self.recipe.arch, &sha256(self.to_toml()?.as_bytes())[..8])
            }
        };
        Ok(args.common.out.join(TEACHERS).join(name))
    }
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    teacher: String,
    held_out_accuracy: f64,
    test_accuracy: Option<f64>,
    steps: u64,
}

pub fn run(args: &TeacherArgs, console: &Console) -> Result<()> {
    let settings = Settings::of(args)?;
    let folder = settings.folder(args)?;
    let device = args.common.device.open()?;
    if args.common.dry_run {
        return dry_run(&settings, &folder, args);
    }
    make_folder(&folder)?;
    let _lock = lock(&folder.join(".lock"), "is training this teacher")?;
    prepare(&settings, &folder, args)?;
    console.log_to(&folder.join("log.txt"))?;
    let card = train(&settings, &folder, args, &device, console)?;
    let report = Report {
        teacher: folder.display().to_string(),
        held_out_accuracy: card.held_out_accuracy,
        test_accuracy: card.test_accuracy,
        steps: card.steps,
    };
    match (args.common.json, report.test_accuracy) {
        (true, _) => print(&to_json(&report)?),
        (_, Some(accuracy)) => print(&format!("{}: {accuracy:.2} % of the test split", report.teacher)),
        _ => print(&format!("{}: {:.2} % of the held-out tenth", report.teacher, report.held_out_accuracy)),
    }
}

fn dry_run(settings: &Settings, folder: &Path, args: &TeacherArgs) -> Result<()> {
    let classes = data::class_count(&settings.dataset, settings.image_size, args.common.data_dir.as_deref())?;
    let parameters = count(|vb| settings.recipe.build(settings.image_size, classes, vb))?;
    match args.common.json {
        true => print(&to_json(&serde_json::json!({
            "teacher": folder, "settings": settings, "classes": classes, "parameters": parameters
        }))?),
        false => print(&format!(
            "{}\n# {classes} classes, {parameters} parameters\n# {}",
            settings.to_toml()?.trim_end(),
            folder.display()
        )),
    }
}

/// Makes room for a teacher, or checks that the one that has begun in `folder` is of the same settings.
fn prepare(settings: &Settings, folder: &Path, args: &TeacherArgs) -> Result<()> {
    let config = folder.join("config.toml");
    if args.overwrite {
        for entry in fs::read_dir(folder).at(folder)? {
            let path = entry.at(folder)?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some(name) if name.starts_with("step-") => fs::remove_dir_all(&path).at(&path)?,
                Some("final.safetensors" | "summary.json" | "metrics.jsonl") => fs::remove_file(&path).at(&path)?,
                _ => {}
            }
        }
    } else if config.is_file() {
        let text = fs::read_to_string(&config).at(&config)?;
        if toml::from_str::<Settings>(&text).ok().as_ref() != Some(settings) {
            usage!(
                "{}: this teacher was started with other settings; choose another --name, or --overwrite to start again",
                folder.display()
            );
        }
        if Teacher::is_in(folder) {
            Checkpoint::remove_all(folder)?; // that a process which was killed left
            usage!(
                "{}: this teacher has finished; start again with --overwrite, or choose another --name",
                folder.display()
            );
        }
    }
    clear_unfinished(folder)?;
    write_atomic(&config, settings.to_toml()?.as_bytes())
}

fn train(
    settings: &Settings,
    folder: &Path,
    args: &TeacherArgs,
    device: &Device,
    console: &Console,
) -> Result<TeacherCard> {
    let start = Instant::now();
    let Settings { dataset, image_size, seed, hold_out, recipe } = settings;
    let load = |split| fetch::load(dataset, split, *image_size, &args.common, console);
    let all = load(Split::Train)?;
    let held = all.subset(&all.held_out());
    let images = if *hold_out { all.hold_out().0 } else { all };
    let data_sha256 = images.sha256();
    write_meta(folder, &data_sha256, images.len(), device)?;
    let params = || Params::new(Rng::stream(*seed, "teacher", 0, 0).next_u64(), device);
    let (params, ema) = (params(), params());
    let task = TeacherTask::new(recipe, (&params, &ema), (&images, &held), dataset.normalization(), *seed, device)?;
    let trainer = Trainer {
        name: "teacher",
        params: &params,
        ema: &ema,
        config: &recipe.stage(images.len()),
        section: "",
        intervals: Intervals {
            log: recipe.log_every,
            checkpoint: recipe.checkpoint_every,
            sample: recipe.validate_every,
        },
        keep: Keep { last: args.keep_last as usize, best: false },
        dir: folder.to_path_buf(),
        pictures: folder.to_path_buf(),
        tensorboard: None,
        deadline: args.max_time.map(|limit| start + limit),
        console,
    };
    console.info(format!("{}: {} with {} parameters on {dataset}", folder.display(), recipe.arch, params.count()));
    let finished = trainer.run(&task)?;
    let held_out_accuracy = task.judge(&held, console)?.0;
    let test_accuracy = match hold_out {
        true => None,
        false => Some(task.judge(&load(Split::Test)?, console)?.0),
    };
    let card = TeacherCard {
        format: FORMAT_VERSION,
        kind: "teacher".into(),
        distill: env!("CARGO_PKG_VERSION").into(),
        dataset: dataset.to_string(),
        image_size: *image_size,
        classes: images.classes.to_vec(),
        normalization: dataset.normalization(),
        data_sha256,
        hold_out: *hold_out,
        seed: *seed,
        recipe: recipe.clone(),
        steps: finished.steps,
        held_out_accuracy,
        test_accuracy,
    };
    note(folder)?;
    write_teacher(folder, &ema.named(), &card, finished)?;
    Checkpoint::remove_all(folder)?;
    console.info(format!("training took {}", duration(start.elapsed().as_secs_f64())));
    Ok(card)
}

/// Notes that the teacher in `folder` is the newest.
fn note(folder: &Path) -> Result<()> {
    match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(name)) => order::note(parent, Path::new(name)),
        _ => Ok(()),
    }
}

/// meta.json: where and on what it is trained. A teacher goes on only with the same images.
fn write_meta(folder: &Path, data_sha256: &str, images: usize, device: &Device) -> Result<()> {
    #[derive(Serialize, Deserialize)]
    struct Meta {
        command: Vec<String>,
        environment: Environment,
        data_sha256: String,
        images: usize,
    }
    let path = folder.join("meta.json");
    if folder.join("metrics.jsonl").is_file() {
        let old = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Meta>(&bytes).ok());
        if old.is_none_or(|old| old.data_sha256 != data_sha256) {
            usage!(
                "{}: this teacher was started on other images, or its meta.json is damaged; name the same --data-dir, or \
                 --overwrite to start again",
                folder.display()
            );
        }
    }
    let command = std::env::args().collect();
    let meta = Meta { command, environment: Environment::of(device), data_sha256: data_sha256.into(), images };
    write_atomic(&path, to_json(&meta)?.as_bytes())
}
