//! Nearest-neighbour up-sampling and average pooling by a factor of two, NHWC.

use std::mem::MaybeUninit;

use multiversion::multiversion;
use rayon::prelude::*;

use super::{copy_to, overwritten};

/// (B, H, W, C) to (B, 2H, 2W, C): every pixel four times.
pub fn upsample2x(x: &[f32], width: usize, channels: usize) -> Vec<f32> {
    let row = width * channels;
    let write = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(4 * row).zip(x.par_chunks(row)).for_each(|(out, x)| {
            for out in out.chunks_mut(2 * row) {
                for (out, pixel) in out.chunks_mut(2 * channels).zip(x.chunks(channels)) {
                    copy_to(&mut out[..channels], pixel);
                    copy_to(&mut out[channels..], pixel);
                }
            }
        });
    };
    // SAFETY: both copies of a row hold both copies of each pixel.
    unsafe { overwritten(x.len() * 4, write) }
}

/// (B, H, W, C) to (B, H/2, W/2, C): `factor` times the sum of each 2 x 2 block. A factor of 1/4 is average pooling, a
/// factor of 1 the gradient of [`upsample2x`]. An odd last row or column is left out.
pub fn sum_blocks(x: &[f32], (height, width, channels): (usize, usize, usize), factor: f32) -> Vec<f32> {
    let (oh, ow) = (height / 2, width / 2);
    let images = x.len() / (height * width * channels);
    let write = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(oh * ow * channels).zip(x.par_chunks(height * width * channels)).for_each(|(out, x)| {
            for (i, out) in out.chunks_mut(channels).enumerate() {
                let corner = ((i / ow) * 2 * width + (i % ow) * 2) * channels;
                sum_block(&x[corner..][..2 * channels], &x[corner + width * channels..][..2 * channels], factor, out);
            }
        });
    };
    // SAFETY: `sum_block` writes every channel of each pixel.
    unsafe { overwritten(images * oh * ow * channels, write) }
}

/// `factor` times the sum of four pixels, two in each of `top` and `bottom`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn sum_block(top: &[f32], bottom: &[f32], factor: f32, out: &mut [MaybeUninit<f32>]) {
    let ((a, b), (c, d)) = (top.split_at(out.len()), bottom.split_at(out.len()));
    for ((((o, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        o.write(factor * ((a + b) + (c + d)));
    }
}

/// The gradient of average pooling: a quarter of each output's gradient to each of its four inputs.
pub fn avg_pool2x_backward(g: &[f32], (height, width, channels): (usize, usize, usize)) -> Vec<f32> {
    let (oh, ow) = (height / 2, width / 2);
    let images = g.len() / (oh * ow * channels);
    let mut out = vec![0.0; images * height * width * channels];
    out.par_chunks_mut(height * width * channels).zip(g.par_chunks(oh * ow * channels)).for_each(|(out, g)| {
        for (row, out) in out.chunks_mut(width * channels).enumerate().take(2 * oh) {
            let g = &g[row / 2 * ow * channels..][..ow * channels];
            for (out, g) in out.chunks_mut(2 * channels).zip(g.chunks(channels)) {
                for (c, g) in g.iter().enumerate() {
                    out[c] = 0.25 * g;
                    out[channels + c] = 0.25 * g;
                }
            }
        }
    });
    out
}
