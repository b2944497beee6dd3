//! The work that is measured: each network on a random batch, and the step that is repeated.

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use super::sampling::sample;
use crate::config::Config;
use crate::data::{Class, Dataset, ImageSet};
use crate::error::Result;
use crate::eval::{Augmentation, BatchSource, Optimizer, Protocol, Targets, TrainingSet, train_step};
use crate::models::students::{Classifier, ConvNet, ConvNetConfig, ConvNetSize, NormKind};
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::nn::{Conv2d, ConvConfig, Params};
use crate::ops::{self, Input, Tape, Value};
use crate::rng::Rng;
use crate::train::{AdamW, StepSizes};

/// Classes of the networks that are measured.
pub const CLASSES: usize = 100;
/// Images of the student's epoch: ten a class, of CIFAR-100's size.
const EPOCH: usize = 1000;
const STUDENT_SIZE: usize = 32;
/// Convolutions of the work `convolutions`.
const CHAIN: usize = 8;

/// A kind of work by name.
pub struct Kind {
    pub name: &'static str,
    /// Images that the network sees at once.
    pub batch: usize,
    pub build: fn(&Config, usize, &Device) -> Result<Work>,
}

/// A network on random data, with random weights: none is zero, so that every gradient flows.
pub struct Work {
    pub params: Params,
    /// The batch, by name.
    pub inputs: Vec<(&'static str, Tensor)>,
    /// The output for this batch, and its loss.
    pub forward: Forward,
    /// Whether `forward`'s loss is meant to be differentiated.
    pub trains: bool,
    /// What is measured; the argument counts the calls.
    pub step: Box<dyn FnMut(u64) -> Result<()>>,
    /// Images of a step.
    pub images: usize,
}

pub type Forward = Rc<dyn Fn(&Tape) -> Result<(Value, Value)>>;

pub fn kinds(config: &Config) -> Vec<Kind> {
    let (vae, unet) = (config.train.vae.batch_size, config.train.unet.batch_size);
    vec![
        Kind { name: "student-epoch", batch: 256, build: student_epoch },
        Kind { name: "vae-train", batch: vae, build: vae_train },
        Kind { name: "vae-decode", batch: vae, build: vae_decode },
        Kind { name: "unet-train", batch: unet, build: unet_train },
        Kind { name: "unet-forward", batch: 2 * config.sampler.batch_size, build: unet_forward },
        Kind { name: "convolutions", batch: unet, build: convolutions },
        Kind { name: "sample", batch: config.sampler.batch_size, build: sample },
    ]
}

/// A whole epoch as `eval` has it: order, normalization, augmentation, updates.
fn student_epoch(_: &Config, batch: usize, device: &Device) -> Result<Work> {
    let protocol = Protocol { batch_size: batch, ..Protocol::named("challenge")? };
    let params = Params::new(0, device);
    let ConvNetSize { depth, width } = protocol.convnet_at(STUDENT_SIZE)?;
    let net = ConvNet::new(
        ConvNetConfig { depth, width, norm: NormKind::Instance, size: STUDENT_SIZE, classes: CLASSES },
        params.builder(),
    )?;
    randomize(&params)?;
    let set = TrainingSet::from(random_images("bench pixels", EPOCH, CLASSES, STUDENT_SIZE));
    let all = set.images.labels.clone();
    let source = BatchSource::new(set, Dataset::Cifar100.normalization(), device)?;
    let first: Vec<u32> = (0..batch.min(EPOCH) as u32).collect();
    let images = source.batch(&first, &[])?;
    let labels = all[..first.len()].to_vec();
    let inputs = vec![("images", images.clone()), ("labels", floats(labels.iter().map(|&l| f32::from(l)), device)?)];
    let student = net.clone();
    let forward: Forward = Rc::new(move |tape: &Tape| {
        let logits = student.forward(tape, &Value::constant(images.clone()))?;
        let loss = ops::cross_entropy(tape, &logits, &labels)?;
        Ok((logits, loss))
    });
    let mut optimizer = Optimizer::new(&params, &Params::new(0, device), &protocol)?;
    let step = Box::new(move |epoch: u64| {
        let order = Rng::stream(0, "bench order", epoch as u32, 0).permutation(EPOCH);
        let mut losses = Vec::new();
        for (i, indices) in order.chunks(batch).enumerate() {
            let mut rng = Rng::stream(0, "bench augment", epoch as u32, i as u32);
            let change = Augmentation::draw(&mut rng, indices.len(), STUDENT_SIZE);
            let labels = Targets::Hard(indices.iter().map(|&i| all[i as usize]).collect());
            losses.push(train_step(&net, &mut optimizer, source.batch(indices, &[change])?, &labels)?);
        }
        losses.iter().try_for_each(|loss| Ok(loss.to_scalar::<f32>().map(drop)?))
    });
    Ok(Work { params, inputs, forward, trains: true, step, images: EPOCH })
}

fn vae_train(config: &Config, batch: usize, device: &Device) -> Result<Work> {
    let (params, ema) = (Params::new(0, device), Params::new(0, device));
    let net = both(|vb| Vae::new(&config.vae, vb), &params, &ema)?;
    let (size, latents) = (config.image_size, config.latents(CLASSES));
    let images = normal("images", (batch, size, size, 3), device)?;
    let noise = normal("noise", (batch, latents.size, latents.size, latents.channels), device)?;
    let inputs = vec![("images", images.clone()), ("noise", noise.clone())];
    let kl_weight = config.train.kl_weight as f32;
    let forward = move |tape: &Tape| {
        let moments = net.encode(tape, &Value::constant(images.clone()))?;
        let latents = ops::gaussian_sample(tape, &moments, &noise)?;
        let output = net.decode(tape, &latents)?;
        let error = ops::squared_error(tape, &output, &images, None)?;
        let kl = ops::gaussian_kl(tape, &moments)?;
        let loss = ops::weighted_sum(tape, &[(&error, 1.0), (&kl, kl_weight)])?;
        Ok((output, loss))
    };
    training(params, &ema, inputs, Rc::new(forward), batch)
}

fn vae_decode(config: &Config, batch: usize, device: &Device) -> Result<Work> {
    let params = Params::new(0, device);
    let net = Vae::new(&config.vae, params.builder())?;
    randomize(&params)?;
    let shape = config.latents(CLASSES);
    let latents = normal("latents", (batch, shape.size, shape.size, shape.channels), device)?;
    let inputs = vec![("latents", latents.clone())];
    let forward = move |tape: &Tape| net.decode(tape, &Value::constant(latents.clone()));
    Ok(inference(params, inputs, forward, batch))
}

fn unet_train(config: &Config, batch: usize, device: &Device) -> Result<Work> {
    let (params, ema, shape) = (Params::new(0, device), Params::new(0, device), config.latents(CLASSES));
    let net = both(|vb| UNet::new(&config.unet, shape, vb), &params, &ema)?;
    let target = normal("target", (batch, shape.size, shape.size, shape.channels), device)?;
    let (mut inputs, predict) = prediction(net, config, batch, device)?;
    inputs.push(("target", target.clone()));
    let forward = move |tape: &Tape| {
        let output = predict(tape)?;
        let loss = ops::squared_error(tape, &output, &target, None)?;
        Ok((output, loss))
    };
    training(params, &ema, inputs, Rc::new(forward), batch)
}

fn unet_forward(config: &Config, batch: usize, device: &Device) -> Result<Work> {
    let params = Params::new(0, device);
    let net = UNet::new(&config.unet, config.latents(CLASSES), params.builder())?;
    randomize(&params)?;
    let (inputs, predict) = prediction(net, config, batch, device)?;
    Ok(inference(params, inputs, predict, batch))
}

/// [`CHAIN`] of the UNet's 3 x 3 convolutions at full resolution, one after the other with nothing between them: the output,
/// and all gradients.
fn convolutions(config: &Config, batch: usize, device: &Device) -> Result<Work> {
    let (params, shape, channels) = (Params::new(0, device), config.latents(CLASSES), config.unet.channels);
    let layout = ConvConfig { bias: false, ..Default::default() };
    let layer = |i| Conv2d::new(channels, channels, layout, params.builder().pp(format!("conv{i}")));
    let (first, last) = ((1..CHAIN).map(layer).collect::<Result<Vec<_>>>()?, layer(CHAIN)?);
    randomize(&params)?;
    let dims = (batch, shape.size, shape.size, channels);
    let (x, target) = (normal("x", dims, device)?, normal("target", dims, device)?);
    let inputs = vec![("x", x.clone()), ("target", target.clone())];
    let forward: Forward = Rc::new(move |tape: &Tape| {
        let mut h = Value::constant(x.clone());
        for layer in &first {
            h = layer.forward(tape, &Input::of(&h))?;
        }
        let output = last.forward_f32(tape, &Input::of(&h))?;
        let loss = ops::squared_error(tape, &output, &target, None)?;
        Ok((output, loss))
    });
    let again = forward.clone();
    let step = Box::new(move |_| {
        let tape = Tape::recording();
        let (_, loss) = again(&tape)?;
        tape.backward(&loss).map(|_| ())
    });
    Ok(Work { params, inputs, forward, trains: true, step, images: batch })
}

type Inputs = Vec<(&'static str, Tensor)>;

/// The UNet's inputs, and its output for them.
pub fn prediction(
    net: UNet,
    config: &Config,
    batch: usize,
    device: &Device,
) -> Result<(Inputs, impl Fn(&Tape) -> Result<Value> + 'static)> {
    let shape = config.latents(CLASSES);
    let x = normal("x", (batch, shape.size, shape.size, shape.channels), device)?;
    let times: Vec<f32> = (0..batch).map(|i| (i * 397 % config.diffusion.steps) as f32).collect();
    let classes: Vec<u32> = (0..batch).map(|i| (i * 37 % (CLASSES + 1)) as u32).collect();
    let inputs = vec![
        ("x", x.clone()),
        ("times", floats(times.iter().copied(), device)?),
        ("classes", floats(classes.iter().map(|&c| c as f32), device)?),
    ];
    Ok((inputs, move |tape: &Tape| net.forward(tape, &Value::constant(x.clone()), &times, &classes)))
}

/// The network in `params` with random weights, and once more in `ema` for the average.
fn both<N>(build: impl Fn(VarBuilder) -> Result<N>, params: &Params, ema: &Params) -> Result<N> {
    let net = build(params.builder())?;
    build(ema.builder())?;
    randomize(params)?;
    Ok(net)
}

/// Work whose step is one of `train::Trainer`: loss, backward, clipping, AdamW and average.
fn training(params: Params, ema: &Params, inputs: Inputs, forward: Forward, images: usize) -> Result<Work> {
    let mut optimizer = AdamW::new(&params, ema, 0.0)?;
    let loss = forward.clone();
    let step = Box::new(move |step| {
        let tape = Tape::recording();
        let (_, loss) = loss(&tape)?;
        let gradients = tape.backward(&loss)?;
        let sizes = StepSizes { step, learning_rate: 1e-4, clip_norm: 1.0, ema_decay: 0.999 };
        optimizer.update(&loss, &gradients, sizes).map(|_| ())
    });
    Ok(Work { params, inputs, forward, trains: true, step, images })
}

/// Work whose step is a forward pass alone.
fn inference(params: Params, inputs: Inputs, output: impl Fn(&Tape) -> Result<Value> + 'static, images: usize) -> Work {
    let forward: Forward = Rc::new(move |tape: &Tape| {
        let output = output(tape)?;
        Ok((output.clone(), output))
    });
    let again = forward.clone();
    let step = Box::new(move |_| again(&Tape::inference()).map(|_| ()));
    Work { params, inputs, forward, trains: false, step, images }
}

/// Gives every parameter random values of a usual size: no zeros in last layers, no ones in norms.
pub fn randomize(params: &Params) -> Result<()> {
    let mut tensors = std::collections::BTreeMap::new();
    for (name, param) in params.named() {
        let values = Rng::stream(0, &format!("bench {name}"), 0, 0).normal(param.elem_count());
        let (offset, scale) = match param.dims() {
            [_] if name.contains("norm") && name.ends_with("weight") => (1.0, 0.2),
            [_] => (0.0, 0.2),
            _ if name.ends_with("class") => (0.0, 1.0),
            dims => (0.0, (dims[0] as f32 / param.elem_count() as f32).sqrt()),
        };
        let values: Vec<f32> = values.iter().map(|v| offset + scale * v).collect();
        tensors.insert(name, Tensor::from_vec(values, param.shape(), param.device())?);
    }
    params.assign(&tensors, "bench")
}

/// Images of noise, as many of each class.
pub fn random_images(name: &str, images: usize, classes: usize, size: usize) -> ImageSet {
    let mut rng = Rng::stream(0, name, 0, 0);
    let class = |i: usize| Class { name: i.to_string(), id: i.to_string() };
    ImageSet {
        pixels: (0..images * size * size * 3).map(|_| rng.below(256) as u8).collect(),
        labels: (0..images).map(|i| (i % classes) as u16).collect(),
        size,
        classes: Arc::new((0..classes).map(class).collect()),
    }
}

fn normal(name: &str, shape: (usize, usize, usize, usize), device: &Device) -> Result<Tensor> {
    let values = Rng::stream(0, &format!("bench {name}"), 0, 0).normal(shape.0 * shape.1 * shape.2 * shape.3);
    Ok(Tensor::from_vec(values, shape, device)?)
}

fn floats(values: impl Iterator<Item = f32>, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = values.collect();
    Ok(Tensor::new(values, device)?)
}
