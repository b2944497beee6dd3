//! Training goes on after a stop as if there had been none, and whatever it cannot go on from is refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use candle_core::{Device, Tensor};
use distill::checksums::sha256;
use distill::config::{Config, Layers, Override};
use distill::data::{Dataset, ImageSet, Split, load};
use distill::error::Result;
use distill::fail;
use distill::models::vae::Vae;
use distill::nn::{Params, count};
use distill::ops::{Tape, Value, weighted_sum};
use distill::progress::{Console, Verbosity};
use distill::stages::{Latents, UNetTask, VaeTask};
use distill::train::{Checkpoint, Finished, Intervals, Keep, Task, Trainer, learning_rate, load_weights};
use tempfile::tempdir;

const TINY: [&str; 14] = [
    "vae.channels=[4,8,8]",
    "vae.groups=4",
    "vae.latent_channels=2",
    "unet.channels=8",
    "unet.head_dim=8",
    "unet.groups=4",
    "unet.attention_at=[4]",
    "diffusion.class_dropout=0.3",
    "train.vae.steps=20",
    "train.vae.batch_size=3",
    "train.vae.warmup=4",
    "train.unet.steps=20",
    "train.unet.batch_size=3",
    "train.unet.warmup=4",
];

static IMAGES: LazyLock<ImageSet> =
    LazyLock::new(|| load(&Dataset::Shapes, Split::Test, 32, None).unwrap().subset(&(0..35).collect::<Vec<_>>()));

/// What goes wrong, and in which step.
#[derive(Clone, Copy)]
enum Trouble {
    None,
    Stop(u64),
    NotFinite(u64),
}

struct Troubled<'a>(&'a dyn Task, Trouble);

impl Task for Troubled<'_> {
    fn loss(&self, tape: &Tape, step: u64, part: Range<usize>) -> Result<Value> {
        let loss = self.0.loss(tape, step, part)?;
        match self.1 {
            Trouble::Stop(at) if at == step => fail!("stopped by the test"),
            Trouble::NotFinite(at) if at == step => weighted_sum(tape, &[(&loss, f32::NAN)]),
            _ => Ok(loss),
        }
    }

    fn validate(&self) -> Result<Vec<(&'static str, f64)>> {
        self.0.validate()
    }

    fn draw(&self, path: &Path) -> Result<()> {
        self.0.draw(path)
    }
}

/// One process's attempt at a training run.
struct Attempt<'a> {
    stage: &'static str,
    /// Keys laid over `TINY`.
    set: &'a [&'a str],
    trouble: Trouble,
    deadline: Option<Instant>,
    keep: Keep,
}

const KEEP: Keep = Keep { last: 2, best: false };
const VAE: Attempt = Attempt { stage: "vae", set: &[], trouble: Trouble::None, deadline: None, keep: KEEP };

fn quiet() -> Console {
    Console::new(Verbosity::Quiet)
}

impl Attempt<'_> {
    fn config(&self) -> Config {
        let mut layers = Layers::preset("shapes").unwrap();
        for key in TINY.iter().chain(self.set) {
            layers.set(&Override::parse(key).unwrap()).unwrap();
        }
        layers.resolve().unwrap()
    }

    /// Trains in `dir`. Where there is a checkpoint it starts from other weights: they must come from the file.
    fn run(&self, dir: &Path) -> Result<Finished> {
        let (config, console) = (self.config(), quiet());
        console.log_to(&dir.join("log.txt"))?;
        let seed = u64::from(!checkpoints(dir).is_empty());
        let (params, ema) = (Params::new(seed, &Device::Cpu), Params::new(seed, &Device::Cpu));
        if self.stage == "vae" {
            let task = VaeTask::new(&config, &params, &ema, &IMAGES, &IMAGES, &Device::Cpu)?;
            return self.train(&config, dir, &params, &ema, &task, &console);
        }
        let vae = Vae::new(&config.vae, Params::new(0, &Device::Cpu).builder())?;
        let latents =
            Latents::cached(&dir.join("latents.safetensors"), &vae, "", &IMAGES, true, &Device::Cpu, &console)?;
        let task = UNetTask::new(&config, &params, &ema, &vae, &latents, &latents, &IMAGES.classes, &Device::Cpu)?;
        self.train(&config, dir, &params, &ema, &task, &console)
    }

    fn train(
        &self,
        config: &Config,
        dir: &Path,
        params: &Params,
        ema: &Params,
        task: &dyn Task,
        console: &Console,
    ) -> Result<Finished> {
        let trainer = Trainer {
            name: self.stage,
            params,
            ema,
            config: if self.stage == "vae" { &config.train.vae } else { &config.train.unet },
            section: &format!("train.{}.", self.stage),
            intervals: Intervals { log: 3, checkpoint: 5, sample: 10 },
            dir: dir.join("run"),
            pictures: dir.into(),
            tensorboard: Some(dir.join("events")),
            deadline: self.deadline,
            keep: self.keep,
            console,
        };
        trainer.run(&Troubled(task, self.trouble))
    }

    fn fails(&self, dir: &Path, words: &[&str]) {
        let error = self.run(dir).expect_err("must fail");
        assert_eq!(error.exit_code(), 1, "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{word:?} is not in: {error}"));
    }
}

