//! One pass of a window over its source: weights in the order of tiles, planes, and the products of both.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::ConvShape;
use crate::ops::cpu::element::{Buffer, Element, depth, same};
use crate::ops::cpu::elementwise::round_to;
use crate::ops::cpu::micro::{Block, COLUMNS, DEPTH, SPARE_ROWS, Session, TILE};
use crate::ops::cpu::pack::{tile_of_columns, tile_of_rows};
use crate::ops::cpu::window::{Tap, Window};
use crate::ops::cpu::{CHUNK, overwritten};

/// The outputs of one call: `rows` rows from `first` of each of `images`.
#[derive(Clone, Copy)]
pub struct Band {
    pub first: usize,
    pub rows: usize,
    pub images: usize,
}

/// The planes that a window reads, for tasks of some images.
pub struct Planes {
    pub window: Window,
    /// Places of a plane, in whole steps of the weight's gradient and one more.
    pub len: usize,
}

impl Planes {
    pub fn new<E: Element>(window: Window, images: usize) -> Planes {
        let rows = super::bands::<E>(&window).map(|(_, rows)| rows).max().unwrap_or(0);
        let places = images * window.plane_rows(rows) * window.cols;
        Planes { len: places.next_multiple_of(depth::<E>()) + depth::<E>(), window }
    }

    /// Room for all planes, and for the rows that a block may read beyond them.
    pub fn room<'b, E: Element>(&self, buffer: &'b mut Buffer) -> &'b mut [E] {
        let places = self.window.planes.len() * self.len + SPARE_ROWS;
        buffer.take(places * self.window.depth::<E>())
    }

    /// Writes the part of image number `i` of a band.
    pub fn fill<E: Element>(&self, band: &Band, i: usize, image: &[E], planes: &mut [E]) {
        let at = i * self.window.plane_rows(band.rows) * self.window.cols;
        self.window.fill(image, (band.first, band.rows), at, self.len, planes);
    }
}

/// A window with its weights.
pub struct Packed {
    pub planes: Planes,
    /// Bytes from a place to what each step reads for it.
    steps: Vec<usize>,
    tiles: Buffer,
    /// Columns of tiles.
    columns: usize,
}

impl Packed {
    /// Packs `weight` (O, taps, I) for tasks of `images` images. B's depth is I and its columns O; if `transposed`, for
    /// the input's gradient, the other way round.
    pub fn new<E: Element>(window: Window, shape: &ConvShape, weight: &[E], transposed: bool, images: usize) -> Packed {
        let planes = Planes::new::<E>(window, images);
        let steps = steps::<E>(&planes.window, planes.len);
        let outputs = if transposed { shape.in_channels } else { shape.out_channels };
        let columns = outputs.div_ceil(COLUMNS);
        let weights = Weights { values: weight, shape, window: &planes.window };
        let mut tiles = Buffer::default();
        tiles
            .take::<u32>(columns * steps.len() * TILE)
            .par_chunks_mut(steps.len() * TILE)
            .enumerate()
            .for_each(|(column, tiles)| pack(&weights, transposed, column, tiles));
        Packed { planes, steps, tiles, columns }
    }

    /// Elements from one row of sums to the next.
    pub fn width(&self) -> usize {
        self.columns * COLUMNS
    }

    /// The sums of a band whose planes are filled: (images, rows, cols, width).
    pub fn multiply<'b, E: Element>(
        &self,
        session: &Session,
        band: &Band,
        planes: &[E],
        sums: &'b mut Buffer,
    ) -> &'b mut [f32] {
        let places = band.images * band.rows * self.planes.window.cols;
        let sums = sums.take::<f32>((places + SPARE_ROWS) * self.width());
        self.multiply_into(session, band, planes, sums);
        sums
    }

    /// The same into `sums`, which has room for [`SPARE_ROWS`] rows more.
    pub fn multiply_into<E: Element>(&self, session: &Session, band: &Band, planes: &[E], sums: &mut [f32]) {
        let (cols, depth) = (self.planes.window.cols, self.planes.window.depth::<E>());
        let (calls, rows) = match self.planes.window.is_dense() {
            true => (1, band.images * band.rows * cols),
            false => (band.images, band.rows * cols),
        };
        assert!(sums.len() >= (calls * rows + SPARE_ROWS) * self.width(), "a block's sums do not fit their buffer");
        for call in 0..calls {
            let place = call * self.planes.window.plane_rows(band.rows) * cols;
            let block = Block {
                a: planes[place * depth..].as_ptr().cast(),
                a_stride: depth * size_of::<E>(),
                steps: &self.steps,
                units: self.planes.window.place_len().div_ceil(E::PER_UNIT).min(DEPTH), // few channels do not fill a step
                b: self.tiles.as_ptr(),
                b_stride: self.steps.len() * TILE * 4,
                c: sums[call * rows * self.width()..].as_mut_ptr(),
                c_stride: self.width() * 4,
                rows,
                tiles: self.columns,
                accumulate: false,
            };
            // SAFETY: `planes` has room for the spare rows, at every tap; `tiles` holds a tile of every step and column;
            // `sums` was measured above.
            unsafe { session.run(&block) };
        }
    }
}

