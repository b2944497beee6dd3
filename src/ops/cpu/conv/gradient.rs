//! The backward pass: one walk over the images of a thread's share.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::product::{Band, Packed, Planes};
use super::{ConvShape, SCRATCH, Scratch, bands, images_per_task};
use crate::ops::cpu::element::{Buffer, Element, depth, same};
use crate::ops::cpu::input::Input;
use crate::ops::cpu::isa::{self, Isa};
use crate::ops::cpu::micro::{Block, COLUMNS, DEPTH, SPARE_ROWS, Session, TILE};
use crate::ops::cpu::norm::{NormGradients, channel_sums};
use crate::ops::cpu::window::Window;
use crate::ops::cpu::{elementwise, overwritten, pack};

/// What [`backward`] returns; shapes as in the forward pass.
pub struct Gradients<E> {
    /// Of each part of the input; empty if they were not wanted.
    pub parts: Vec<Vec<E>>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub norm: Option<NormGradients>,
}

/// Everything that the walk reads.
struct Walk<'a, E, O> {
    input: &'a Input<'a, E>,
    statistics: &'a [f32],
    gradient: &'a [O],
    /// The pass that the weight's gradient repeats.
    forward: &'a Planes,
    /// The passes to the input's gradient, if it is wanted.
    passes: Option<&'a [Packed]>,
    sizes: Sizes,
    /// Images of a task.
    images: usize,
    isa: Isa,
}

/// The sums of a weight's gradient, (taps, inputs, outputs): the last two in whole blocks.
#[derive(Clone, Copy)]
struct Sizes {
    taps: usize,
    inputs: usize,
    outputs: usize,
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
    let passes: Vec<_> = windows.into_iter().map(|w| Packed::new::<E>(w, shape, weight, true, images)).collect();
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

    /// Adds a task's part of the weight's gradient: for each tap, the transpose of the input times the output's gradient,
    /// over all places.
    fn add_weight(
        &self,
        session: &Session,
        first_image: usize,
        count: usize,
        gradient: &[E],
        (image, planes, mut operands): (&mut Buffer, &mut Buffer, Operands),
        sums: &mut [f32],
    ) {
        let (window, kept) = (&self.forward.window, self.input.statistics_len());
        let filled = self.forward.room::<E>(planes);
        for i in 0..count {
            let statistics = &self.statistics[(first_image + i) * kept..][..kept];
            let source = self.input.image(first_image + i, statistics, image);
            for (first, rows) in bands::<E>(window) {
                let band = Band { first, rows, images: count };
                self.forward.fill(&band, i, source, filled);
                if i + 1 == count {
                    // Several images have one band, which is whole with the last of them.
                    self.add_band(session, &band, gradient, filled, &mut operands, sums);
                }
            }
        }
    }

    /// Adds what a band of filled planes makes.
    fn add_band(
        &self,
        session: &Session,
        band: &Band,
        gradient: &[E],
        filled: &[E],
        operands: &mut Operands,
        sums: &mut [f32],
    ) {
        let Band { first, rows, images: count } = *band;
        let Operands { columns, rows: row_buffer, tiles } = operands;
        let (window, plane_len) = (&self.forward.window, self.forward.len);
        let deep = window.depth::<E>();
        let out_channels = gradient.len() / (count * window.rows * window.cols);
        let used = count * window.plane_rows(rows) * window.cols;
        let stride = column_stride::<E>(plane_len);
        let columns = columns.take::<E>((window.planes.len() * deep + SPARE_ROWS) * stride);
        for (plane, columns) in filled.chunks_exact(plane_len * deep).zip(columns.chunks_exact_mut(deep * stride)) {
            let needed = &mut columns[..window.place_len().next_multiple_of(COLUMNS) * stride];
            pack::transposed(&plane[..used * deep], deep, stride, needed);
            // What a last step reads beyond the last place meets zeros, and must be finite.
            let end = used.next_multiple_of(depth::<E>());
            needed.chunks_exact_mut(stride).for_each(|column| column[end..].fill(E::default()));
        }
        // Images of a dense window stand side by side and share their steps.
        let (calls, places) = match window.is_dense() {
            true => (1, count * rows * window.cols),
            false => (count, rows * window.cols),
        };
        let (steps, width) = (places.div_ceil(depth::<E>()), self.sizes.outputs);
        let image_len = window.rows * window.cols * out_channels;
        let tiles = tiles.take::<u32>(width / COLUMNS * calls * steps * TILE);
        for call in 0..calls {
            let at = call * image_len + first * window.cols * out_channels;
            let band = wide(&gradient[at..at + places * out_channels], out_channels, width, row_buffer);
            pack::rows_to_tiles(band, width, (call * steps, calls * steps), tiles);
        }
        let image = window.plane_rows(rows) * window.cols;
        let offsets = (0..calls)
            .flat_map(|call| (0..steps).map(move |step| (call * image + step * depth::<E>()) * size_of::<E>()));
        let units = places.div_ceil(E::PER_UNIT).min(DEPTH); // small images do not fill a step
        self.multiply(session, (columns, stride), tiles, (&offsets.collect::<Vec<_>>(), units), sums);
    }

