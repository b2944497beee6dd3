//! Ten training steps of a small VAE, UNet and student of every kind: their losses beside those of the CPU's portable kernels
//! in f32; and the batches of students.

use std::slice;

use candle_core::{Device, Tensor};

use super::{Allowed, Check, on_portable_cpu};
use crate::commands::bench::random_images;
use crate::data::Dataset;
use crate::diffusion::{NoiseSchedule, Prediction};
use crate::error::Result;
use crate::eval::{
    Augmentation, BatchSource, Optimizer, Protocol, SoftTargets, StudentKind, Targets, TrainingSet, train_step,
};
use crate::models::unet::{LatentShape, UNet, UNetConfig};
use crate::models::vae::{Vae, VaeConfig};
use crate::nn::Params;
use crate::ops::check::{Finding, doubles, largest};
use crate::ops::{self, Tape, Value};
use crate::rng::Rng;
use crate::train::{AdamW, Batches, StepSizes};

const STEPS: u64 = 10;
/// Parts of the largest loss. A rounding that switches one ReLU of the student's changes more than any other.
const OF_LOSSES: Allowed = Allowed { f32: 1e-4, tf32: 1e-2, bf16: 3e-2 };
/// Always in f32; a grid's coordinates are rounded in other ways.
const OF_PIXELS: Allowed = Allowed { f32: 1e-4, tf32: 1e-4, bf16: 1e-4 };
const BATCH: usize = 8;
const CLASSES: usize = 10;
/// Every kind of student, and every op of theirs, in narrow versions.
const STUDENTS: [&str; 9] = [
    "convnet-w16",
    "convnet-w16-none",
    "convnet-w16-batch",
    "resnet18-w8-batch",
    "vgg11-w8",
    "alexnet-w16",
    "lenet",
    "mlp",
    "vit-d2-w64",
];

pub fn checks() -> Vec<Check> {
    let mut all = vec![
        training("vae", "8x16x16x3", vae),
        training("unet", "8x8x8x4", unet),
        augmentations(32),
        augmentations(63),
    ];
    all.extend(STUDENTS.map(|name| training(name, "8x32x32x3", move |device| student(name, device))));
    all
}

/// The losses of a network in training.
fn training(name: &str, shapes: &str, losses: impl Fn(&Device) -> Result<Vec<f64>> + 'static) -> Check {
    let run = move |device: &Device| {
        let (found, expected) = (losses(device)?, on_portable_cpu(&losses)?);
        Ok(vec![Finding::between("losses", &found, &expected, largest(&expected, 1e-6))?])
    };
    Check {
        name: format!("{name}, {STEPS} training steps"),
        shapes: shapes.into(),
        allowed: OF_LOSSES,
        run: Box::new(run),
    }
}

pub fn unet_sizes() -> UNetConfig {
    UNetConfig { channels: 32, channel_mult: vec![1, 2], blocks: 1, attention_at: vec![8, 4], head_dim: 16, groups: 8 }
}

/// Standard normal values of a step.
fn normal(name: &str, step: u64, dims: &[usize], device: &Device) -> Result<Tensor> {
    let values = Rng::stream(0, name, step as u32, 0).normal(dims.iter().product());
    Ok(Tensor::from_vec(values, dims, device)?)
}

/// The losses of training as `train::Trainer` does it. `build` makes the network that is trained, and one for its average.
fn train<N>(
    device: &Device,
    build: impl Fn(&Params) -> Result<N>,
    loss: impl Fn(&N, &Tape, u64) -> Result<Value>,
) -> Result<Vec<f64>> {
    let (params, ema) = (Params::new(0, device), Params::new(0, device));
    let (network, _) = (build(&params)?, build(&ema)?);
    let mut optimizer = AdamW::new(&params, &ema, 0.01)?;
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let tape = Tape::recording();
        let loss = loss(&network, &tape, step)?;
        let sizes = StepSizes { step, learning_rate: 2e-3, clip_norm: 1.0, ema_decay: 0.99 };
        losses.push(optimizer.update(&loss, &tape.backward(&loss)?, sizes)?.read()?.0);
    }
    Ok(losses)
}

fn vae(device: &Device) -> Result<Vec<f64>> {
    let sizes = VaeConfig { channels: vec![16, 24], blocks: 1, groups: 8, latent_channels: 4 };
    let build = |params: &Params| Vae::new(&sizes, params.builder());
    train(device, build, |vae, tape, step| {
        let images = normal("check images", step, &[BATCH, 16, 16, 3], device)?;
        let moments = vae.encode(tape, &Value::constant(images.clone()))?;
        let latents = ops::gaussian_sample(tape, &moments, &normal("check latents", step, &[BATCH, 8, 8, 4], device)?)?;
        let error = ops::squared_error(tape, &vae.decode(tape, &latents)?, &images, None)?;
        ops::weighted_sum(tape, &[(&error, 1.0), (&ops::gaussian_kl(tape, &moments)?, 1e-2)])
    })
}