/// Names of the checkpoints in `dir`, oldest first.
fn checkpoints(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("run")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<String> = names.filter(|name| name.starts_with("step-")).collect();
    steps.sort();
    steps
}

/// Everything that a run leaves behind, but for its duration: steps, metrics, and the bits of every tensor by name.
fn left_behind(dir: &Path) -> (u64, Option<u64>, String, BTreeMap<String, Vec<u32>>) {
    let run = dir.join("run");
    let (state, folder) = Checkpoint::newest(&run, &quiet()).unwrap().unwrap();
    let mut tensors = BTreeMap::new();
    for file in ["model", "ema", "optim"] {
        for (name, tensor) in load_weights(&folder.join(format!("{file}.safetensors")), &Device::Cpu).unwrap() {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            tensors.insert(format!("{file}: {name}"), values.into_iter().map(f32::to_bits).collect());
        }
    }
    (state.step, state.total, fs::read_to_string(run.join("metrics.jsonl")).unwrap(), tensors)
}

/// The records of the only event file, less their times: an event begins with nine bytes of time.
fn events(dir: &Path) -> Vec<Vec<u8>> {
    let files: Vec<_> = fs::read_dir(dir.join("events")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        records.push(rest[12 + 9..12 + length].to_vec());
        rest = &rest[12 + length + 4..];
    }
    records
}

fn assert_same(a: &Path, b: &Path) {
    let (of_a, of_b) = (events(a), events(b));
    assert!(of_a == of_b, "events: {} and {}", of_a.len(), of_b.len());
    let (a, b) = (left_behind(a), left_behind(b));
    assert_eq!((a.0, a.1), (b.0, b.1));
    assert_eq!(a.2, b.2, "metrics");
    assert!(a.3.keys().eq(b.3.keys()));
    a.3.keys().for_each(|name| assert!(a.3[name] == b.3[name], "{name} differs"));
}

/// A folder with a VAE run that was stopped in its step 13; its checkpoint is of step 10.
fn stopped() -> tempfile::TempDir {
    let dir = tempdir().unwrap();
    Attempt { trouble: Trouble::Stop(13), ..VAE }.fails(dir.path(), &["stopped by the test"]);
    assert_eq!(left_behind(dir.path()).0, 10);
    dir
}

static UNBROKEN: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempdir().unwrap();
    VAE.run(dir.path()).unwrap();
    dir
});

#[test]
fn twenty_steps_are_ten_and_ten_bit_for_bit() {
    for stage in ["vae", "unet"] {
        let (straight, broken) = (tempdir().unwrap(), tempdir().unwrap());
        let attempt = Attempt { stage, ..VAE };
        let whole = attempt.run(straight.path()).unwrap();
        assert_eq!((whole.steps, whole.images), (20, 60));
        // The version, the start, every line and the pictures of steps 10 and 20.
        let lines = left_behind(straight.path()).2.lines().count();
        assert_eq!(events(straight.path()).len(), 2 + lines + 2);
        for at in [2, 10, 18] {
            Attempt { stage, trouble: Trouble::Stop(at), ..VAE }.fails(broken.path(), &["stopped by the test"]);
        }
        let rest = attempt.run(broken.path()).unwrap();
        assert_same(straight.path(), broken.path());
        assert_eq!(whole.loss, rest.loss);
        // A run that was stopped after its last step has nothing left to do and still knows its loss.
        let nothing = attempt.run(broken.path()).unwrap();
        assert_same(straight.path(), broken.path());
        assert_eq!((nothing.steps, nothing.images), (20, 60));
        assert!((nothing.loss - whole.loss).abs() < 1e-12, "{} and {}", nothing.loss, whole.loss);
    }
}

