//! Poolings that are layers of their own: the maximum of 2 x 2 pixels, and the mean of all.

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::norm::channel_sums;

/// The largest of every 2 x 2 pixels of images (height, width, channels), and which of the four it is, the first of equals;
/// a NaN counts as largest. An odd last row or column is left out.
pub fn max<E: Element>(x: &[E], (height, width, channels): (usize, usize, usize)) -> (Vec<E>, Vec<u8>) {
    let (row, len) = (width * channels, height / 2 * (width / 2) * channels);
    let batch = x.len() / (height * row);
    let (mut out, mut places) = (vec![E::default(); batch * len], vec![0; batch * len]);
    let images = out.par_chunks_mut(len).zip(places.par_chunks_mut(len)).zip(x.par_chunks(height * row));
    images.for_each(|((out, places), x)| {
        let out_row = width / 2 * channels;
        let rows = out.chunks_mut(out_row).zip(places.chunks_mut(out_row)).zip(x.chunks_exact(2 * row));
        rows.for_each(|((out, places), x)| max_row(x, row, channels, out, places));
    });
    (out, places)
}

/// One row of outputs from two rows of pixels, each of `row` elements.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn max_row<E: Element>(x: &[E], row: usize, channels: usize, out: &mut [E], places: &mut [u8]) {
    for (i, (out, places)) in out.chunks_exact_mut(channels).zip(places.chunks_exact_mut(channels)).enumerate() {
        let first = 2 * i * channels;
        out.copy_from_slice(&x[first..first + channels]);
        for (place, at) in [(1, first + channels), (2, first + row), (3, first + row + channels)] {
            for ((out, p), &x) in out.iter_mut().zip(places.iter_mut()).zip(&x[at..at + channels]) {
                let larger = x.widen() > out.widen() || x.widen().is_nan();
                *out = if larger { x } else { *out };
                *p = if larger { place } else { *p };
            }
        }
    }
}

/// The gradient of `batch` images from that of their maxima and the places of these.
pub fn max_backward<E: Element>(
    gradient: &[E],
    places: &[u8],
    (height, width, channels): (usize, usize, usize),
    batch: usize,
) -> Vec<E> {
    let (row, len) = (width * channels, height / 2 * (width / 2) * channels);
    let mut out = vec![E::default(); batch * height * row];
    let images = out.par_chunks_mut(height * row).zip(gradient.par_chunks(len)).zip(places.par_chunks(len));
    images.for_each(|((out, gradient), places)| {
        for (i, (&g, &place)) in gradient.iter().zip(places).enumerate() {
            let (pixel, channel, place) = (i / channels, i % channels, usize::from(place));
            let (y, x) = (pixel / (width / 2) * 2 + place / 2, pixel % (width / 2) * 2 + place % 2);
            out[y * row + x * channels + channel] = g;
        }
    });
    out
}

/// The mean over the `pixels` of each image: (B, channels).
pub fn mean<E: Element>(x: &[E], pixels: usize, channels: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / pixels];
    out.par_chunks_mut(channels).zip(x.par_chunks(pixels * channels)).for_each(|(out, x)| {
        channel_sums(x, out);
        out.iter_mut().for_each(|v| *v /= pixels as f32);
    });
    out
}

/// The gradient of the images from that of their means.
pub fn mean_backward<E: Element>(gradient: &[f32], pixels: usize, channels: usize) -> Vec<E> {
    let mut out = vec![E::default(); gradient.len() * pixels];
    out.par_chunks_mut(pixels * channels).zip(gradient.par_chunks(channels)).for_each(|(out, gradient)| {
        for out in out.chunks_exact_mut(channels) {
            for (out, g) in out.iter_mut().zip(gradient) {
                *out = E::round(g / pixels as f32);
            }
        }
    });
    out
}
