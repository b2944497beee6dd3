//! Rounding f32 to bf16 (to nearest even, in hardware) and bringing it into the order that tiles want.
//!
//! Every function here needs the AVX-512 features that `tiles::available` has checked.

use std::arch::x86_64::*;

use super::tiles::{DEPTH, ROWS, TILE};

/// A cache line of bf16: a `Vec` of these starts at a multiple of 64 bytes, which tile loads reward.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Line([u16; 32]);

/// Makes `buffer` hold `len` zeros (rounded up to a line) and returns them.
pub fn zeroed(buffer: &mut Vec<Line>, len: usize) -> &mut [u16] {
    buffer.clear();
    buffer.resize(len.div_ceil(32), Line([0; 32]));
    elements_mut(buffer)
}

pub fn elements(lines: &[Line]) -> &[u16] {
    // SAFETY: a `Line` is 32 u16 without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 32) }
}

pub fn elements_mut(lines: &mut [Line]) -> &mut [u16] {
    // SAFETY: as above, and borrowed mutably.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 32) }
}

/// The lanes of a vector of 16 that `count` elements fill.
pub fn lanes(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}

/// The first 16 (or fewer) of `values`, zeros after them.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn load(values: &[f32]) -> __m512 {
    // SAFETY: the mask leaves out what lies beyond the slice.
    unsafe { _mm512_maskz_loadu_ps(lanes(values.len()), values.as_ptr()) }
}

/// Two vectors rounded to one of 32 bf16, `low` first.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types are 512 plain bits.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The first 32 (or fewer) of `values` rounded, zeros after them.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn load_rounded(values: &[f32]) -> __m512i {
    let middle = values.len().min(16);
    round(load(&values[..middle]), load(&values[middle..]))
}

/// Rounds `source` into the first elements of `target`.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub fn convert(source: &[f32], target: &mut [u16]) {
    let target = &mut target[..source.len()];
    for (source, target) in source.chunks(32).zip(target.chunks_mut(32)) {
        let mask = u32::MAX >> (32 - source.len());
        // SAFETY: the mask leaves out what lies beyond the slice.
        unsafe { _mm512_mask_storeu_epi16(target.as_mut_ptr().cast(), mask, load_rounded(source)) };
    }
}

/// The transpose of a 16 x 16 matrix of u32.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let (mut a, mut b) = ([zero; 16], [zero; 16]);
    // 2 x 2 blocks, then 4 x 4 blocks, within each 128-bit lane ...
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in (0..16).step_by(4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    // ... then the 4 x 4 matrix of lanes, for each column c of the blocks.
    let mut out = [zero; 16];
    for c in 0..4 {
        let even = [_mm512_shuffle_i32x4::<0x88>(b[c], b[c + 4]), _mm512_shuffle_i32x4::<0x88>(b[c + 8], b[c + 12])];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(b[c], b[c + 4]), _mm512_shuffle_i32x4::<0xdd>(b[c + 8], b[c + 12])];
        out[c] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        out[c + 4] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        out[c + 8] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        out[c + 12] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    out
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(target: &mut [u16], vector: __m512i) {
    let target = &mut target[..32];
    // SAFETY: 32 elements of two bytes are one vector.
    unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), vector) };
}

/// Packs up to 16 columns of B, each up to 32 long and contiguous (`column(j)`), into one tile.
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn pack_columns<'a>(column: impl Fn(usize) -> &'a [f32], tile: &mut [u16]) {
    let mut columns = [_mm512_setzero_si512(); 16];
    for (j, c) in columns.iter_mut().enumerate() {
        *c = load_rounded(column(j));
    }
    for (row, tile) in transpose(columns).into_iter().zip(tile.chunks_exact_mut(32)) {
        store(tile, row);
    }
}

/// Packs up to 32 rows of B, each up to 16 long and contiguous (`row(k)`), into one tile.
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn pack_rows<'a>(row: impl Fn(usize) -> &'a [f32], tile: &mut [u16]) {
    for (r, tile) in tile.chunks_exact_mut(32).enumerate() {
        store(tile, interleave(round(load(row(2 * r)), load(row(2 * r + 1)))));
    }
}