#[test]
fn an_interrupted_save_leaves_the_checkpoint_before_it() {
    let dir = stopped();
    let run = dir.path().join("run");
    // Cut off by a crash.
    fs::create_dir(run.join(".tmp-step")).unwrap();
    fs::write(run.join(".tmp-step/model.safetensors"), b"half of a").unwrap();
    VAE.run(dir.path()).unwrap();
    assert_same(UNBROKEN.path(), dir.path());
    let mut names: Vec<_> = fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["metrics.jsonl", "step-0000015", "step-0000020"]);
    // Cut off by an error: the folder of the second part is not there.
    let (state, _) = Checkpoint::newest(&run, &quiet()).unwrap().unwrap();
    let later = Checkpoint { step: 21, ..state };
    assert!(later.save(&run, &[("model", Vec::new()), ("no/where", Vec::new())], "", 2).is_err());
    assert!(!run.join(".tmp-step").exists(), "what filled the disk is gone");
    assert_same(UNBROKEN.path(), dir.path());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_it_does_harm() {
    let dir = tempdir().unwrap();
    let words = ["vae: the loss is NaN", "at step 13", "lower train.vae.learning_rate"];
    Attempt { trouble: Trouble::NotFinite(13), ..VAE }.fails(dir.path(), &words);
    VAE.run(dir.path()).unwrap();
    assert_same(UNBROKEN.path(), dir.path());
}

const FILES: [&str; 6] =
    ["model.safetensors", "ema.safetensors", "optim.safetensors", "metrics.jsonl", "state.json", "SHA256SUMS"];

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let damages: [&dyn Fn(&Path); 3] = [&flip, &cut, &remove];
    for (file, damage) in FILES.iter().flat_map(|file| damages.map(|damage| (file, damage))) {
        let dir = stopped();
        damage(&dir.path().join("run/step-0000010").join(file));
        VAE.run(dir.path()).unwrap();
        assert_same(UNBROKEN.path(), dir.path());
        let log = fs::read_to_string(dir.path().join("log.txt")).unwrap();
        let warning = log.lines().find(|line| line.contains("warning: ")).unwrap_or_else(|| panic!("{file}: {log}"));
        let told = warning.contains(&format!("step-0000010/{file}")) || warning.contains("step-0000010/SHA256SUMS");
        assert!(told && (warning.contains("is damaged") || warning.contains("is missing")), "{warning}");
        assert!(log.contains("goes on from step 5"), "{log}");
        assert_eq!(checkpoints(dir.path()), ["step-0000015", "step-0000020"]);
    }
}

#[test]
fn without_a_sound_checkpoint_the_run_stops_and_says_what_to_do() {
    let dir = stopped();
    for step in ["step-0000005", "step-0000010"] {
        fs::write(dir.path().join("run").join(step).join("ema.safetensors"), b"").unwrap();
    }
    VAE.fails(dir.path(), &["each of its checkpoints (2) is damaged", "--overwrite"]);
    // One of another version is whole, so nothing is passed over.
    let dir = stopped();
    let folder = dir.path().join("run/step-0000010");
    let text = fs::read_to_string(folder.join("state.json")).unwrap();
    let newer = text.replace("\"version\": 2", "\"version\": 3");
    assert_ne!(text, newer);
    fs::write(folder.join("state.json"), &newer).unwrap();
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let resummed = sums.replace(&sha256(text.as_bytes()), &sha256(newer.as_bytes()));
    assert_ne!(sums, resummed);
    fs::write(folder.join("SHA256SUMS"), resummed).unwrap();
    VAE.fails(dir.path(), &["step-0000010", "version 3", "reads version 2"]);
}

