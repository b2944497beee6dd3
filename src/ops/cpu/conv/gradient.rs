//! The backward pass: one walk over the images of a thread's share.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::product::{Band, Packed, Planes, rounded};
use super::weight::{Operands, Sizes, gather};
use super::{ConvShape, SCRATCH, Scratch, bands, images_per_task};
use crate::ops::cpu::element::{Buffer, Element, same};
use crate::ops::cpu::elementwise;
use crate::ops::cpu::input::Input;
use crate::ops::cpu::isa::{self, Isa};
use crate::ops::cpu::micro::{COLUMNS, SPARE_ROWS, Session};
use crate::ops::cpu::norm::{NormGradients, channel_sums};
use crate::ops::cpu::window::Window;

/// What [`backward`] returns; shapes as in the forward pass.
pub struct Gradients<E> {
    /// Of each part of the input; empty if they were not wanted.
    pub parts: Vec<Vec<E>>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub norm: Option<NormGradients>,
}

/// Everything that the walk reads.
pub(super) struct Walk<'a, E, O> {
    pub(super) input: &'a Input<'a, E>,
    pub(super) statistics: &'a [f32],
    pub(super) gradient: &'a [O],
    /// The pass that the weight's gradient repeats.
    pub(super) forward: &'a Planes,
    /// The passes to the input's gradient, if it is wanted.
    pub(super) passes: Option<&'a [Packed]>,
    pub(super) sizes: Sizes,
    /// Images of a task.
    pub(super) images: usize,
    pub(super) isa: Isa,
}

/// A thread's images, from `first`, and its parts of the results.
struct Share<'a, E> {
    first: usize,
    count: usize,
    parts: Vec<&'a mut [MaybeUninit<E>]>,
    norm_sums: &'a mut [f32],
}

/// All gradients from that of the output, the input and the statistics of the forward pass. Those of the input, and of
/// what its norm is made of, only if `wanted`.
pub fn backward<E: Element, O: Element>(
    shape: &ConvShape,
    input: &Input<E>,
    weight: &[f32],
    statistics: &[f32],
    gradient: &[O],
    wanted: bool,
) -> Gradients<E> {
    let window = Window::forward::<E>(shape);
    let windows = if wanted { Window::input_gradient::<E>(shape) } else { vec![] };
    let images = images_per_task::<E>(shape, &windows.iter().chain([&window]).collect::<Vec<_>>());
    let forward = Planes::new::<E>(window, images);
    let weight = rounded::<E>(weight);
    let passes: Vec<_> = windows.into_iter().map(|w| Packed::new(w, shape, &weight, true, images)).collect();
    let sizes = Sizes {
        taps: if forward.window.patch > 1 { 1 } else { forward.window.taps.len() },
        inputs: forward.window.place_len().next_multiple_of(SPARE_ROWS + 1),
        outputs: shape.out_channels.next_multiple_of(COLUMNS),
    };
    let walk = Walk {
        input,
        statistics,
        gradient,
        forward: &forward,
        passes: wanted.then_some(&passes[..]),
        sizes,
        images,
        isa: isa::current(),
    };

    let share = shape.batch.div_ceil(rayon::current_num_threads()).max(1);
    let mut norm_sums = vec![0.0; shape.batch * input.statistics_len()];
    let image_lens: Vec<usize> = input.parts.iter().map(|p| input.height * input.width * p.channels).collect();
    let mut partials = Vec::new();
    let wanted_lens = if wanted { &image_lens[..] } else { &[] };
    let mut parts: Vec<Vec<E>> = wanted_lens.iter().map(|len| Vec::with_capacity(shape.batch * len)).collect();
    {
        let rooms = parts.iter_mut().zip(wanted_lens);
        let mut rooms: Vec<_> =
            rooms.map(|(part, len)| part.spare_capacity_mut()[..shape.batch * len].chunks_mut(share * len)).collect();
        let mut sums = norm_sums.chunks_mut((share * input.statistics_len()).max(1));
        let shares: Vec<Share<E>> = (0..shape.batch)
            .step_by(share)
            .map(|first| Share {
                first,
                count: share.min(shape.batch - first),
                parts: rooms.iter_mut().filter_map(Iterator::next).collect(),
                norm_sums: sums.next().unwrap_or_default(),
            })
            .collect();
        shares.into_par_iter().map(|share| walk.run(shape, share)).collect_into_vec(&mut partials);
    }
    for (part, len) in parts.iter_mut().zip(wanted_lens) {
        // SAFETY: the shares cover all images, and `Input::backward` writes all of an image.
        unsafe { part.set_len(shape.batch * len) };
    }
    let (weights, biases): (Vec<_>, Vec<_>) = partials.into_iter().unzip();
    Gradients {
        parts,
        weight: gather(shape, sizes, &weights),
        bias: elementwise::sum_in_order(biases),
        norm: input.norm.map(|norm| norm.gradients(&norm_sums)),
    }
}

