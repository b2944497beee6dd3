//! Any processor: f32 units in plain Rust, which the compiler turns into vector code; by FMA where the processor has it.

use super::{Block, COLUMNS, SPARE_ROWS, TILE, part};

/// Rows of a block in registers: 4 x 2 sums of eight hide the latency of AVX2's multiplications.
const ROWS: usize = 4;
const _: () = assert!((SPARE_ROWS + 1).is_multiple_of(ROWS));

/// # Safety
/// As [`super::Session::run`]; units are f32.
pub unsafe fn run(block: &Block) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the caller's promise, and the processor has what the function needs.
        return unsafe { run_fma(block) };
    }
    // SAFETY: the caller's promise.
    unsafe { each_part(block, |sum, a, b| sum + a * b) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_fma(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { each_part(block, |sum, a, b| f32::mul_add(a, b, sum)) };
}

#[inline(always)]
unsafe fn each_part(block: &Block, multiply: impl Fn(f32, f32, f32) -> f32 + Copy) {
    for tile in 0..block.tiles {
        for row in (0..block.rows).step_by(ROWS) {
            // SAFETY: the caller's promise.
            unsafe { kernel(&part(block, row, tile), multiply) };
        }
    }
}

#[inline(always)]
unsafe fn kernel(block: &Block, multiply: impl Fn(f32, f32, f32) -> f32) {
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        let c = |row: usize| block.c.byte_add(row * block.c_stride).cast::<[f32; COLUMNS]>();
        if block.accumulate {
            (0..ROWS).for_each(|row| sums[row] = *c(row));
        }
        let mut b = block.b.cast::<[f32; COLUMNS]>();
        for &step in block.steps {
            let a = block.a.byte_add(step).cast::<f32>();
            for unit in 0..block.units {
                let columns = *b.add(unit);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = *a.byte_add(row * block.a_stride).add(unit);
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = multiply(*sum, a, column);
                    }
                }
            }
            b = b.add(TILE / COLUMNS);
        }
        (0..ROWS).for_each(|row| *c(row) = sums[row]);
    }
}
