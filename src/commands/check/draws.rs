//! What one seed decides: the same bits on every device, on their way there and back.

use candle_core::{Device, Tensor};
use rand::RngCore;

use super::{Check, NONE};
use crate::diffusion::NoiseSource;
use crate::error::Result;
use crate::models::unet::{LatentShape, UNet};
use crate::nn::Params;
use crate::ops::check::{Finding, floats};
use crate::ops::overwrite;
use crate::rng::Rng;
use crate::train::Batches;

/// The first bits of the stream "check" of seed 0, and the first of 1,000 examples in that seed's batches, as a program of
/// its own in Python found them.
const BITS: [u32; 4] = [2_253_947_791, 1_502_840_684, 2_514_593_542, 3_986_895_526];
const EXAMPLES: [usize; 8] = [211, 417, 624, 687, 2, 430, 229, 203];

pub fn checks() -> Vec<Check> {
    let check = |name: &str, shapes: &str, run: fn(&Device) -> Result<Vec<Finding>>| Check {
        name: name.into(),
        shapes: shapes.into(),
        allowed: NONE,
        run: Box::new(run),
    };
    vec![
        check("uniform bits", "4", |_| bits()),
        check("batch order", "8 of 1000", |_| batches()),
        check("noise", "3x8x8x4", noise),
        check("initial weights", "a small UNet", weights),
        check("overwritten tensor", "37x5", overwritten),
    ]
}

/// How many elements are not the same bits.
fn different(of: &str, found: &[f32], expected: &[f32]) -> Result<Finding> {
    let same = |(a, b): (&f32, &f32)| f64::from(u8::from(a.to_bits() != b.to_bits()));
    let differing: f64 = found.iter().zip(expected).map(same).sum();
    let missing = found.len().abs_diff(expected.len()) as f64;
    Finding::between(format!("{of}: differing elements"), &[differing + missing], &[0.0], 1.0)
}

fn bits() -> Result<Vec<Finding>> {
    let mut rng = Rng::stream(0, "check", 0, 0);
    let found = BITS.map(|_| f64::from(rng.next_u32()));
    Ok(vec![Finding::between("bits", &found, &BITS.map(f64::from), 1.0)?])
}

fn batches() -> Result<Vec<Finding>> {
    let batches = Batches::new(0, 1000, 4);
    let found: Vec<f64> = (0..2).flat_map(|step| batches.at(step)).map(|i| i as f64).collect();
    Ok(vec![Finding::between("examples", &found, &EXAMPLES.map(|i| i as f64), 1.0)?])
}

fn noise(device: &Device) -> Result<Vec<Finding>> {
    let images = vec![(0, 0), (7, 3), (99, 9)];
    let of =
        |device: &Device| NoiseSource { seed: 0, images: images.clone(), size: 8, channels: 4, device: device.clone() };
    let (there, here) = (of(device), of(&Device::Cpu));
    Ok(vec![
        different("what sampling starts from", &floats(&there.initial()?)?, &floats(&here.initial()?)?)?,
        different("the noise of step 3", &floats(&there.of_step(3)?)?, &floats(&here.of_step(3)?)?)?,
    ])
}

fn weights(device: &Device) -> Result<Vec<Finding>> {
    let build = |device: &Device| {
        let params = Params::new(0, device);
        UNet::new(&super::networks::unet_sizes(), LatentShape { size: 8, channels: 4, classes: 10 }, params.builder())?;
        Result::Ok(params.named())
    };
    let pairs = build(device)?.into_iter().zip(build(&Device::Cpu)?);
    pairs.map(|((name, there), (_, here))| different(&name, &floats(&there)?, &floats(&here)?)).collect()
}

fn overwritten(device: &Device) -> Result<Vec<Finding>> {
    let source = Tensor::from_vec(Rng::stream(0, "source", 0, 0).normal(37 * 5), (37, 5), &Device::Cpu)?;
    let target = Tensor::zeros((37, 5), source.dtype(), device)?;
    overwrite(&target, &source)?;
    Ok(vec![different("values", &floats(&target)?, &floats(&source)?)?])
}