impl<E: Element, O: Element> Walk<'_, E, O> {
    /// Goes over a share; returns its part of the weight's gradient, as [`Sizes`] says, and of the bias's.
    fn run(&self, shape: &ConvShape, mut share: Share<E>) -> (Vec<f32>, Vec<f32>) {
        let Sizes { taps, inputs, outputs } = self.sizes;
        // Room for the rows that the last block computes beyond the last input.
        let mut weight = vec![0.0; taps * inputs * outputs];
        let mut bias = vec![0.0; shape.out_channels];
        let out_len = shape.out_height() * shape.out_width() * shape.out_channels;
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { image, gradient: rounded, planes, sums, input_gradient, columns, rows, tiles } = scratch;
            let session = Session::new(self.isa);
            for first in (0..share.count).step_by(self.images) {
                let count = self.images.min(share.count - first);
                let gradient = &self.gradient[(share.first + first) * out_len..][..count * out_len];
                channel_sums(gradient, &mut bias);
                let gradient = as_elements(gradient, rounded);
                if let Some(passes) = self.passes {
                    let buffers = (&mut *planes, &mut *sums, &mut *input_gradient);
                    let dy = self.input_gradient(&session, passes, count, gradient, buffers);
                    self.through_input(&mut share, first, count, dy);
                }
                let buffers = (&mut *image, &mut *planes, Operands { columns, rows, tiles });
                self.add_weight(&session, share.first + first, count, gradient, buffers, &mut weight);
            }
        });
        (weight, bias)
    }

    /// Elements from one pixel to the next in the gradient of what was convolved.
    fn input_stride(&self) -> usize {
        self.input.channels().next_multiple_of(COLUMNS)
    }

    /// The gradient of what was convolved, before norms: (images, height, width, width of the sums).
    fn input_gradient<'b>(
        &self,
        session: &Session,
        passes: &[Packed],
        count: usize,
        gradient: &[E],
        (planes, sums, out): (&mut Buffer, &mut Buffer, &'b mut Buffer),
    ) -> &'b mut [f32] {
        let (height, width) = self.input.size();
        let stride = self.input_stride();
        let strided = passes.iter().any(|pass| pass.planes.window.out_step > 1);
        let out = out.take::<f32>((count * height * width + SPARE_ROWS) * stride);
        if strided || passes.is_empty() {
            out.fill(0.0); // no pass meets a pixel that the kernel never read
        }
        let image_len = gradient.len() / count;
        for pass in passes {
            let planes = pass.planes.room::<E>(planes);
            let (window, cols) = (&pass.planes.window, pass.planes.window.cols);
            for (first, rows) in bands::<E>(window) {
                let band = Band { first, rows, images: count };
                for (i, image) in gradient.chunks_exact(image_len).enumerate() {
                    pass.planes.fill(&band, i, image, planes);
                }
                if !strided {
                    pass.multiply_into(session, &band, planes, &mut out[first * cols * stride..]);
                    continue;
                }
                let sums = pass.multiply(session, &band, planes, sums);
                for (row, sums) in sums.chunks_exact(cols * stride).enumerate().take(count * rows) {
                    let y = (first + row % rows) * window.out_step + window.out_first.0;
                    for (col, sums) in sums.chunks_exact(stride).enumerate() {
                        let x = col * window.out_step + window.out_first.1;
                        out[((row / rows * height + y) * width + x) * stride..][..stride].copy_from_slice(sums);
                    }
                }
            }
        }
        out
    }

    /// Brings the gradient of what was convolved to the input's parts.
    fn through_input(&self, share: &mut Share<E>, first: usize, count: usize, dy: &mut [f32]) {
        let (height, width) = self.input.size();
        let stride = self.input_stride();
        let (kept, pixels) = (self.input.statistics_len(), self.input.height * self.input.width);
        for i in first..first + count {
            let statistics = &self.statistics[(share.first + i) * kept..][..kept];
            let mut dx: Vec<&mut [MaybeUninit<E>]> = share
                .parts
                .iter_mut()
                .zip(&self.input.parts)
                .map(|(part, p)| &mut part[i * pixels * p.channels..][..pixels * p.channels])
                .collect();
            let dy = &mut dy[(i - first) * height * width * stride..][..height * width * stride];
            let sums = &mut share.norm_sums[i * kept..][..kept];
            self.input.backward(share.first + i, statistics, stride, dy, &mut dx, sums);
        }
    }
}

/// `values` as they are, or rounded.
fn as_elements<'a, E: Element, O: Element>(values: &'a [O], buffer: &'a mut Buffer) -> &'a [E] {
    if let Some(same) = same(values) {
        return same;
    }
    let out = buffer.take::<E>(values.len());
    for (out, v) in out.iter_mut().zip(values) {
        *out = E::round(v.widen());
    }
    out
}
