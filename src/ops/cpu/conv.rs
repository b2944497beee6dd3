//! Convolutions with everything that stands around them: on the way in what `input` describes, on the way out bias and
//! residual. NHWC activations, OHWI weights (PyTorch's OIHW permuted by 0, 2, 3, 1).
//!
//! A task is a stack of images, or a band of rows of one, that the caches hold together with all that is made of it. The
//! backward pass goes once over the images: the gradient of the input, through its norm, and that of the weight, from the
//! input made again.

mod gradient;
mod product;

use std::cell::RefCell;
use std::mem::MaybeUninit;

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::{Buffer, Element};
use super::input::Input;
use super::micro::Session;
use super::window::Window;
use super::{isa, overwritten};

pub use super::window::ConvShape;
pub use gradient::{Gradients, backward};
use product::{Band, Packed};

/// Outputs of a task: what is made of them stays in L2.
const TASK_PLACES: usize = 256;

/// A thread's buffers, kept from task to task.
#[derive(Default)]
struct Scratch {
    /// The input of an image, and the gradient of its output.
    image: Buffer,
    gradient: Buffer,
    /// What a window reads of them.
    planes: Buffer,
    /// Sums of products.
    sums: Buffer,
    /// The input's gradient before its norm.
    input_gradient: Buffer,
    /// Operands of the weight's gradient.
    columns: Buffer,
    rows: Buffer,
    tiles: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Images of one task, out of a thread's share.
fn images_per_task(shape: &ConvShape) -> usize {
    let share = shape.batch.div_ceil(rayon::current_num_threads());
    let places = (shape.out_height() * shape.out_width()).max(shape.height * shape.width);
    (TASK_PLACES / places).clamp(1, share.max(1))
}

/// The rows of outputs that are computed at once: all of them, or as many as fit a task.
fn bands(rows: usize, cols: usize) -> impl Iterator<Item = (usize, usize)> {
    let high = if rows * cols > TASK_PLACES { (TASK_PLACES / cols).max(1) } else { rows };
    (0..rows).step_by(high).map(move |first| (first, high.min(rows - first)))
}

/// The convolution of `input` with `weight` (O, K, K, I), plus `bias` (O), plus `residual`: (B, OH, OW, O). With it the
/// statistics that [`backward`] wants.
pub fn forward<E: Element, O: Element>(
    shape: &ConvShape,
    input: &Input<E>,
    weight: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[O]>,
) -> (Vec<O>, Vec<f32>) {
    let window = Window::forward::<E>(shape);
    let (channels, image_len) = (shape.out_channels, window.rows * window.cols * shape.out_channels);
    let images = images_per_task(shape);
    let packed = Packed::new::<E>(window, shape, weight, false, images);
    let (isa, kept) = (isa::current(), input.statistics_len());
    // An image without statistics keeps one number, so that every task has a part of them.
    let mut statistics = vec![0.0; shape.batch * kept.max(1)];
    let run = |out: &mut [MaybeUninit<O>]| {
        let tasks = out.par_chunks_mut(images * image_len).zip(statistics.par_chunks_mut(images * kept.max(1)));
        tasks.enumerate().for_each(|(task, (out, statistics))| {
            SCRATCH.with_borrow_mut(|scratch| {
                let session = Session::new(isa);
                let count = out.len() / image_len;
                for (i, statistics) in statistics.chunks_mut(kept.max(1)).enumerate() {
                    input.measure(task * images + i, statistics);
                }
                for (first, rows) in bands(packed.planes.window.rows, packed.planes.window.cols) {
                    let band = Band { first, rows, images: count };
                    let Scratch { image, planes, sums, .. } = &mut *scratch;
                    let planes = packed.planes.room::<E>(planes);
                    for i in 0..count {
                        let source = input.image(task * images + i, &statistics[i * kept..][..kept], image);
                        packed.planes.fill(&band, i, source, planes);
                    }
                    let sums = packed.multiply(&session, &band, planes, sums);
                    for i in 0..count {
                        let at = i * image_len + first * packed.planes.window.cols * channels;
                        let len = rows * packed.planes.window.cols * channels;
                        let residual = residual.map(|r| &r[task * images * image_len + at..][..len]);
                        let sums = &sums[i * rows * packed.planes.window.cols * packed.width()..];
                        finish(sums, packed.width(), bias, residual, channels, &mut out[at..at + len]);
                    }
                }
            });
        });
    };
    // SAFETY: the tasks' bands cover the output, and `finish` writes all of a band.
    let out = unsafe { overwritten(shape.batch * image_len, run) };
    (out, statistics)
}

/// Rows of sums, `width` elements apart, plus bias and residual.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn finish<O: Element>(
    sums: &[f32],
    width: usize,
    bias: Option<&[f32]>,
    residual: Option<&[O]>,
    channels: usize,
    out: &mut [MaybeUninit<O>],
) {
    for (row, (out, sums)) in out.chunks_exact_mut(channels).zip(sums.chunks(width)).enumerate() {
        let sums = &sums[..channels];
        match (bias, residual) {
            (Some(bias), Some(residual)) => {
                let residual = &residual[row * channels..][..channels];
                for (((out, s), b), r) in out.iter_mut().zip(sums).zip(bias).zip(residual) {
                    out.write(O::round(s + b + r.widen()));
                }
            }
            (Some(bias), None) => {
                for ((out, s), b) in out.iter_mut().zip(sums).zip(bias) {
                    out.write(O::round(s + b));
                }
            }
            (None, Some(residual)) => {
                let residual = &residual[row * channels..][..channels];
                for ((out, s), r) in out.iter_mut().zip(sums).zip(residual) {
                    out.write(O::round(s + r.widen()));
                }
            }
            (None, None) => {
                for (out, s) in out.iter_mut().zip(sums) {
                    out.write(O::round(*s));
                }
            }
        }
    }
}
