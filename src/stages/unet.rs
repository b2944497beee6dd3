//! Training the denoiser on latents.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::generator::{Generator, Sampling};
use super::{Latents, PICTURE_COLUMNS, PICTURE_ROWS};
use crate::config::Config;
use crate::data::{Class, ImageSet};
use crate::diffusion::NoiseSchedule;
use crate::diffusion::samplers::SamplerKind;
use crate::error::Result;
use crate::interrupt;
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::nn::Params;
use crate::ops::{self, Tape, Value};
use crate::picture::save_grid;
use crate::rng::Rng;
use crate::train::{Batches, Task, Validation};

/// Sampling steps of the pictures drawn while training.
const PICTURE_STEPS: usize = 20;
/// Their guidance is that of so many images a class.
const PICTURE_IPC: u32 = 10;
/// Sampling steps of the images that are measured while training, which need a fast sampler.
const MEASURED_STEPS: usize = 10;

/// Says how good images are, as [`Task::validate`] does.
type Figures<'a> = Box<dyn Fn(&ImageSet) -> Result<Validation> + 'a>;

/// What is measured of sampled images while the UNet trains.
pub struct Measure<'a> {
    /// Images sampled for it: of every class as many, or one more.
    pub images: usize,
    pub figures: Figures<'a>,
}

/// The weighted squared error of the network's prediction at random steps.
pub struct UNetTask<'a> {
    net: UNet,
    averaged: UNet,
    vae: &'a Vae,
    latents: &'a Latents,
    validation: &'a Latents,
    classes: Arc<Vec<Class>>,
    batches: Batches,
    schedule: NoiseSchedule,
    config: &'a Config,
    device: Device,
    measure: Option<Measure<'a>>,
}

/// Noisy latents and what the network should say of them.
struct Example {
    noisy: Tensor,
    target: Tensor,
    times: Vec<f32>,
    classes: Vec<u32>,
    weights: Vec<f32>,
}

impl<'a> UNetTask<'a> {
    /// `params` and `ema` are empty; the networks are built in them.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        config: &'a Config,
        params: &Params,
        ema: &Params,
        vae: &'a Vae,
        latents: &'a Latents,
        validation: &'a Latents,
        classes: &Arc<Vec<Class>>,
        device: &Device,
    ) -> Result<Self> {
        let shape = config.latents(classes.len());
        Ok(UNetTask {
            net: UNet::new(&config.unet, shape, params.builder())?,
            averaged: UNet::new(&config.unet, shape, ema.builder())?,
            vae,
            latents,
            validation,
            classes: classes.clone(),
            batches: Batches::new(config.seed, latents.len(), config.train.unet.batch_size),
            schedule: NoiseSchedule::new(config.diffusion.schedule, config.diffusion.steps),
            config,
            device: device.clone(),
            measure: None,
        })
    }

    /// Has sampled images measured at every validation. Their first figure then says which weights are best.
    pub fn measured_by(self, measure: Option<Measure<'a>>) -> Self {
        UNetTask { measure, ..self }
    }

    /// Draws steps, noise and dropped classes for the latents at `indices`, and makes those of `part` of them.
    fn example(
        &self,
        latents: &Latents,
        indices: &[usize],
        part: Range<usize>,
        rng: &mut Rng,
        dropout: f64,
    ) -> Result<Example> {
        let (len, diffusion) = (latents.latent_len(), &self.config.diffusion);
        let (mut places, mut streams, mut factors) = (Vec::new(), Vec::new(), Vec::new());
        let (mut times, mut classes, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (number, &i) in indices.iter().enumerate() {
            let t = rng.below(self.schedule.len());
            let dropped = f64::from(rng.uniform()) < dropout;
            let variant = rng.below(latents.variants());
            let noise = rng.clone();
            rng.skip(len.next_multiple_of(2) as u64);
            if !part.contains(&number) {
                continue;
            }
            let a = self.schedule.alpha_bar[t];
            let target = diffusion.prediction.target_factors(a);
            places.push(latents.place(i, variant));
            streams.push(noise);
            factors.push([a.sqrt(), (1.0 - a).sqrt(), target.0, target.1].map(|factor| factor as f32));
            times.push(t as f32);
            classes.push(if dropped { self.classes.len() as u32 } else { latents.labels[i].into() });
            weights.push(diffusion.prediction.loss_weight(self.schedule.snr(t), diffusion.min_snr_gamma) as f32);
        }
        let noise = ops::normal(&streams, len, &self.device)?;
        let (noisy, target) = ops::diffuse(&latents.values, &places, &noise, &factors)?;
        let shape = (part.len(), latents.size, latents.size, latents.channels);
        Ok(Example { noisy: noisy.reshape(shape)?, target: target.reshape(shape)?, times, classes, weights })
    }

    fn error(&self, net: &UNet, tape: &Tape, example: &Example) -> Result<Value> {
        let noisy = Value::constant(example.noisy.clone());
        let prediction = net.forward(tape, &noisy, &example.times, &example.classes)?;
        ops::squared_error(tape, &prediction, &example.target, Some(&example.weights))
    }

    /// Images of the averaged network, from noise that every call shares, without guidance, which would narrow them.
    fn images_to_measure(&self, count: usize) -> Result<ImageSet> {
        let classes = self.classes.len();
        let images: Vec<(u32, u32)> = (0..count).map(|i| ((i % classes) as u32, (i / classes) as u32)).collect();
        let sampling = Sampling {
            method: SamplerKind::DpmSolver,
            steps: MEASURED_STEPS.min(self.schedule.len()),
            guidance: 1.0,
            eta: 0.0,
            seed: self.config.seed,
        };
        let mut pixels = Vec::new();
        for batch in images.chunks(self.config.sampler.batch_size) {
            pixels.extend(self.generator().sample(batch, &sampling, &interrupt::check)?);
        }
        let labels = images.iter().map(|&(class, _)| class as u16).collect();
        Ok(ImageSet { pixels, labels, size: self.config.image_size, classes: self.classes.clone() })
    }

    fn generator(&self) -> Generator<'_> {
        Generator {
            vae: self.vae,
            unet: &self.averaged,
            statistics: &self.latents.statistics,
            config: self.config,
            classes: self.classes.len(),
            device: self.device.clone(),
        }
    }
}

