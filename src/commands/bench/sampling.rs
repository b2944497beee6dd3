//! The work of a whole batch of images: sampling under guidance, and decoding.

use std::rc::Rc;

use candle_core::Device;

use super::works::{CLASSES, Forward, Work, prediction, randomize};
use crate::config::Config;
use crate::error::Result;
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::nn::Params;
use crate::ops::Tape;
use crate::stages::{Generator, LatentStatistics, Sampling};

/// A step samples and decodes `batch` images as `distill sample` does. `forward`, which other programs compare, is one
/// prediction, decoded.
pub fn sample(config: &Config, batch: usize, device: &Device) -> Result<Work> {
    let (params, shape) = (Params::new(0, device), config.latents(CLASSES));
    let vae = Vae::new(&config.vae, params.builder().pp("vae"))?;
    let unet = UNet::new(&config.unet, shape, params.builder().pp("unet"))?;
    randomize(&params)?;
    let (inputs, predict) = prediction(unet.clone(), config, batch, device)?;
    let decoder = vae.clone();
    let forward: Forward = Rc::new(move |tape: &Tape| {
        let output = decoder.decode(tape, &predict(tape)?)?;
        Ok((output.clone(), output))
    });
    let images: Vec<(u32, u32)> = (0..batch).map(|i| ((i % CLASSES) as u32, (i / CLASSES) as u32)).collect();
    let statistics = LatentStatistics { mean: vec![0.0; shape.channels], std: vec![1.0; shape.channels] };
    let (config, device) = (config.clone(), device.clone());
    let ipc = batch.div_ceil(CLASSES) as u32;
    let step = Box::new(move |seed| {
        let (vae, unet, statistics, config, device) = (&vae, &unet, &statistics, &config, device.clone());
        let generator = Generator { vae, unet, statistics, config, classes: CLASSES, device };
        generator.sample(&images, &Sampling::of(config, ipc, seed), &|| Ok(())).map(|_| ())
    });
    Ok(Work { params, inputs, forward, trains: false, step, images: batch })
}