    /// Adds the product of every tap. `steps`: where each step begins in a column, in bytes.
    fn multiply(
        &self,
        session: &Session,
        (columns, stride): (&[E], usize),
        tiles: &[u32],
        (steps, units): (&[usize], usize),
        sums: &mut [f32],
    ) {
        let (window, Sizes { taps, inputs, outputs }) = (&self.forward.window, self.sizes);
        for tap in 0..taps {
            let (plane, row) = if window.patch > 1 { (0, 0) } else { (window.taps[tap].plane, window.taps[tap].row) };
            let block = Block {
                a: columns[plane * window.depth::<E>() * stride + row * window.cols..].as_ptr().cast(),
                a_stride: stride * size_of::<E>(),
                steps,
                units,
                b: tiles.as_ptr(),
                b_stride: steps.len() * TILE * 4,
                c: sums[tap * inputs * outputs..].as_mut_ptr(),
                c_stride: outputs * 4,
                rows: window.place_len(),
                tiles: outputs / COLUMNS,
                accumulate: true,
            };
            // SAFETY: `columns` has room for the spare rows and, with the zeros after the last place, for all steps;
            // `inputs` is rounded up to what blocks write; `tiles` holds all steps of each column.
            unsafe { session.run(&block) };
        }
    }
}

/// The buffers of [`Walk::add_band`].
struct Operands<'a> {
    columns: &'a mut Buffer,
    rows: &'a mut Buffer,
    tiles: &'a mut Buffer,
}

/// Elements from one channel to the next in the transposed input: an odd number of lines, so that the rows of a block
/// fall into different sets of the cache.
fn column_stride<E: Element>(plane_len: usize) -> usize {
    let line = 64 / size_of::<E>();
    (plane_len.div_ceil(line) + 1 | 1) * line
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

/// Rows of `channels` elements in rows of `width`, zeros after them.
fn wide<'a, E: Element>(values: &'a [E], channels: usize, width: usize, buffer: &'a mut Buffer) -> &'a [E] {
    if channels == width {
        return values;
    }
    let out = buffer.zeroed::<E>(values.len() / channels * width);
    for (out, values) in out.chunks_exact_mut(width).zip(values.chunks_exact(channels)) {
        out[..channels].copy_from_slice(values);
    }
    out
}

/// Adds the partial sums up, first to last, and brings them from (taps, inputs, outputs) to (outputs, taps, inputs).
fn gather(shape: &ConvShape, sizes: Sizes, partials: &[Vec<f32>]) -> Vec<f32> {
    let row_len = shape.patch_len();
    let inputs = row_len / sizes.taps;
    let gather = |out: &mut [MaybeUninit<f32>]| {
        // A line of outputs at a time: their rows are written side by side.
        out.par_chunks_mut(COLUMNS * row_len).enumerate().for_each(|(block, rows)| {
            gather_outputs(sizes, inputs, partials, block * COLUMNS, rows);
        });
    };
    // SAFETY: every row is made of all taps and inputs.
    unsafe { overwritten(shape.out_channels * row_len, gather) }
}

/// Up to [`COLUMNS`] rows of the result, those of outputs from `first`.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gather_outputs(sizes: Sizes, inputs: usize, partials: &[Vec<f32>], first: usize, rows: &mut [MaybeUninit<f32>]) {
    let row_len = sizes.taps * inputs;
    for tap in 0..sizes.taps {
        for i in 0..inputs {
            let at = (tap * sizes.inputs + i) * sizes.outputs + first;
            let mut total = [0.0; COLUMNS];
            for partial in partials {
                total.iter_mut().zip(&partial[at..at + COLUMNS]).for_each(|(t, p)| *t += p);
            }
            for (row, total) in rows.chunks_exact_mut(row_len).zip(total) {
                row[tap * inputs + i].write(total);
            }
        }
    }
}
