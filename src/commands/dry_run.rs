//! `--dry-run`: the resolved configuration and what it costs.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::{print, to_json};
use crate::cli::Common;
use crate::config::Config;
use crate::error::Result;
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::nn::{Params, count};
use crate::ops::{Tape, Value};
use crate::usage;

/// What a plan makes room for, in parameters of one network: 2 GiB.
const MOST_PARAMETERS: usize = 1 << 29;

/// Shows the resolved configuration and what it costs, without touching data or disk.
///
/// `outputs`: what the command would write.
pub fn dry_run(config: &Config, classes: usize, outputs: &[PathBuf], common: &Common) -> Result<()> {
    let shape = config.latents(classes);
    for (name, values) in
        [("VAE", count(|vb| Vae::new(&config.vae, vb))?), ("UNet", count(|vb| UNet::new(&config.unet, shape, vb))?)]
    {
        if values > MOST_PARAMETERS {
            usage!("the {name} would have {values} parameters; expected at most {MOST_PARAMETERS}, make it smaller");
        }
    }
    let (vae, unet) = (Params::new(0, &Device::Cpu), Params::new(0, &Device::Cpu));
    let size = config.image_size;
    let zeros = |h: usize, c: usize| -> Result<Value> {
        Ok(Value::constant(Tensor::zeros((1, h, h, c), DType::F32, &Device::Cpu)?))
    };
    let (encode, decode, denoise) = (Tape::inference(), Tape::inference(), Tape::inference());
    let autoencoder = Vae::new(&config.vae, vae.builder())?;
    autoencoder.encode(&encode, &zeros(size, 3)?)?;
    autoencoder.decode(&decode, &zeros(shape.size, shape.channels)?)?;
    UNet::new(&config.unet, shape, unet.builder())?.forward(
        &denoise,
        &zeros(shape.size, shape.channels)?,
        &[0.0],
        &[0],
    )?;
    let plan = json!({
        "config": config,
        "vae_parameters": vae.count(),
        "unet_parameters": unet.count(),
        "latents": [shape.size, shape.size, shape.channels],
        "vae_encode_flops_per_image": encode.flops(),
        "vae_decode_flops_per_image": decode.flops(),
        "unet_forward_flops_per_image": denoise.flops(),
        "sampling_flops_per_image": sampling_flops(config, denoise.flops(), decode.flops()),
        "outputs": outputs,
    });
    if common.json {
        return print(&to_json(&plan)?);
    }
    let giga = |flops: u64| flops as f64 / 1e9;
    print(&format!(
        "{}\n# VAE: {} parameters, encoder {:.3} and decoder {:.3} GFLOP an image (training about three times both)\n\
         # UNet: {} parameters, {:.3} GFLOP an image and step, on latents {} x {} x {}\n# sampling: {:.1} GFLOP an image\n\
         # writes:\n{}",
        config.to_toml(),
        vae.count(),
        giga(encode.flops()),
        giga(decode.flops()),
        unet.count(),
        giga(denoise.flops()),
        shape.size,
        shape.size,
        shape.channels,
        giga(sampling_flops(config, denoise.flops(), decode.flops())),
        outputs.iter().map(|path| format!("#   {}", path.display())).collect::<Vec<_>>().join("\n"),
    ))
}

/// All evaluations of the UNet, both branches of guidance included, and one decoding.
fn sampling_flops(config: &Config, denoise: u64, decode: u64) -> u64 {
    let branches = if config.sampler.guidance.needs_both_branches() { 2 } else { 1 };
    denoise * branches * config.sampler.steps as u64 + decode
}
