//! Matrices into the order of micro-kernels: tiles of B, and transposes.

use multiversion::multiversion;

use super::element::{Element, depth};
use super::micro::{COLUMNS, TILE};

/// 16 x 16 units.
type Square = [[u32; 16]; 16];

/// The transpose of 16 rows of 16 units.
fn transpose(rows: &Square) -> Square {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has what the function needs.
        return unsafe { transpose_avx512(rows) };
    }
    std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(rows: &Square) -> Square {
    use std::arch::x86_64::*;
    let zero = _mm512_setzero_si512();
    // SAFETY: an array of 16 vectors and one of 16 x 16 units are the same bits.
    let rows: [__m512i; 16] = unsafe { std::mem::transmute_copy(rows) };
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
    // SAFETY: as above.
    unsafe { std::mem::transmute(out) }
}

/// 16 units of depth from as many elements; what lies beyond the end of `values` is zero.
#[inline(always)]
fn units<E: Element>(values: &[E]) -> [u32; 16] {
    let mut out = [0; 16];
    let count = values.len().min(depth::<E>());
    // SAFETY: `count` elements fit into 16 units, and every pattern of bits is a unit.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), out.as_mut_ptr().cast::<E>(), count) };
    out
}

/// Row r of the units of 16 columns from the rows of a matrix that one unit stands for.
#[inline(always)]
fn pair<E: Element>(row: impl Fn(usize) -> [E; 16]) -> [u32; 16] {
    let mut out = [0; 16];
    let first = row(0);
    if E::PER_UNIT == 1 {
        // SAFETY: an element is one unit of 4 bytes here.
        return unsafe { std::mem::transmute_copy(&first) };
    }
    let second = row(1);
    for (i, unit) in out.iter_mut().enumerate() {
        // SAFETY: an element is half a unit here.
        let bits = |e: &E| u32::from(unsafe { std::mem::transmute_copy::<E, u16>(e) });
        *unit = bits(&first[i]) | bits(&second[i]) << 16;
    }
    out
}

/// Up to 16 elements, then zeros.
#[inline(always)]
fn sixteen<E: Element>(values: &[E]) -> [E; 16] {
    let mut out = [E::default(); 16];
    let count = values.len().min(16);
    out[..count].copy_from_slice(&values[..count]);
    out
}

/// A tile whose columns are up to 16 contiguous runs of depth: `column(j)`, cut to the tile, zeros beyond its end.
#[inline(always)]
pub fn tile_of_columns<'a, E: Element>(column: impl Fn(usize) -> &'a [E], tile: &mut [u32]) {
    let rows: Square = std::array::from_fn(|j| units(column(j)));
    tile.copy_from_slice(transpose(&rows).as_flattened());
}

/// A tile whose rows of depth are contiguous runs of up to 16 columns: `row(k)`, zeros beyond its end.
#[inline(always)]
pub fn tile_of_rows<'a, E: Element>(row: impl Fn(usize) -> &'a [E], tile: &mut [u32]) {
    for (unit, tile) in tile.chunks_exact_mut(COLUMNS).enumerate() {
        tile.copy_from_slice(&pair(|i| sixteen(row(unit * E::PER_UNIT + i))));
    }
}

/// `matrix` (rows, width), width a multiple of 16, as tiles of B whose depth are the rows: steps `first`.. of columns of
/// `steps` tiles. Rows beyond the last are zero.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn rows_to_tiles<E: Element>(matrix: &[E], width: usize, (first, steps): (usize, usize), tiles: &mut [u32]) {
    let rows = matrix.len() / width;
    for (column, tiles) in tiles.chunks_exact_mut(steps * TILE).enumerate().take(width / COLUMNS) {
        for (step, tile) in tiles[first * TILE..].chunks_exact_mut(TILE).enumerate().take(rows.div_ceil(depth::<E>())) {
            let row = |k: usize| match step * depth::<E>() + k {
                k if k < rows => &matrix[k * width + column * COLUMNS..][..COLUMNS],
                _ => &[],
            };
            tile_of_rows(row, tile);
        }
    }
}

/// `matrix` (rows, width) as tiles of B whose columns are the rows and whose depth is the width, in the order (rows / 16,
/// steps); zeros beyond either.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn columns_to_tiles<E: Element>(matrix: &[E], width: usize, tiles: &mut [u32]) {
    let steps = width.div_ceil(depth::<E>());
    for (block, tiles) in tiles.chunks_exact_mut(steps * TILE).enumerate() {
        for (step, tile) in tiles.chunks_exact_mut(TILE).enumerate() {
            let column = |j: usize| {
                let row = (block * COLUMNS + j) * width;
                matrix.get(row..row + width).and_then(|row| row.get(step * depth::<E>()..)).unwrap_or(&[])
            };
            tile_of_columns(column, tile);
        }
    }
}

/// The transpose of the first columns of `matrix` (rows, width), as many as `out` has rows of `stride` elements, a multiple
/// of 16. Of each row the first `rows`, rounded up to a tile's depth, are written: zeros beyond the last.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn transposed<E: Element>(matrix: &[E], width: usize, stride: usize, out: &mut [E]) {
    let (rows, deep) = (matrix.len() / width, depth::<E>());
    for first in (0..out.len() / stride).step_by(COLUMNS) {
        for step in 0..rows.div_ceil(deep) {
            let row = |k: usize| match step * deep + k {
                k if k < rows => &matrix[k * width + first..][..COLUMNS],
                _ => &[],
            };
            let units: Square = std::array::from_fn(|unit| pair(|i| sixteen(row(unit * E::PER_UNIT + i))));
            for (column, units) in transpose(&units).iter().enumerate() {
                let out = &mut out[(first + column) * stride + step * deep..][..deep];
                // SAFETY: as many elements as fill 16 units.
                unsafe { std::ptr::copy_nonoverlapping(units.as_ptr().cast::<E>(), out.as_mut_ptr(), deep) };
            }
        }
    }
}