#[test]
fn what_cannot_be_read_is_not_taken_for_damage() {
    let dir = stopped();
    let file = dir.path().join("run/step-0000010/model.safetensors");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap(); // reading it is an error of the system
    VAE.fails(dir.path(), &["step-0000010/model.safetensors"]);
    assert_eq!(checkpoints(dir.path()), ["step-0000005", "step-0000010"]);
}

#[test]
fn a_damaged_best_checkpoint_is_forgotten_at_once() {
    let dir = stopped();
    fs::write(dir.path().join("run/step-0000005/ema.safetensors"), b"").unwrap();
    let (mut state, folder) = Checkpoint::newest(&dir.path().join("run"), &quiet()).unwrap().unwrap();
    for (step, left) in [(10, Some(10)), (5, None)] {
        state.best = Some(distill::train::Best { step, name: "validation_loss".into(), figure: 1.0 });
        state.check_best(folder.parent().unwrap(), &quiet()).unwrap();
        assert_eq!(state.best.map(|best| best.step), left);
    }
}

#[test]
fn parameters_are_counted_without_memory_for_them() {
    let config = VAE.config();
    let params = Params::new(0, &Device::Cpu);
    Vae::new(&config.vae, params.builder()).unwrap();
    assert_eq!(count(|vb| Vae::new(&config.vae, vb)).unwrap(), params.count());
    let mut huge = config.vae;
    huge.channels = vec![8, 8, 1 << 18];
    huge.groups = 8;
    assert!(count(|vb| Vae::new(&huge, vb)).unwrap() > 1 << 40);
}

/// The losses and gradient norms that a run has written.
fn figures(dir: &Path) -> Vec<f64> {
    let text = left_behind(dir).2;
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_line = |line: serde_json::Value| ["loss", "gradient_norm"].map(|key| line.get(key).and_then(|v| v.as_f64()));
    lines.flat_map(of_line).flatten().collect()
}

#[test]
fn a_batch_in_parts_makes_the_same_steps() {
    for stage in ["vae", "unet"] {
        let trained = |accumulate: usize| {
            let dir = tempdir().unwrap();
            let of_stage = |key: &str, value: usize| format!("train.{stage}.{key}={value}");
            let keys = [of_stage("batch_size", 6), of_stage("accumulate", accumulate)];
            let set = keys.each_ref().map(String::as_str);
            // Stopped before the first picture, which takes longest.
            let attempt = Attempt { stage, set: &set, trouble: Trouble::Stop(8), ..VAE };
            attempt.fails(dir.path(), &["stopped by the test"]);
            figures(dir.path())
        };
        let whole = trained(1);
        assert_eq!(whole.len(), 4, "two lines with a loss and a norm");
        for parts in [2, 3, 6] {
            let found = trained(parts);
            assert_eq!(found.len(), whole.len());
            for (a, b) in found.iter().zip(&whole) {
                assert!((a - b).abs() <= 1e-3 * b, "{stage} in {parts} parts: {a}, {b} at once");
            }
        }
    }
}

/// A task whose figure falls and rises again; the weights are the VAE's.
struct Figures<'a>(&'a dyn Task, std::cell::Cell<u64>);

