//! `distill bench`: images per second and peak memory of each kind of work, on random data.

use std::fs;
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::Serialize;
use serde_json::json;

use super::resolve::resolve;
use super::{print, to_json};
use crate::cli::BenchArgs;
use crate::config::Config;
use crate::data::shapes;
use crate::environment::Environment;
use crate::error::Result;
use crate::eval::{Protocol, Sgd, train_step};
use crate::models::students::{ConvNet, ConvNetConfig};
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::nn::Params;
use crate::ops::{self, Tape, Value};
use crate::progress::Console;
use crate::rng::Rng;
use crate::train::{AdamW, StepSizes};
use crate::{interrupt, usage};

/// Classes of the networks that are measured.
const CLASSES: usize = 100;

/// One measured piece of work.
#[derive(Serialize)]
struct Measurement {
    work: String,
    images_per_second: f64,
    /// Most memory in use at once; null where the system does not tell.
    peak_bytes: Option<u64>,
    environment: Environment,
}

pub fn run(args: &BenchArgs, console: &Console) -> Result<()> {
    let config = resolve(&args.configuring, None, &[], &args.common, console)?.config;
    let device = args.common.device.open()?;
    let works = works(&config);
    let names: Vec<&str> = works.iter().map(|w| w.name).collect();
    let chosen: Vec<_> =
        works.into_iter().filter(|w| args.only.as_ref().is_none_or(|text| w.name.contains(text.as_str()))).collect();
    if chosen.is_empty() {
        usage!(
            "--only {}: no work has such a name; there are {}",
            args.only.as_deref().unwrap_or_default(),
            names.join(", ")
        );
    }
    if args.common.dry_run {
        return dry_run(&chosen, args.common.json);
    }
    let mut found = Vec::new();
    for work in chosen {
        console.info(format!("{} ...", work.name));
        let (images_per_second, peak_bytes) = measure(&work, args.seconds, &config, &device)?;
        let environment = Environment::of(&device);
        found.push(Measurement { work: work.name.into(), images_per_second, peak_bytes, environment });
    }
    if args.common.json {
        return print(&to_json(&found)?);
    }
    for m in found {
        let peak = m.peak_bytes.map_or("-".into(), |b| format!("{:.0} MiB", b as f64 / 1048576.0));
        print(&format!("{:<14} {:>10.1} images/s {peak:>10}", m.work, m.images_per_second))?;
    }
    Ok(())
}

/// Says what would be measured.
fn dry_run(works: &[Work], json: bool) -> Result<()> {
    if json {
        let works: Vec<_> = works.iter().map(|w| json!({ "work": w.name, "batch": w.batch })).collect();
        return print(&to_json(&works)?);
    }
    print(&works.iter().map(|w| format!("{} (batch {})", w.name, w.batch)).collect::<Vec<_>>().join("\n"))
}

/// A piece of work that can be repeated.
type Step<'a> = Box<dyn FnMut(u64) -> Result<()> + 'a>;

struct Work {
    name: &'static str,
    batch: usize,
    build: fn(&Config, usize, &Device) -> Result<Step<'static>>,
}

fn works(config: &Config) -> [Work; 5] {
    let (vae, unet) = (config.train.vae.batch_size, config.train.unet.batch_size);
    [
        Work { name: "student-train", batch: 256, build: student_train },
        Work { name: "vae-train", batch: vae, build: vae_train },
        Work { name: "vae-decode", batch: vae, build: vae_decode },
        Work { name: "unet-train", batch: unet, build: unet_train },
        Work { name: "unet-forward", batch: 2 * config.sampler.batch_size, build: unet_forward },
    ]
}

/// Repeats the work for about `seconds`, after one step to warm up.
fn measure(work: &Work, seconds: f64, config: &Config, device: &Device) -> Result<(f64, Option<u64>)> {
    let mut step = (work.build)(config, work.batch, device)?;
    reset_peak();
    step(0)?;
    let (start, mut done) = (Instant::now(), 0);
    while done == 0 || start.elapsed().as_secs_f64() < seconds {
        interrupt::check()?;
        done += 1;
        step(done)?;
    }
    Ok(((done as usize * work.batch) as f64 / start.elapsed().as_secs_f64(), peak()))
}

