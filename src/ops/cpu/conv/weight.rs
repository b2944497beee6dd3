//! The gradient of the weight: for each tap, the transpose of the input times the output's gradient, over all places.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::gradient::Walk;
use super::product::Band;
use super::{ConvShape, bands};
use crate::ops::cpu::element::{Buffer, Element, depth};
use crate::ops::cpu::micro::{Block, COLUMNS, DEPTH, SPARE_ROWS, Session, TILE};
use crate::ops::cpu::{overwritten, pack};

/// The sums of a weight's gradient, (taps, inputs, outputs): the last two in whole blocks.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub taps: usize,
    pub inputs: usize,
    pub outputs: usize,
}

/// The buffers of [`Walk::add_band`].
pub struct Operands<'a> {
    pub columns: &'a mut Buffer,
    pub rows: &'a mut Buffer,
    pub tiles: &'a mut Buffer,
}

impl<E: Element, O: Element> Walk<'_, E, O> {
    /// Adds a task's part to `sums`.
    pub fn add_weight(
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

/// Elements from one channel to the next in the transposed input: an odd number of lines, so that the rows of a block
/// fall into different sets of the cache.
fn column_stride<E: Element>(plane_len: usize) -> usize {
    let line = 64 / size_of::<E>();
    ((plane_len.div_ceil(line) + 1) | 1) * line
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
pub fn gather(shape: &ConvShape, sizes: Sizes, partials: &[Vec<f32>]) -> Vec<f32> {
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