fn unet(device: &Device) -> Result<Vec<f64>> {
    let shape = LatentShape { size: 8, channels: 4, classes: CLASSES };
    let schedule = NoiseSchedule::cosine(1000);
    let build = |params: &Params| UNet::new(&unet_sizes(), shape, params.builder());
    train(device, build, |unet, tape, step| {
        let mut rng = Rng::stream(0, "check times", step as u32, 0);
        let times: Vec<usize> = (0..BATCH).map(|_| rng.below(schedule.len())).collect();
        let classes: Vec<u32> = (0..BATCH).map(|_| rng.below(CLASSES + 1) as u32).collect();
        let weights: Vec<f32> = times.iter().map(|&t| Prediction::V.loss_weight(schedule.snr(t), 5.0) as f32).collect();
        let times: Vec<f32> = times.iter().map(|&t| t as f32).collect();
        let dims = [BATCH, 8, 8, 4];
        let noisy = Value::constant(normal("check noisy", step, &dims, device)?);
        let target = normal("check target", step, &dims, device)?;
        ops::squared_error(tape, &unet.forward(tape, &noisy, &times, &classes)?, &target, Some(&weights))
    })
}

/// Batches as students see them, of every kind of augmentation.
fn augmentations(size: usize) -> Check {
    let run = move |device: &Device| {
        let set = TrainingSet::from(random_images("check pixels", CLASSES, CLASSES, size));
        let source = |device: &Device| BatchSource::new(&set, Dataset::Cifar100.normalization(), device);
        let (found, expected) = (source(device)?, source(&Device::Cpu)?);
        let mut findings = Vec::new();
        for draw in 0..40 {
            let change = Augmentation::draw(&mut Rng::stream(0, "check augment", draw, 0), 3, size);
            let batch = |source: &BatchSource<_>| doubles(&source.batch(&[7, 0, 7], slice::from_ref(&change))?);
            let (found, expected) = (batch(&found)?, batch(&expected)?);
            findings.push(Finding::between("images", &found, &expected, largest(&expected, 1e-6))?);
        }
        Ok(findings)
    };
    Check { name: "augmentations".into(), shapes: format!("3x{size}x{size}x3"), allowed: OF_PIXELS, run: Box::new(run) }
}

/// As `distill eval` trains a student: order, augmentation, hard and soft labels by turns, SGD; last, the loss as it is
/// tested.
fn student(name: &str, device: &Device) -> Result<Vec<f64>> {
    let (size, examples) = (32, 20);
    let (params, protocol) = (Params::new(0, device), Protocol::named("challenge")?);
    let kind: StudentKind = name.parse()?;
    let network = kind.build(protocol.convnet_at(size)?, size, CLASSES, params.builder())?;
    let mut optimizer = Optimizer::new(&params, &Params::new(0, device), &protocol)?;
    let set = TrainingSet::from(random_images("check pixels", examples, CLASSES, size));
    let (batches, source) =
        (Batches::new(0, examples, BATCH), BatchSource::new(&set, Dataset::Cifar100.normalization(), device)?);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let indices: Vec<u32> = batches.at(step).into_iter().map(|i| i as u32).collect();
        let change = Augmentation::draw(&mut Rng::stream(0, "check augment", step as u32, 0), BATCH, size);
        let labels: Vec<u16> = indices.iter().map(|&i| set.images.labels[i as usize]).collect();
        let targets = if step % 2 == 0 { Targets::Hard(labels) } else { softened(&labels) };
        let loss = train_step(network.as_ref(), &mut optimizer, source.batch(&indices, &[change])?, &targets)?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
    }
    let (tape, all) = (Tape::inference(), (0..examples as u32).collect::<Vec<_>>());
    let logits = network.forward(&tape, &Value::constant(source.batch(&all, &[])?))?;
    losses.push(f64::from(ops::cross_entropy(&tape, &logits, &set.images.labels)?.scalar()?));
    Ok(losses)
}

/// Three quarters for the label, the rest for one other class.
fn softened(labels: &[u16]) -> Targets {
    let row = |&label: &u16| {
        let mut row = [0.0; CLASSES];
        (row[usize::from(label)], row[(usize::from(label) + 3) % CLASSES]) = (0.75, 0.25);
        row
    };
    Targets::Soft(labels.iter().flat_map(row).collect(), SoftTargets { temperature: 4.0 })
}
