//! Micro-kernels: blocks of C += A B on one thread, one for each instruction set, behind one description.
//!
//! Everything is counted in units of 4 bytes: one f32, or two bf16 that stand next to each other in depth. A tile of B is
//! 16 units deep and 16 columns wide, row by row, 1 KiB in all; a step multiplies 16 units of each row of A with one tile
//! of each column. A is read where it lies, row by row at any distance, so that a convolution reads its input in place.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::isa::Isa;

/// Columns of a tile.
pub const COLUMNS: usize = 16;
/// Units of depth of a tile.
pub const DEPTH: usize = 16;
/// Units of a tile.
pub const TILE: usize = COLUMNS * DEPTH;
/// Rows that a block may compute beyond those asked for: A must be readable and C writable there. One more is a multiple of
/// the rows that any kernel computes at once, so rows that are a multiple of it need no room beyond them.
pub const SPARE_ROWS: usize = 31;

/// One product: C (rows x 16 `tiles`) = or += the sum over steps of A's rows times B's tiles.
pub struct Block<'a> {
    /// The first unit of A's first row, and bytes from one row to the next.
    pub a: *const u32,
    pub a_stride: usize,
    /// Where the units of each step begin in a row, in bytes.
    pub steps: &'a [usize],
    /// Units of each step that count: those after them are zero in B, and may be left out.
    pub units: usize,
    /// The first tile of the first column of tiles, each step's 1 KiB after the last, and bytes to the next column.
    pub b: *const u32,
    pub b_stride: usize,
    /// The first element of C, and bytes from one row to the next.
    pub c: *mut f32,
    pub c_stride: usize,
    pub rows: usize,
    pub tiles: usize,
    /// Whether the products are added to what C holds.
    pub accumulate: bool,
}

/// Whether this processor and system have the kernels' instructions.
pub fn available(isa: Isa) -> bool {
    match isa {
        Isa::Portable => true,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => is_x86_feature_detected!("avx512f"),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Isa::Amx => amx::available(),
        #[allow(unreachable_patterns)] // on a processor that has them all
        _ => false,
    }
}

/// What a thread holds while it runs blocks.
pub struct Session {
    isa: Isa,
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    _tiles: Option<amx::Tiles>,
}

impl Session {
    pub fn new(isa: Isa) -> Self {
        Session {
            isa,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            _tiles: (isa == Isa::Amx).then(amx::Tiles::configure),
        }
    }

    /// Computes a block.
    ///
    /// # Safety
    /// All that `block` describes may be read or, for C, written: up to [`SPARE_ROWS`] rows more than `rows` of A and C,
    /// too. B's tiles hold units of the session's instruction set.
    pub unsafe fn run(&self, block: &Block) {
        if block.steps.is_empty() || block.rows == 0 {
            return;
        }
        // SAFETY: the caller's promise; `Isa` is only ever one that the processor has.
        unsafe {
            match self.isa {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                Isa::Amx => amx::run(block),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => avx512::run_bf16(block),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => avx512::run_f32(block),
                _ => portable::run(block),
            }
        }
    }
}

/// The part of `block` that begins at row `row` and column of tiles `tile`.
fn part<'a>(block: &Block<'a>, row: usize, tile: usize) -> Block<'a> {
    // SAFETY: both stay inside what the block describes.
    unsafe {
        Block {
            a: block.a.byte_add(row * block.a_stride),
            b: block.b.byte_add(tile * block.b_stride),
            c: block.c.byte_add(row * block.c_stride).add(tile * COLUMNS),
            rows: block.rows - row,
            tiles: block.tiles - tile,
            ..*block
        }
    }
}
