//! Statistics of each channel over a whole batch, and what their gradients add to it.

use std::mem::MaybeUninit;

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::norm::{centered_squares, channel_sums};
use super::{CHUNK, overwritten};

/// (means, biased variances) of the `channels` channels of all pixels `x`. Two passes: f32 sums of squares would lose digits
/// where the mean is large.
pub fn moments<E: Element>(x: &[E], channels: usize) -> (Vec<f32>, Vec<f32>) {
    let mean = means(x, channels, &|x, sums| channel_sums(x, sums));
    let variance = means(x, channels, &|x, sums| centered_squares(x, &mean, sums));
    (mean, variance)
}

/// The means over all pixels of what `add` adds up of some of them.
fn means<E: Element>(x: &[E], channels: usize, add: &(dyn Fn(&[E], &mut [f32]) + Sync)) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = x
        .par_chunks(rows(channels))
        .map(|x| {
            let mut sums = vec![0.0; channels];
            add(x, &mut sums);
            sums
        })
        .collect();
    let pixels = (x.len() / channels) as f64;
    (0..channels).map(|c| (parts.iter().map(|sums| f64::from(sums[c])).sum::<f64>() / pixels) as f32).collect()
}

/// Elements of a task: whole pixels.
fn rows(channels: usize) -> usize {
    (CHUNK / channels).max(1) * channels
}

/// q x + r, channel by channel.
pub fn affine<E: Element>(x: &[E], q: &[f32], r: &[f32]) -> Vec<E> {
    let write = |out: &mut [MaybeUninit<E>]| {
        let chunk = rows(q.len());
        out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| affine_rows(x, q, r, out));
    };
    // SAFETY: the chunks cover the output, and each is written whole.
    unsafe { overwritten(x.len(), write) }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn affine_rows<E: Element>(x: &[E], q: &[f32], r: &[f32], out: &mut [MaybeUninit<E>]) {
    for (out, x) in out.chunks_exact_mut(q.len()).zip(x.chunks_exact(q.len())) {
        for (((out, x), q), r) in out.iter_mut().zip(x).zip(q).zip(r) {
            out.write(E::round(q * x.widen() + r));
        }
    }
}
