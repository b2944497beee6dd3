//! What one seed decides: the same bits on every device, on their way there and back.

use candle_core::{Device, Tensor};
use rand::RngCore;

use super::{Allowed, Check, NONE};
use crate::diffusion::NoiseSource;
use crate::error::Result;
use crate::models::unet::{LatentShape, UNet};
use crate::nn::Params;
use crate::ops::check::{Finding, doubles, floats, largest};
use crate::ops::{diffuse, normal, overwrite};
use crate::rng::Rng;
use crate::train::Batches;

/// The first bits of the stream "check" of seed 0, and the first of 1,000 examples in that seed's batches, as a program of
/// its own in Python found them.
const BITS: [u32; 4] = [2_253_947_791, 1_502_840_684, 2_514_593_542, 3_986_895_526];
const EXAMPLES: [usize; 8] = [211, 417, 624, 687, 2, 430, 229, 203];

/// The same bits, with other roundings.
const OF_NOISE: Allowed = Allowed { f32: 1e-6, tf32: 1e-6, bf16: 1e-6 };

pub fn checks() -> Vec<Check> {
    let check = |name: &str, shapes: &str, allowed: Allowed, run: fn(&Device) -> Result<Vec<Finding>>| Check {
        name: name.into(),
        shapes: shapes.into(),
        allowed,
        run: Box::new(run),
    };
    vec![
        check("uniform bits", "4", NONE, |_| bits()),
        check("batch order", "8 of 1000", NONE, |_| batches()),
        check("noise", "3x8x8x4", NONE, noise),
        check("noise of training", "5x513", OF_NOISE, noise_of_training),
        check("noisy latents", "4x513", OF_NOISE, mixtures),
        check("initial weights", "a small UNet", NONE, weights),
        check("overwritten tensor", "37x5", NONE, overwritten),
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

/// As a UNet's step draws it: on the device itself.
fn noise_of_training(device: &Device) -> Result<Vec<Finding>> {
    let mut streams: Vec<Rng> = (0..5).map(|i| Rng::stream(0, "check noise", i, 3)).collect();
    for (draws, rng) in streams.iter_mut().enumerate() {
        rng.skip(draws as u64);
    }
    let expected: Vec<f64> = streams.iter().flat_map(|rng| rng.clone().normal(513)).map(f64::from).collect();
    Ok(vec![Finding::between("values", &doubles(&normal(&streams, 513, device)?)?, &expected, 1.0)?])
}

/// Latents and noise mixed as a UNet's step does it, beside the formula.
fn mixtures(device: &Device) -> Result<Vec<Finding>> {
    let (n, len, places) = (7, 513, [6, 0, 3, 6]);
    let values = |name: &str, rows: usize| Rng::stream(0, name, 0, 0).normal(rows * len);
    let (latents, noise) = (values("check latents", n), values("check noise", places.len()));
    let factors: Vec<[f32; 4]> =
        values("check factors", 1).chunks_exact(4).take(4).map(|f| [f[0], f[1], f[2], f[3]]).collect();
    let on_device = |values: &[f32], rows: usize| Tensor::from_slice(values, (rows, len), device);
    let (noisy, target) = diffuse(&on_device(&latents, n)?, &places, &on_device(&noise, places.len())?, &factors)?;
    let expected = |first: usize| -> Vec<f64> {
        let of_row = |row: usize| {
            let [a, b] = [factors[row][first], factors[row][first + 1]].map(f64::from);
            let x = &latents[places[row] as usize * len..][..len];
            let mix = move |(x, e): (&f32, &f32)| a * f64::from(*x) + b * f64::from(*e);
            x.iter().zip(&noise[row * len..][..len]).map(mix).collect::<Vec<_>>()
        };
        (0..places.len()).flat_map(of_row).collect()
    };
    let finding = |of: &str, found: &Tensor, expected: Vec<f64>| {
        Finding::between(of, &doubles(found)?, &expected, largest(&expected, 1e-6))
    };
    Ok(vec![finding("noisy", &noisy, expected(0))?, finding("target", &target, expected(2))?])
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