/// Starts a new high-water mark of resident memory (Linux; elsewhere nothing happens).
fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn noise(shape: (usize, usize, usize, usize), device: &Device) -> Result<Tensor> {
    let n = shape.0 * shape.1 * shape.2 * shape.3;
    Ok(Tensor::from_vec(Rng::stream(0, "bench", 0, 0).normal(n), shape, device)?)
}

fn student_train(_: &Config, batch: usize, device: &Device) -> Result<Step<'static>> {
    let params = Params::new(0, device);
    let sizes = ConvNetConfig { depth: 3, width: 128, size: shapes::SIZE, classes: CLASSES };
    let net = ConvNet::new(sizes, params.builder())?;
    let mut optimizer = Sgd::new(&params, &Protocol::named("challenge")?);
    let pixels = Rng::stream(0, "bench", 0, 0).normal(batch * shapes::SIZE * shapes::SIZE * 3);
    let labels: Vec<u16> = (0..batch).map(|i| (i % CLASSES) as u16).collect();
    Ok(Box::new(move |_| train_step(&net, &mut optimizer, pixels.clone(), shapes::SIZE, &labels).map(|_| ())))
}

/// Backward, and the optimizer's step.
fn finish(tape: Tape, loss: &Value, optimizer: &mut AdamW, step: u64) -> Result<()> {
    let gradients = tape.backward(loss)?;
    let sizes = StepSizes { step, learning_rate: 1e-4, gradient_scale: 1.0, ema_decay: 0.999 };
    optimizer.step(&gradients, sizes)
}

fn vae_train(config: &Config, batch: usize, device: &Device) -> Result<Step<'static>> {
    let (params, ema) = (Params::new(0, device), Params::new(0, device));
    let net = Vae::new(&config.vae, params.builder())?;
    Vae::new(&config.vae, ema.builder())?;
    let mut optimizer = AdamW::new(&params, &ema, 0.0)?;
    let size = config.image_size;
    let images = noise((batch, size, size, 3), device)?;
    let latents = config.latents(CLASSES);
    let noise = noise((batch, latents.size, latents.size, latents.channels), device)?;
    Ok(Box::new(move |step| {
        let tape = Tape::recording();
        let moments = net.encode(&tape, &Value::constant(images.clone()))?;
        let latents = ops::gaussian_sample(&tape, &moments, &noise)?;
        let error = ops::squared_error(&tape, &net.decode(&tape, &latents)?, &images, None)?;
        let kl = ops::gaussian_kl(&tape, &moments)?;
        let loss = ops::weighted_sum(&tape, &[(&error, 1.0), (&kl, 1e-4)])?;
        finish(tape, &loss, &mut optimizer, step)
    }))
}

fn vae_decode(config: &Config, batch: usize, device: &Device) -> Result<Step<'static>> {
    let net = Vae::new(&config.vae, Params::new(0, device).builder())?;
    let latents = config.latents(CLASSES);
    let latents = Value::constant(noise((batch, latents.size, latents.size, latents.channels), device)?);
    Ok(Box::new(move |_| net.decode(&Tape::inference(), &latents).map(|_| ())))
}

fn unet_train(config: &Config, batch: usize, device: &Device) -> Result<Step<'static>> {
    let (params, ema, shape) = (Params::new(0, device), Params::new(0, device), config.latents(CLASSES));
    let net = UNet::new(&config.unet, shape, params.builder())?;
    UNet::new(&config.unet, shape, ema.builder())?;
    let mut optimizer = AdamW::new(&params, &ema, 0.0)?;
    let x = noise((batch, shape.size, shape.size, shape.channels), device)?;
    let (times, classes) = (vec![500.0; batch], vec![7; batch]);
    Ok(Box::new(move |step| {
        let tape = Tape::recording();
        let prediction = net.forward(&tape, &Value::constant(x.clone()), &times, &classes)?;
        let loss = ops::squared_error(&tape, &prediction, &x, None)?;
        finish(tape, &loss, &mut optimizer, step)
    }))
}

fn unet_forward(config: &Config, batch: usize, device: &Device) -> Result<Step<'static>> {
    let shape = config.latents(CLASSES);
    let net = UNet::new(&config.unet, shape, Params::new(0, device).builder())?;
    let x = Value::constant(noise((batch, shape.size, shape.size, shape.channels), device)?);
    let (times, classes) = (vec![500.0; batch], vec![7; batch]);
    Ok(Box::new(move |_| net.forward(&Tape::inference(), &x, &times, &classes).map(|_| ())))
}
