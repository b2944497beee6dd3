//! Group normalization with an optional scale-shift and activation, fused, one image after the other so that an image
//! stays in L2 through all passes.

use std::mem::MaybeUninit;

use multiversion::multiversion;
use rayon::prelude::*;

use super::elementwise::{sigmoid, silu_derivative};
use super::overwritten;

/// What follows a normalization in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Identity,
    Relu,
    Silu,
}

/// The sizes of one normalization over (batch, pixels, channels).
#[derive(Clone, Copy, Debug)]
pub struct NormShape {
    pub batch: usize,
    pub pixels: usize,
    pub channels: usize,
    pub groups: usize,
}

/// The trainable and per-image factors: y = act((x_hat gamma + beta) (1 + scale) + shift).
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// (C)
    pub gamma: &'a [f32],
    /// (C)
    pub beta: &'a [f32],
    /// (B, 2C): scale, then shift.
    pub scale_shift: Option<&'a [f32]>,
}

/// What [`backward`] returns beside the input's gradient; shapes as in the forward pass.
pub struct NormGradients {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub scale_shift: Option<Vec<f32>>,
}

/// Returns the output and the statistics (B, 2C): mean and 1 / std of each channel's group.
pub fn forward(shape: &NormShape, x: &[f32], affine: Affine, act: Activation, eps: f32) -> (Vec<f32>, Vec<f32>) {
    let c = shape.channels;
    let mut statistics = vec![0.0; shape.batch * 2 * c];
    let image = shape.pixels * c;
    let normalize = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(image).zip(x.par_chunks(image)).zip(statistics.par_chunks_mut(2 * c)).enumerate().for_each(
            |(n, ((out, x), statistics))| {
                image_statistics(shape, x, eps, statistics);
                let (a, b) = scale_and_offset(shape, statistics, affine, n);
                match act {
                    Activation::Identity => apply_identity(x, &a, &b, out),
                    Activation::Relu => apply_relu(x, &a, &b, out),
                    Activation::Silu => apply_silu(x, &a, &b, out),
                }
            },
        );
    };
    // SAFETY: the images cover the output, and `apply_...` writes all of an image's rows.
    let out = unsafe { overwritten(x.len(), normalize) };
    (out, statistics)
}

/// All gradients from that of the output, the input and the statistics of the forward pass.
pub fn backward(
    shape: &NormShape,
    x: &[f32],
    dx: &mut [f32],
    statistics: &[f32],
    affine: Affine,
    act: Activation,
) -> NormGradients {
    let c = shape.channels;
    let image = shape.pixels * c;
    // Per image and channel: sum of du, then sum of du x_hat, where u is what the activation was applied to.
    let mut sums = vec![0.0; shape.batch * 2 * c];
    dx.par_chunks_mut(image).zip(x.par_chunks(image)).zip(sums.par_chunks_mut(2 * c)).enumerate().for_each(
        |(n, ((dx, x), sums))| {
            let statistics = &statistics[n * 2 * c..][..2 * c];
            let (a, b) = scale_and_offset(shape, statistics, affine, n);
            let (du, du_xhat) = sums.split_at_mut(c);
            match act {
                Activation::Identity => {}
                Activation::Relu => through_relu(x, &a, &b, dx),
                Activation::Silu => through_silu(x, &a, &b, dx),
            }
            reduce(x, dx, statistics, du, du_xhat);
            let (p, q, r) = input_factors(shape, statistics, affine, n, du, du_xhat);
            combine(x, &p, &q, &r, dx);
        },
    );
    parameter_gradients(shape, &sums, affine)
}

fn parameter_gradients(shape: &NormShape, sums: &[f32], affine: Affine) -> NormGradients {
    let c = shape.channels;
    let (mut gamma, mut beta) = (vec![0.0; c], vec![0.0; c]);
    let mut scale_shift = affine.scale_shift.map(|_| Vec::with_capacity(shape.batch * 2 * c));
    for (n, sums) in sums.chunks(2 * c).enumerate() {
        let (du, du_xhat) = sums.split_at(c);
        for i in 0..c {
            let scale = 1.0 + affine.scale_shift.map_or(0.0, |s| s[n * 2 * c + i]);
            gamma[i] += scale * du_xhat[i];
            beta[i] += scale * du[i];
        }
        if let Some(out) = &mut scale_shift {
            out.extend((0..c).map(|i| affine.gamma[i] * du_xhat[i] + affine.beta[i] * du[i]));
            out.extend_from_slice(du);
        }
    }
    NormGradients { gamma, beta, scale_shift }
}

/// Mean and 1 / std of each group, written once for each of its channels. Two passes: f32 sums of squares would lose
/// digits where the mean is large.
fn image_statistics(shape: &NormShape, x: &[f32], eps: f32, out: &mut [f32]) {
    let (mean, rstd) = out.split_at_mut(shape.channels);
    channel_sums(x, mean);
    average_groups(shape, mean);
    centered_squares(x, mean, rstd);
    average_groups(shape, rstd);
    for r in rstd {
        *r = 1.0 / (*r + eps).sqrt();
    }
}

