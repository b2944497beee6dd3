//! AMX: up to 2 x 2 tiles of sums in the matrix unit, pairs of bf16 by TDPBF16PS.
//!
//! A tile is 16 rows of 64 bytes. C (16 x 16 f32) += A (16 x 16 units) B (16 units x 16), where a unit is a pair of bf16
//! that stand next to each other in depth ("VNNI" order).

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::{Block, SPARE_ROWS, part};

/// Rows of a tile.
const ROWS: usize = 16;
const _: () = assert!((SPARE_ROWS + 1).is_multiple_of(2 * ROWS));

/// Whether the CPU has AMX and the system lets this process use it, which is asked for once; or scripts/amx_emulator.c is
/// there in its place.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cfg!(amx_emulated) || (cpu_has_it() && request_permission()))
}

fn cpu_has_it() -> bool {
    const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u64 = 3 << 17;
    if !(is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("xsave"))
    {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    // SAFETY: the system has enabled AVX-512, so XGETBV is there.
    let enabled = unsafe { _xgetbv(0) };
    features & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE && enabled & TILE_STATE == TILE_STATE
}

/// Linux gives a process room for the tiles' state only when asked (`arch_prctl(2)`).
fn request_permission() -> bool {
    const SYS_ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call without pointers; it clobbers rcx and r11 alone.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// This thread's tiles, configured while the value lives.
pub struct Tiles(std::marker::PhantomData<*const ()>); // a thread's own, so not Send

/// The operand of LDTILECFG: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// # Panics
    /// If AMX is not [`available`].
    pub fn configure() -> Self {
        assert!(available(), "tiles were configured without AMX");
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        config.bytes_per_row[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: AMX is there and permitted, and the operand is a valid configuration of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Tiles(std::marker::PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: AMX is there. Without tile state the system's task switches stay cheap.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// # Safety
/// As [`super::Session::run`]; the thread's tiles are configured.
pub unsafe fn run(block: &Block) {
    for tile in (0..block.tiles).step_by(2) {
        for row in (0..block.rows).step_by(2 * ROWS) {
            let part = part(block, row, tile);
            // SAFETY: the caller's promise.
            unsafe {
                match (part.rows > ROWS, part.tiles > 1) {
                    (false, false) => block_1x1(&part),
                    (false, true) => block_1x2(&part),
                    (true, false) => block_2x1(&part),
                    (true, true) => block_2x2(&part),
                }
            }
        }
    }
}

/// A micro-kernel: C in tmm0 to tmm3 (row by row of tiles), A in tmm4 and tmm5, B in tmm6 and tmm7.
macro_rules! micro_kernel {
    ($name:ident, zero: [$($zero:literal)*], load: [$($load:literal)*], step: [$($step:literal)*],
     store: [$($store:literal)*]) => {
        unsafe fn $name(block: &Block) {
            let steps = block.steps.as_ptr_range();
            // SAFETY: the caller's promise on `block`; the tiles are configured and named as clobbered. The second column's
            // address is formed even where it is not read.
            unsafe {
                asm!(
                    $($zero,)*
                    "test {accumulate}, {accumulate}",
                    "jz 2f",
                    "mov {t}, {c_stride}",
                    "shl {t}, 4",
                    "add {t}, {c}",
                    $($load,)*
                    "2:",
                    "mov {t}, [{step}]",
                    "add {t}, {a}",
                    "tileloadd tmm4, [{t} + {a_stride} * 1]",
                    "add {t}, {a_second}",
                    "tileloadd tmm6, [{b} + {line} * 1]",
                    $($step,)*
                    "add {b}, 1024",
                    "add {b_second}, 1024",
                    "add {step}, 8",
                    "cmp {step}, {end}",
                    "jne 2b",
                    "mov {t}, {c_stride}",
                    "shl {t}, 4",
                    "add {t}, {c}",
                    $($store,)*
                    t = out(reg) _,
                    accumulate = in(reg) usize::from(block.accumulate),
                    a = in(reg) block.a,
                    a_second = in(reg) block.a_stride * ROWS,
                    a_stride = in(reg) block.a_stride,
                    step = inout(reg) steps.start => _,
                    end = in(reg) steps.end,
                    b = inout(reg) block.b => _,
                    b_second = inout(reg) block.b.wrapping_byte_add(block.b_stride) => _,
                    line = in(reg) 64usize,
                    c = in(reg) block.c,
                    c_stride = in(reg) block.c_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

micro_kernel!(
    block_1x1,
    zero: ["tilezero tmm0"],
    load: ["tileloadd tmm0, [{c} + {c_stride} * 1]"],
    step: ["tdpbf16ps tmm0, tmm4, tmm6"],
    store: ["tilestored [{c} + {c_stride} * 1], tmm0"]
);

micro_kernel!(
    block_1x2,
    zero: ["tilezero tmm0" "tilezero tmm1"],
    load: ["tileloadd tmm0, [{c} + {c_stride} * 1]" "tileloadd tmm1, [{c} + {c_stride} * 1 + 64]"],
    step: [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{b_second} + {line} * 1]"
        "tdpbf16ps tmm1, tmm4, tmm7"
    ],
    store: ["tilestored [{c} + {c_stride} * 1], tmm0" "tilestored [{c} + {c_stride} * 1 + 64], tmm1"]
);

micro_kernel!(
    block_2x1,
    zero: ["tilezero tmm0" "tilezero tmm2"],
    load: ["tileloadd tmm0, [{c} + {c_stride} * 1]" "tileloadd tmm2, [{t} + {c_stride} * 1]"],
    step: [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm5, [{t} + {a_stride} * 1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    store: ["tilestored [{c} + {c_stride} * 1], tmm0" "tilestored [{t} + {c_stride} * 1], tmm2"]
);

micro_kernel!(
    block_2x2,
    zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    load: [
        "tileloadd tmm0, [{c} + {c_stride} * 1]"
        "tileloadd tmm1, [{c} + {c_stride} * 1 + 64]"
        "tileloadd tmm2, [{t} + {c_stride} * 1]"
        "tileloadd tmm3, [{t} + {c_stride} * 1 + 64]"
    ],
    step: [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{b_second} + {line} * 1]"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "tileloadd tmm5, [{t} + {a_stride} * 1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_stride} * 1], tmm0"
        "tilestored [{c} + {c_stride} * 1 + 64], tmm1"
        "tilestored [{t} + {c_stride} * 1], tmm2"
        "tilestored [{t} + {c_stride} * 1 + 64], tmm3"
    ]
);