impl Task for Figures<'_> {
    fn loss(&self, tape: &Tape, step: u64, part: Range<usize>) -> Result<Value> {
        self.1.set(step + 1);
        self.0.loss(tape, step, part)
    }

    fn validate(&self) -> Result<Vec<(&'static str, f64)>> {
        Ok(vec![("figure", self.1.get().abs_diff(12) as f64)])
    }

    fn draw(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

#[test]
fn the_best_weights_are_kept_and_taken_on_request() {
    // Validated after steps 10 and 20 where the figure is 2 and 8: the best are those of step 10.
    let averaged = |dir: &Path, keep: Keep, stops: &[u64]| {
        let attempt = Attempt { keep, ..VAE };
        let mut taken = None;
        for trouble in stops.iter().map(|&at| Trouble::Stop(at)).chain([Trouble::None]) {
            let (config, console) = (attempt.config(), quiet());
            let (params, ema) = (Params::new(0, &Device::Cpu), Params::new(0, &Device::Cpu));
            let task = VaeTask::new(&config, &params, &ema, &IMAGES, &IMAGES, &Device::Cpu).unwrap();
            let task = Figures(&task, std::cell::Cell::new(0));
            let attempt = Attempt { trouble, ..attempt };
            let result = attempt.train(&config, dir, &params, &ema, &task, &console);
            taken = result.ok().map(|finished| (finished, ema.named()));
        }
        let (finished, ema) = taken.unwrap();
        let bits = |(name, tensor): (String, Tensor)| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (format!("ema: {name}"), values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        (finished, ema.into_iter().map(bits).collect::<BTreeMap<_, _>>())
    };
    let best = Keep { last: 1, best: true };
    let of_step_10 = left_behind(stopped().path()).3;
    for stops in [&[][..], &[11], &[4, 17]] {
        let dir = tempdir().unwrap();
        let (finished, ema) = averaged(dir.path(), best, stops);
        assert_eq!((finished.steps, finished.best.map(|b| (b.step, b.figure))), (20, Some((10, 2.0))), "{stops:?}");
        assert!(ema.iter().all(|(name, bits)| of_step_10[name] == *bits), "{stops:?}");
        assert_eq!(checkpoints(dir.path()), ["step-0000010", "step-0000020"], "{stops:?}");
    }
    let (dir, of_step_20) = (tempdir().unwrap(), left_behind(UNBROKEN.path()).3);
    let (finished, ema) = averaged(dir.path(), Keep { last: 1, best: false }, &[]);
    assert!(finished.best.is_none() && ema.iter().all(|(name, bits)| of_step_20[name] == *bits));
    assert_eq!(checkpoints(dir.path()), ["step-0000020"]);
}

#[test]
fn a_checkpoint_of_another_network_is_refused_by_name() {
    let wider = Attempt { set: &["vae.channels=[4,8,16]"], ..VAE };
    wider.fails(stopped().path(), &["model.safetensors", "of shape", "another configuration"]);
    let deeper = Attempt { set: &["vae.blocks=2"], ..VAE };
    deeper.fails(stopped().path(), &["model.safetensors", "block1", "another configuration"]);
    // The other way round the file has all that the network asks for, and more.
    let dir = tempdir().unwrap();
    Attempt { trouble: Trouble::Stop(7), ..deeper }.fails(dir.path(), &["stopped by the test"]);
    VAE.fails(dir.path(), &["model.safetensors", "block1", "another configuration"]);
}

/// A deadline that has passed already: three steps warm up, the fourth is timed, the fifth is the last.
#[test]
fn a_time_limit_fixes_the_number_of_steps_for_good() {
    let dir = tempdir().unwrap();
    let late = || Attempt { deadline: Some(Instant::now()), ..VAE };
    assert_eq!(late().run(dir.path()).unwrap().steps, 5);
    assert_eq!(left_behind(dir.path()).1, Some(5));
    for attempt in [late(), VAE] {
        assert_eq!(attempt.run(dir.path()).unwrap().steps, 5);
    }
    // Stopped before the number was known, it is found by the next attempt.
    let dir = tempdir().unwrap();
    Attempt { trouble: Trouble::Stop(4), ..late() }.fails(dir.path(), &["stopped by the test"]);
    assert_eq!(late().run(dir.path()).unwrap().steps, 5);
}

#[test]
fn the_learning_rate_warms_up_and_falls_along_a_cosine() {
    let at = |step| learning_rate(step, 2.0, 4, 12);
    let expected = [0.5, 1.0, 1.5, 2.0, 2.0, 1.923_879_532_511_287, 1.707_106_781_186_548, 1.382_683_432_365_09, 1.0];
    for (step, expected) in expected.into_iter().enumerate() {
        assert!((at(step as u64) - expected).abs() < 1e-12, "step {step}: {}", at(step as u64));
    }
    assert!(at(12).abs() < 1e-12 && at(100).abs() < 1e-12, "stays at 0 after the end");
    assert_eq!(learning_rate(0, 2.0, 0, 1), 2.0);
    assert_eq!(learning_rate(4, 2.0, 10, 5), 1.0, "a run that ends within its warm-up");
}
