//! Convolutions with everything that stands around them: on the way in what `input` describes, on the way out bias and
//! residual. NHWC activations, OHWI weights (PyTorch's OIHW permuted by 0, 2, 3, 1).
//!
//! A task is a stack of images, or a band of rows of one, that the caches hold together with all that is made of it. The
//! backward pass goes once over the images: the gradient of the input, through its norm, and that of the weight, from the
//! input made again.

mod gradient;
mod product;
mod weight;

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
use product::{Band, Packed, rounded};

/// Bytes of a task's planes: they and what is made of them stay in L2.
const TASK_BYTES: usize = 3 << 17;

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

/// Outputs of a window that make a task.
fn task_places<E: Element>(window: &Window) -> usize {
    (TASK_BYTES / (window.planes.len() * window.depth::<E>() * size_of::<E>()).max(1)).max(32)
}

/// Images of one task, out of a thread's share: with several, every window computes all of their rows at once.
fn images_per_task<E: Element>(shape: &ConvShape, windows: &[&Window]) -> usize {
    let share = shape.batch.div_ceil(rayon::current_num_threads());
    let places = (shape.out_height() * shape.out_width()).max(shape.height * shape.width);
    let fit = windows.iter().map(|window| task_places::<E>(window)).min().unwrap_or(1);
    (fit / places).clamp(1, share.max(1))
}

/// The rows of outputs that are computed at once: all of them, or as many as fit a task.
fn bands<E: Element>(window: &Window) -> impl Iterator<Item = (usize, usize)> + use<E> {
    let (rows, fit) = (window.rows, task_places::<E>(window));
    let high = if rows * window.cols > fit { (fit / window.cols).max(1) } else { rows };
    (0..rows).step_by(high.max(1)).map(move |first| (first, high.min(rows - first)))
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
    let images = images_per_task::<E>(shape, &[&window]);
    let packed = Packed::new(window, shape, &rounded::<E>(weight), false, images);
    let (isa, kept) = (isa::current(), input.statistics_len());
    let zeros = vec![0.0; channels];
    let bias = bias.unwrap_or(&zeros);
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
                let Scratch { image, planes, sums, .. } = scratch;
                let planes = packed.planes.room::<E>(planes);
                let cols = packed.planes.window.cols;
                for i in 0..count {
                    let source = input.image(task * images + i, &statistics[i * kept..][..kept], image);
                    for (first, rows) in bands::<E>(&packed.planes.window) {
                        let band = Band { first, rows, images: count };
                        packed.planes.fill(&band, i, source, planes);
                        if i + 1 < count {
                            continue; // several images have one band, which is whole with the last of them
                        }
                        let sums = packed.multiply(&session, &band, planes, sums);
                        for (image, sums) in sums.chunks(rows * cols * packed.width()).enumerate().take(count) {
                            let at = image * image_len + first * cols * channels;
                            let at = at..at + rows * cols * channels;
                            let residual = residual.map(|r| &r[task * images * image_len..][at.clone()]);
                            finish(sums, packed.width(), bias, residual, channels, &mut out[at]);
                        }
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
    bias: &[f32],
    residual: Option<&[O]>,
    channels: usize,
    out: &mut [MaybeUninit<O>],
) {
    for (row, (out, sums)) in out.chunks_exact_mut(channels).zip(sums.chunks(width)).enumerate() {
        let terms = out.iter_mut().zip(sums).zip(bias);
        match residual {
            Some(residual) => {
                for (((out, s), b), r) in terms.zip(&residual[row * channels..]) {
                    out.write(O::round(s + b + r.widen()));
                }
            }
            None => terms.for_each(|((out, s), b)| {
                out.write(O::round(s + b));
            }),
        }
    }
}