/// The halves of a vector of 32 bf16, element by element in turn.
#[target_feature(enable = "avx512f")]
#[inline]
fn interleave(halves: __m512i) -> __m512i {
    let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(halves));
    _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
}

/// Rows 2r and 2r + 1 of a bf16 matrix with `width` columns, columns `first`.. + 16, element by element in turn.
#[target_feature(enable = "avx512f")]
#[inline]
fn row_pair(matrix: &[u16], width: usize, r: usize, first: usize) -> __m512i {
    let (even, odd) = (&matrix[2 * r * width + first..][..16], &matrix[(2 * r + 1) * width + first..][..16]);
    // SAFETY: both slices hold the 256 bits that are loaded.
    unsafe {
        let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(even.as_ptr().cast()));
        let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(odd.as_ptr().cast()));
        _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
    }
}

/// `matrix` (rows, width) in bf16, rows a multiple of 32 and width of 16, as tiles of B in the order
/// (width / 16, rows / 32).
#[target_feature(enable = "avx512f")]
pub fn to_b_tiles(matrix: &[u16], width: usize, tiles: &mut [u16]) {
    let column_len = matrix.len() / width * ROWS;
    for (block, tiles) in tiles.chunks_exact_mut(column_len).enumerate() {
        for (r, tile_row) in tiles.chunks_exact_mut(DEPTH).enumerate() {
            store(tile_row, row_pair(matrix, width, r, block * ROWS));
        }
    }
}

/// The transpose of `matrix` (rows, width), rows a multiple of 32 and width of 16, as `width` rows of `stride` elements.
#[target_feature(enable = "avx512f")]
pub fn to_columns(matrix: &[u16], width: usize, stride: usize, out: &mut [u16]) {
    for first in (0..width).step_by(ROWS) {
        for (block, matrix) in matrix.chunks_exact(DEPTH * width).enumerate() {
            let mut pairs = [_mm512_setzero_si512(); 16];
            for (r, pair) in pairs.iter_mut().enumerate() {
                *pair = row_pair(matrix, width, r, first);
            }
            for (i, column) in transpose(pairs).into_iter().enumerate() {
                store(&mut out[(first + i) * stride + block * DEPTH..], column);
            }
        }
    }
}

/// Weights (O, taps, I) as B tiles in the order (columns / 16, chosen taps, rows / 32).
///
/// In the forward pass B's rows are I and its columns O; with `transposed`, for the input's gradient, the other way
/// round.
pub struct Weights<'a> {
    pub values: &'a [f32],
    pub outputs: usize,
    pub taps: usize,
    pub inputs: usize,
    pub transposed: bool,
}

impl Weights<'_> {
    /// (rows, columns) of B at each tap.
    pub fn size(&self) -> (usize, usize) {
        if self.transposed { (self.outputs, self.inputs) } else { (self.inputs, self.outputs) }
    }

    /// Up to `len` weights between output `o` and inputs from `i`; none beyond the last.
    fn run(&self, o: usize, tap: usize, i: usize, len: usize) -> &[f32] {
        if o >= self.outputs || i >= self.inputs {
            return &[];
        }
        &self.values[(o * self.taps + tap) * self.inputs + i..][..len.min(self.inputs - i)]
    }

    /// Packs the tiles of one block of 16 columns.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn pack(&self, block: usize, chosen: &[usize], out: &mut [u16]) {
        let depth_blocks = self.size().0.div_ceil(DEPTH);
        for (index, tile) in out.chunks_exact_mut(TILE).enumerate() {
            let (tap, first_row, first_column) =
                (chosen[index / depth_blocks], index % depth_blocks * DEPTH, block * ROWS);
            if self.transposed {
                pack_rows(|k| self.run(first_row + k, tap, first_column, ROWS), tile);
            } else {
                pack_columns(|j| self.run(first_column + j, tap, first_row, DEPTH), tile);
            }
        }
    }
}