fn steps<E: Element>(window: &Window, plane_len: usize) -> Vec<usize> {
    let deep = window.depth::<E>();
    let blocks = move |first: usize| (0..deep / depth::<E>()).map(move |d| first + d * DEPTH * 4);
    if window.patch > 1 {
        return blocks(0).collect();
    }
    let place = |tap: &Tap| tap.plane * plane_len + tap.row * window.cols;
    window.taps.iter().flat_map(|tap| blocks(place(tap) * deep * size_of::<E>())).collect()
}

/// Weights as elements.
pub fn rounded<E: Element>(weight: &[f32]) -> Cow<'_, [E]> {
    if let Some(same) = same::<f32, E>(weight) {
        return Cow::Borrowed(same);
    }
    let run = |out: &mut [MaybeUninit<E>]| {
        out.par_chunks_mut(CHUNK).zip(weight.par_chunks(CHUNK)).for_each(|(out, weight)| round_to(weight, out));
    };
    // SAFETY: the chunks cover both.
    let out = unsafe { overwritten(weight.len(), run) };
    Cow::Owned(out)
}

/// Packs one column of tiles.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn pack<E: Element>(weights: &Weights<E>, transposed: bool, column: usize, tiles: &mut [u32]) {
    for (step, tile) in tiles.chunks_exact_mut(TILE).enumerate() {
        if transposed {
            tile_of_rows(|k| weights.inputs(step, k, column * COLUMNS), tile);
        } else {
            tile_of_columns(|j| weights.depth(step, column * COLUMNS + j), tile);
        }
    }
}

/// Weights (O, taps, I) by the steps of a window.
struct Weights<'a, E> {
    values: &'a [E],
    shape: &'a ConvShape,
    window: &'a Window,
}

impl<E: Element> Weights<'_, E> {
    /// Output `o`'s weights of a step, cut where its taps' channels end.
    fn depth(&self, step: usize, o: usize) -> &[E] {
        let per_output = self.shape.patch_len();
        if o >= self.shape.out_channels {
            return &[];
        }
        let (first, len) = match self.window.patch > 1 {
            true => (step * depth::<E>(), per_output),
            false => {
                let (tap, channel) = self.tap(step);
                (tap * self.shape.in_channels + channel, (tap + 1) * self.shape.in_channels)
            }
        };
        &self.values[o * per_output + first..o * per_output + len]
    }

    /// The weights of inputs `i`.. at place `k` of a step whose depth are outputs.
    fn inputs(&self, step: usize, k: usize, i: usize) -> &[E] {
        let outputs = self.shape.out_channels;
        let (tap, o) = match self.window.patch > 1 {
            true => {
                let at = step * depth::<E>() + k;
                match self.window.taps.get(at / outputs) {
                    Some(tap) => (tap.weight, at % outputs),
                    None => return &[],
                }
            }
            false => {
                let (tap, channel) = self.tap(step);
                (tap, channel + k)
            }
        };
        if o >= outputs {
            return &[];
        }
        let row = o * self.shape.patch_len() + tap * self.shape.in_channels;
        &self.values[row + i..row + self.shape.in_channels]
    }

    /// The tap of a step and the first of its channels.
    fn tap(&self, step: usize) -> (usize, usize) {
        let blocks = self.window.depth::<E>() / depth::<E>();
        (self.window.taps[step / blocks].weight, step % blocks * depth::<E>())
    }
}
