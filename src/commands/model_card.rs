//! The model card, `README.md` beside the weights of a finished run: what it is, how it came to be, and how to use it.

use candle_core::Device;

use crate::data::Dataset;
use crate::distilled::rights;
use crate::error::Result;
use crate::fs::write_atomic;
use crate::run_dir::RunDir;
use crate::stages::{ModelCard, TrainedSummary};
use crate::train::load_weights;

/// Writes the card of a run that has finished.
pub fn write(run: &RunDir) -> Result<()> {
    let card = ModelCard::read(&run.weights("unet"), "unet")?;
    let config = &card.config;
    let title = config.dataset.title();
    let heldout = if config.train.hold_out { ", less a held-out tenth" } else { "" };
    let license = if config.dataset == Dataset::Shapes { "mit" } else { "other\nlicense_name: see-source" };
    let text = format!(
        "---\nlicense: {license}\npipeline_tag: unconditional-image-generation\ntags:\n- dataset-distillation\n- diffusion\n\
         - distill\n---\n\n\
         # {name}\n\n\
         A class-conditional latent diffusion model of {title}, trained by distill {version}: a VAE that turns images of \
         {size}x{size} pixels into latents and back, and a UNet that draws latents of a class. It draws small labelled data \
         sets that a classifier can be trained on.\n\n\
         ## Data set and license\n\n\
         The train split of {title}{heldout}: {classes} classes. {rights}\n\n\
         ## Training\n\n\
         | network | parameters | steps | images seen |\n| --- | --- | --- | --- |\n{vae}{unet}\n\
         `config.toml` has every setting, `meta.json` the version, the command, the machine and a hash of the data, \
         `vae/summary.json` and `unet/summary.json` the times.\n\n\
         ## Sampling\n\n\
         ```sh\ndistill sample --run {root} --ipc 10\n```\n\n\
         Defaults: {method}, {steps} steps, guidance {guidance}. With the same settings an image depends on the seed, its class \
         and its number alone. The \
         weights (`vae/final.safetensors`, `unet/final.safetensors`) are averages over training in the safetensors format.\n\n\
         ## Intended use and limits\n\n\
         For research on dataset distillation: report an accuracy beside its protocol and beside as many random real images. \
         The model knows {classes} classes at {size}x{size} pixels and nothing else. It repeats what its data set holds, \
         errors and biases too, and may come close to single training images: do not publish one that learned private data. \
         Not for decisions about people.\n",
        name = run.name(),
        version = card.distill,
        size = config.image_size,
        classes = card.classes.len(),
        rights = rights(&config.dataset),
        vae = row(run, "vae")?,
        unet = row(run, "unet")?,
        root = run.root.display(),
        method = config.sampler.method,
        steps = config.sampler.steps,
        guidance = config.sampler.guidance,
    );
    write_atomic(&run.model_card(), text.as_bytes())
}

/// A stage's line of the table.
fn row(run: &RunDir, stage: &str) -> Result<String> {
    let summary = TrainedSummary::read(run, stage)?.training;
    let weights = load_weights(&run.weights(stage), &Device::Cpu)?;
    let parameters: usize = weights.values().map(|tensor| tensor.elem_count()).sum();
    let name = if stage == "vae" { "VAE" } else { "UNet" };
    Ok(format!("| {name} | {parameters} | {} | {} |\n", summary.steps, summary.images))
}
