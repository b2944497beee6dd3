//! 2-d convolution as matrix products over im2col bands: NHWC activations, OHWI weights (PyTorch's OIHW permuted by
//! 0, 2, 3, 1), square kernels.

use rayon::prelude::*;

use super::gemm::{Matrix, gemm};
use super::products::{self, Products};
use super::{amx, elementwise};

/// Output pixels per im2col band: the band and the weights stay in L2.
const BAND_PIXELS: usize = 192;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl ConvShape {
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }

    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Elements of one im2col row: kernel x kernel x in_channels.
    pub fn patch_len(&self) -> usize {
        self.kernel * self.kernel * self.in_channels
    }

    /// Whether the input itself is its own im2col matrix.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Output rows (of `out_width` pixels) in a band.
    fn band_rows(&self) -> usize {
        (BAND_PIXELS / self.out_width()).max(1)
    }

    /// The stride-1 convolution that takes the output's gradient to the input's.
    pub(super) fn transposed(&self) -> ConvShape {
        ConvShape {
            height: self.out_height(),
            width: self.out_width(),
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            padding: self.kernel - 1 - self.padding,
            ..*self
        }
    }
}

/// The convolution of `x` (B, H, W, I) with `weight` (O, K, K, I), plus `bias` (O), plus `residual`: (B, OH, OW, O).
pub fn forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    if products::current() == Products::Bf16 {
        return amx::forward(shape, x, weight, bias, residual);
    }
    let len = shape.batch * shape.out_height() * shape.out_width() * shape.out_channels;
    let mut out = elementwise::bias_rows(len, shape.out_channels, bias, residual);
    add_products(shape, x, weight, &mut out);
    out
}

/// Adds the convolution of `x` with `weight` to `out`.
fn add_products(shape: &ConvShape, x: &[f32], weight: &[f32], out: &mut [f32]) {
    let (patch, channels) = (shape.patch_len(), shape.out_channels);
    let band_len = shape.band_rows() * shape.out_width() * channels;
    out.par_chunks_mut(band_len).enumerate().for_each_init(Vec::new, |columns, (band, out)| {
        let pixels = out.len() / channels;
        let lhs = band_columns(shape, x, band * shape.band_rows(), pixels, columns);
        let size = (pixels, channels, patch);
        gemm(out, channels, size, Matrix::rows(lhs, patch), Matrix::transposed(weight, patch), 1.0, 1.0);
    });
}

/// The gradient of the input, (B, H, W, I), from that of the output.
pub fn input_gradient(shape: &ConvShape, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
    if products::current() == Products::Bf16 {
        return amx::input_gradient(shape, gradient, weight);
    }
    let mut dx = vec![0.0; shape.batch * shape.height * shape.width * shape.in_channels];
    if shape.stride == 1 && shape.padding < shape.kernel {
        add_products(&shape.transposed(), gradient, &flipped(shape, weight), &mut dx);
        return dx;
    }
    let (patch, channels) = (shape.patch_len(), shape.out_channels);
    let image_out = shape.out_height() * shape.out_width() * channels;
    let image_in = shape.height * shape.width * shape.in_channels;
    dx.par_chunks_mut(image_in).zip(gradient.par_chunks(image_out)).for_each_init(
        Vec::new,
        |columns, (dx, gradient)| {
            let pixels = image_out / channels;
            columns.resize(pixels * patch, 0.0);
            let size = (pixels, patch, channels);
            gemm(columns, patch, size, Matrix::rows(gradient, channels), Matrix::rows(weight, patch), 1.0, 0.0);
            scatter_add(shape, columns, dx);
        },
    );
    dx
}

/// The gradient of the weight, (O, K, K, I), from the input and the output's gradient.
pub fn weight_gradient(shape: &ConvShape, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    if products::current() == Products::Bf16 {
        return amx::weight_gradient(shape, x, gradient);
    }
    let (patch, channels) = (shape.patch_len(), shape.out_channels);
    let rows = shape.batch * shape.out_height();
    let row_len = shape.out_width() * channels;
    // One partial sum a thread, each over a fixed run of bands, added up in order.
    let rows_per_task = rows.div_ceil(rayon::current_num_threads()).next_multiple_of(shape.band_rows());
    let partials: Vec<Vec<f32>> = gradient
        .par_chunks(rows_per_task * row_len)
        .enumerate()
        .map(|(task, gradient)| {
            let mut sum = vec![0.0; channels * patch];
            let mut columns = Vec::new();
            for (band, gradient) in gradient.chunks(shape.band_rows() * row_len).enumerate() {
                let pixels = gradient.len() / channels;
                let first_row = task * rows_per_task + band * shape.band_rows();
                let rhs = band_columns(shape, x, first_row, pixels, &mut columns);
                let size = (channels, patch, pixels);
                gemm(&mut sum, patch, size, Matrix::transposed(gradient, channels), Matrix::rows(rhs, patch), 1.0, 1.0);
            }
            sum
        })
        .collect();
    elementwise::sum_in_order(partials)
}