/// Replaces channel sums by the mean over their group's channels and pixels.
fn average_groups(shape: &NormShape, sums: &mut [f32]) {
    let width = shape.channels / shape.groups;
    for group in sums.chunks_mut(width) {
        let total: f64 = group.iter().map(|&v| f64::from(v)).sum();
        group.fill((total / (width * shape.pixels) as f64) as f32);
    }
}

/// y = act(a x + b): the normalization of image `n` as one factor and one offset a channel.
fn scale_and_offset(shape: &NormShape, statistics: &[f32], affine: Affine, n: usize) -> (Vec<f32>, Vec<f32>) {
    let c = shape.channels;
    (0..c)
        .map(|i| {
            let (mean, rstd) = (statistics[i], statistics[c + i]);
            let (scale, shift) = affine.scale_shift.map_or((0.0, 0.0), |s| (s[n * 2 * c + i], s[n * 2 * c + c + i]));
            let a = rstd * affine.gamma[i] * (1.0 + scale);
            (a, affine.beta[i] * (1.0 + scale) + shift - mean * a)
        })
        .unzip()
}

/// dx = p du + q x + r, from d x_hat = du gamma (1 + scale) and
/// dx = rstd (d x_hat - mean(d x_hat) - x_hat mean(d x_hat x_hat)), means over the group.
fn input_factors(
    shape: &NormShape,
    statistics: &[f32],
    affine: Affine,
    n: usize,
    du: &[f32],
    du_xhat: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let c = shape.channels;
    let full_gamma = |i: usize| affine.gamma[i] * (1.0 + affine.scale_shift.map_or(0.0, |s| s[n * 2 * c + i]));
    let mut m1: Vec<f32> = (0..c).map(|i| full_gamma(i) * du[i]).collect();
    let mut m2: Vec<f32> = (0..c).map(|i| full_gamma(i) * du_xhat[i]).collect();
    average_groups(shape, &mut m1);
    average_groups(shape, &mut m2);
    let (mut p, mut q, mut r) = (vec![0.0; c], vec![0.0; c], vec![0.0; c]);
    for i in 0..c {
        let (mean, rstd) = (statistics[i], statistics[c + i]);
        p[i] = rstd * full_gamma(i);
        q[i] = -rstd * rstd * m2[i];
        r[i] = -rstd * m1[i] - q[i] * mean;
    }
    (p, q, r)
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn channel_sums(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += x;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn centered_squares(x: &[f32], mean: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for ((s, x), m) in sums.iter_mut().zip(row).zip(mean) {
            *s += (x - m) * (x - m);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn apply_identity(x: &[f32], a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (out, x) in out.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((o, x), a), b) in out.iter_mut().zip(x).zip(a).zip(b) {
            o.write(a * x + b);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn apply_relu(x: &[f32], a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (out, x) in out.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((o, x), a), b) in out.iter_mut().zip(x).zip(a).zip(b) {
            let u = a * x + b;
            o.write(if u > 0.0 { u } else { 0.0 * u }); // 0 * u keeps a NaN visible
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn apply_silu(x: &[f32], a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (out, x) in out.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((o, x), a), b) in out.iter_mut().zip(x).zip(a).zip(b) {
            let u = a * x + b;
            o.write(u * sigmoid(u));
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn through_relu(x: &[f32], a: &[f32], b: &[f32], du: &mut [f32]) {
    for (du, x) in du.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((d, x), a), b) in du.iter_mut().zip(x).zip(a).zip(b) {
            *d = if a * x + b > 0.0 { *d } else { 0.0 };
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn through_silu(x: &[f32], a: &[f32], b: &[f32], du: &mut [f32]) {
    for (du, x) in du.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((d, x), a), b) in du.iter_mut().zip(x).zip(a).zip(b) {
            *d *= silu_derivative(a * x + b);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn reduce(x: &[f32], du: &[f32], statistics: &[f32], sum: &mut [f32], sum_xhat: &mut [f32]) {
    let c = sum.len();
    let (mean, rstd) = statistics.split_at(c);
    for (du, x) in du.chunks_exact(c).zip(x.chunks_exact(c)) {
        for ((((s, sx), d), x), m) in sum.iter_mut().zip(sum_xhat.iter_mut()).zip(du).zip(x).zip(mean) {
            *s += d;
            *sx += d * (x - m);
        }
    }
    for (sx, r) in sum_xhat.iter_mut().zip(rstd) {
        *sx *= r;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn combine(x: &[f32], p: &[f32], q: &[f32], r: &[f32], dx: &mut [f32]) {
    for (dx, x) in dx.chunks_exact_mut(p.len()).zip(x.chunks_exact(p.len())) {
        for ((((d, x), p), q), r) in dx.iter_mut().zip(x).zip(p).zip(q).zip(r) {
            *d = p * *d + q * x + r;
        }
    }
}