impl Task for UNetTask<'_> {
    fn loss(&self, tape: &Tape, step: u64, part: Range<usize>) -> Result<Value> {
        let mut rng = Rng::stream(self.config.seed, "unet step", step as u32, 0);
        let dropout = self.config.diffusion.class_dropout;
        let example = self.example(self.latents, &self.batches.at(step), part, &mut rng, dropout)?;
        self.error(&self.net, tape, &example)
    }

    /// The averaged network's loss on fixed latents, steps and noise; first of all what is measured of its images.
    fn validate(&self) -> Result<Validation> {
        let mut rng = Rng::stream(self.config.seed, "validation", 0, 0);
        let indices: Vec<usize> = (0..self.validation.len()).collect();
        let mut total = 0.0;
        for batch in indices.chunks(128) {
            let example = self.example(self.validation, batch, 0..batch.len(), &mut rng, 0.0)?;
            total +=
                f64::from(self.error(&self.averaged, &Tape::inference(), &example)?.scalar()?) * batch.len() as f64;
        }
        let mut figures = match &self.measure {
            Some(measure) => (measure.figures)(&self.images_to_measure(measure.images)?)?,
            None => Vec::new(),
        };
        figures.push(("validation_loss", total / indices.len().max(1) as f64));
        Ok(figures)
    }

    /// A column a class, the same noise in every picture.
    fn draw(&self, path: &Path) -> Result<()> {
        let columns = PICTURE_COLUMNS.min(self.classes.len());
        let class = |column: usize| (column * self.classes.len() / columns) as u32;
        let images: Vec<(u32, u32)> =
            (0..PICTURE_ROWS as u32).flat_map(|row| (0..columns).map(move |column| (class(column), row))).collect();
        let usual = Sampling::of(self.config, PICTURE_IPC, self.config.seed);
        let sampling = Sampling { steps: PICTURE_STEPS.min(self.schedule.len()), ..usual };
        let pixels = self.generator().sample(&images, &sampling, &interrupt::check)?;
        let size = self.config.image_size;
        let images: Vec<&[u8]> = pixels.chunks(size * size * 3).collect();
        save_grid(path, &images, size, columns, 2)
    }
}
