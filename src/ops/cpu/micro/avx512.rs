//! AVX-512: 8 rows by up to 3 tiles of sums in registers, f32 by FMA or pairs of bf16 by VDPBF16PS.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Block, COLUMNS, SPARE_ROWS, TILE, part};

/// Columns of tiles of a block in registers, and their rows: 8 x 3 sums, three tiles' columns and some broadcast values
/// fill the 32 registers. A single tile takes more rows, for as many sums hide the latency of a multiplication.
const TILES: usize = 3;
const ROWS: usize = 8;
const ROWS_OF_ONE: usize = 16;
const _: () = assert!((SPARE_ROWS + 1).is_multiple_of(ROWS) && (SPARE_ROWS + 1).is_multiple_of(ROWS_OF_ONE));

/// # Safety
/// As [`super::Session::run`]; the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
pub unsafe fn run_f32(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { run(block, |sum, a, b| _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)) };
}

/// # Safety
/// As [`super::Session::run`]; the processor has AVX-512F and AVX-512BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn run_bf16(block: &Block) {
    // SAFETY: both types are 512 plain bits.
    let pairs = |units: __m512i| unsafe { transmute::<__m512i, __m512bh>(units) };
    // SAFETY: the caller's promise.
    unsafe { run(block, |sum, a, b| _mm512_dpbf16_ps(sum, pairs(a), pairs(b))) };
}

#[inline(always)]
unsafe fn run(block: &Block, multiply: impl Fn(__m512, __m512i, __m512i) -> __m512 + Copy) {
    for tile in (0..block.tiles).step_by(TILES) {
        let tiles = TILES.min(block.tiles - tile);
        for row in (0..block.rows).step_by(if tiles == 1 { ROWS_OF_ONE } else { ROWS }) {
            let part = part(block, row, tile);
            // SAFETY: the caller's promise.
            unsafe {
                match tiles {
                    1 if part.rows <= ROWS => kernel::<ROWS, 1>(&part, multiply),
                    1 => kernel::<ROWS_OF_ONE, 1>(&part, multiply),
                    2 => kernel::<ROWS, 2>(&part, multiply),
                    _ => kernel::<ROWS, TILES>(&part, multiply),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn kernel<const R: usize, const T: usize>(block: &Block, multiply: impl Fn(__m512, __m512i, __m512i) -> __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); T]; R];
        let c = |row: usize, tile: usize| block.c.byte_add(row * block.c_stride).add(tile * COLUMNS);
        if block.accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (tile, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(c(row, tile));
                }
            }
        }
        let mut b = block.b;
        for &step in block.steps {
            let first = block.a.byte_add(step);
            for unit in 0..block.units {
                let mut columns = [_mm512_setzero_si512(); T];
                for (tile, column) in columns.iter_mut().enumerate() {
                    *column = _mm512_loadu_si512(b.byte_add(tile * block.b_stride).add(unit * COLUMNS).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    // From a base of each four rows, whose addresses are one to three strides apart: they fit the registers.
                    let base = first.byte_add(row / 4 * 4 * block.a_stride);
                    let a = _mm512_set1_epi32(*base.byte_add(row % 4 * block.a_stride).add(unit).cast());
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = multiply(*sum, a, column);
                    }
                }
            }
            b = b.add(TILE);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (tile, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(c(row, tile), *sum);
            }
        }
    }
}