/// The im2col rows of `pixels` output pixels from output row `first_row` (counted over the whole batch).
pub(super) fn band_columns<'a>(
    shape: &ConvShape,
    x: &'a [f32],
    first_row: usize,
    pixels: usize,
    columns: &'a mut Vec<f32>,
) -> &'a [f32] {
    let patch = shape.patch_len();
    if shape.is_pointwise() {
        return &x[first_row * shape.out_width() * patch..][..pixels * patch];
    }
    columns.resize(pixels * patch, 0.0);
    for (i, out) in columns.chunks_mut(shape.out_width() * patch).enumerate() {
        let (image, oy) = ((first_row + i) / shape.out_height(), (first_row + i) % shape.out_height());
        let x = &x[image * shape.height * shape.width * shape.in_channels..];
        for (ox, out) in out.chunks_mut(patch).enumerate() {
            gather_patch(shape, x, oy, ox, out);
        }
    }
    columns
}

/// Copies the input patch of output pixel (oy, ox), zeros outside the image.
fn gather_patch(shape: &ConvShape, x: &[f32], oy: usize, ox: usize, out: &mut [f32]) {
    let row_len = shape.kernel * shape.in_channels;
    let (left, inside, skip) = clip(ox * shape.stride, shape.padding, shape.kernel, shape.width);
    for (ky, out) in out.chunks_mut(row_len).enumerate() {
        let y = (oy * shape.stride + ky).wrapping_sub(shape.padding);
        if y >= shape.height {
            out.fill(0.0);
            continue;
        }
        let source = &x[(y * shape.width + left) * shape.in_channels..][..inside * shape.in_channels];
        let (before, rest) = out.split_at_mut(skip * shape.in_channels);
        let (middle, after) = rest.split_at_mut(source.len());
        before.fill(0.0);
        middle.copy_from_slice(source);
        after.fill(0.0);
    }
}

/// Adds im2col rows of one image back to the pixels they were gathered from.
fn scatter_add(shape: &ConvShape, columns: &[f32], dx: &mut [f32]) {
    let row_len = shape.kernel * shape.in_channels;
    for (pixel, column) in columns.chunks(shape.patch_len()).enumerate() {
        let (oy, ox) = (pixel / shape.out_width(), pixel % shape.out_width());
        let (left, inside, skip) = clip(ox * shape.stride, shape.padding, shape.kernel, shape.width);
        for (ky, row) in column.chunks(row_len).enumerate() {
            let y = (oy * shape.stride + ky).wrapping_sub(shape.padding);
            if y < shape.height {
                let target = &mut dx[(y * shape.width + left) * shape.in_channels..][..inside * shape.in_channels];
                for (t, c) in target.iter_mut().zip(&row[skip * shape.in_channels..]) {
                    *t += c;
                }
            }
        }
    }
}

/// The part of a kernel row that lies inside the image: (first column, number of columns, kernel taps skipped).
fn clip(start: usize, padding: usize, kernel: usize, width: usize) -> (usize, usize, usize) {
    let skip = padding.saturating_sub(start).min(kernel);
    let left = (start + skip).saturating_sub(padding).min(width);
    let end = (start + kernel).saturating_sub(padding).min(width);
    (left, end.saturating_sub(left), skip)
}

/// Weights (O, K, K, I) turned by 180 degrees with inputs and outputs swapped: (I, K, K, O).
pub(super) fn flipped(shape: &ConvShape, weight: &[f32]) -> Vec<f32> {
    let (inputs, outputs, taps) = (shape.in_channels, shape.out_channels, shape.kernel * shape.kernel);
    let mut out = vec![0.0; weight.len()];
    out.par_chunks_mut(taps * outputs).enumerate().for_each(|(i, out)| {
        for (tap, out) in out.chunks_mut(outputs).enumerate() {
            for (o, out) in out.iter_mut().enumerate() {
                *out = weight[(o * taps + taps - 1 - tap) * inputs + i];
            }
        }
    });
    out
}
