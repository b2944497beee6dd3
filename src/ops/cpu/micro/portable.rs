//! Any processor: f32 units in plain Rust, which the compiler turns into vector code where there is any.

use multiversion::multiversion;

use super::{Block, COLUMNS, TILE, part};

/// Rows of a block in registers.
const ROWS: usize = 4;

/// # Safety
/// As [`super::Session::run`]; units are f32.
pub unsafe fn run(block: &Block) {
    for tile in 0..block.tiles {
        for row in (0..block.rows).step_by(ROWS) {
            // SAFETY: the caller's promise.
            unsafe { kernel(&part(block, row, tile)) };
        }
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
unsafe fn kernel(block: &Block) {
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
                        *sum += a * column;
                    }
                }
            }
            b = b.add(TILE / COLUMNS);
        }
        (0..ROWS).for_each(|row| *c(row) = sums[row]);
    }
}
