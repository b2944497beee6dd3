//! Nearest-neighbour up-sampling and average pooling by a factor of two, NHWC.

use rayon::prelude::*;

/// (B, H, W, C) to (B, 2H, 2W, C): every pixel four times.
pub fn upsample2x(x: &[f32], width: usize, channels: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len() * 4];
    let row = width * channels;
    out.par_chunks_mut(4 * row).zip(x.par_chunks(row)).for_each(|(out, x)| {
        let (top, bottom) = out.split_at_mut(2 * row);
        for (out, pixel) in top.chunks_mut(2 * channels).zip(x.chunks(channels)) {
            out[..channels].copy_from_slice(pixel);
            out[channels..].copy_from_slice(pixel);
        }
        bottom.copy_from_slice(top);
    });
    out
}

/// (B, H, W, C) to (B, H/2, W/2, C): `factor` times the sum of each 2 x 2 block. A factor of 1/4 is average pooling, a
/// factor of 1 the gradient of [`upsample2x`]. An odd last row or column is left out.
pub fn sum_blocks(x: &[f32], (height, width, channels): (usize, usize, usize), factor: f32) -> Vec<f32> {
    let (oh, ow) = (height / 2, width / 2);
    let images = x.len() / (height * width * channels);
    let mut out = vec![0.0; images * oh * ow * channels];
    out.par_chunks_mut(oh * ow * channels).zip(x.par_chunks(height * width * channels)).for_each(|(out, x)| {
        for (i, out) in out.chunks_mut(channels).enumerate() {
            let corner = ((i / ow) * 2 * width + (i % ow) * 2) * channels;
            let (top, bottom) = (&x[corner..], &x[corner + width * channels..]);
            for c in 0..channels {
                out[c] = factor * ((top[c] + top[channels + c]) + (bottom[c] + bottom[channels + c]));
            }
        }
    });
    out
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
