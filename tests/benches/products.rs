//! Billions of operations a second of convolutions at the networks' shapes, with every set of kernels: `cargo bench`.

use std::ffi::{c_int, c_long};
use std::hint::black_box;
use std::time::Instant;

use distill::ops::cpu::conv::{ConvShape, backward, forward};
use distill::ops::cpu::element::Element;
use distill::ops::cpu::input::{Input, Resample};
use distill::ops::cpu::isa::{self, Isa, Precision};
use distill::ops::cpu::norm::Pixels;
use distill::rng::Rng;
use half::bf16;

/// As in the program itself: pages of freed buffers are kept.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    safe fn mi_option_set(option: c_int, value: c_long);
}

/// Each figure is that of the fastest of so many calls.
const CALLS: usize = 30;

fn main() {
    mi_option_set(15, -1);
    println!("the processor's limit, on all threads: {}", limits());
    println!("forward, gradient of the weight, both gradients; GFLOP/s");
    for (batch, size, in_channels, out_channels, kernel) in [
        (64, 8, 128, 128, 3),
        (64, 8, 256, 128, 3),
        (64, 4, 256, 256, 3),
        (64, 16, 128, 128, 3),
        (64, 16, 256, 256, 3),
        (64, 32, 32, 32, 3),
        (32, 64, 16, 16, 3),
        (32, 32, 64, 64, 3),
        (256, 32, 3, 128, 3),
        (256, 16, 128, 128, 3),
        (64, 8, 128, 384, 1),
        (64, 1, 512, 512, 1),
    ] {
        let (stride, padding) = (1, kernel / 2);
        let shape = ConvShape { batch, height: size, width: size, in_channels, out_channels, kernel, stride, padding };
        print!("{batch} x {size}x{size}, {in_channels} -> {out_channels}, kernel {kernel}:");
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available() && *isa != Isa::Portable) {
            let rates = isa::with(isa, || match isa.precision() {
                Precision::F32 => rates::<f32>(&shape),
                Precision::Bf16 => rates::<bf16>(&shape),
            });
            print!("  {} {rates:.0?}", isa.as_str());
        }
        println!();
    }
}

/// Of the forward pass, the weight's gradient alone, and both gradients.
fn rates<E: Element>(shape: &ConvShape) -> [f64; 3] {
    let normal = |n: usize, stream: u32| Rng::stream(0, "bench", stream, 0).normal(n);
    let elements = |n, stream| normal(n, stream).into_iter().map(E::round).collect::<Vec<E>>();
    let x = elements(shape.batch * shape.height * shape.width * shape.in_channels, 0);
    let weight = normal(shape.out_channels * shape.patch_len(), 1);
    let gradient = elements(shape.batch * shape.out_height() * shape.out_width() * shape.out_channels, 2);
    let operations = (2 * gradient.len() * shape.patch_len()) as f64;
    let input = Input {
        parts: vec![Pixels { values: &x, channels: shape.in_channels }],
        height: shape.height,
        width: shape.width,
        norm: None,
        resample: Resample::Keep,
    };
    let seconds = |work: &dyn Fn()| {
        let time = || {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        };
        (0..CALLS).map(|_| time()).fold(f64::INFINITY, f64::min)
    };
    let back = |wanted| backward::<E, E>(shape, &input, &weight, &[], &gradient, wanted);
    [
        operations / seconds(&|| drop(black_box(forward::<E, E>(shape, &input, &weight, None, None)))),
        operations / seconds(&|| drop(black_box(back(false)))),
        2.0 * operations / seconds(&|| drop(black_box(back(true)))),
    ]
    .map(|rate| rate / 1e9)
}

/// What multiplications alone reach, with operands and sums in registers.
#[cfg(target_arch = "x86_64")]
fn limits() -> String {
    let all = |run: &(dyn Fn() -> f64 + Sync)| rayon::broadcast(|_| run()).into_iter().sum::<f64>();
    let mut found = Vec::new();
    if Isa::Avx512.available() {
        // SAFETY: the processor has what the function needs.
        found.push(format!("avx512 {:.0}", all(&|| unsafe { limit_f32() })));
    }
    if Isa::Avx512Bf16.available() {
        // SAFETY: the processor has what the function needs.
        found.push(format!("avx512-bf16 {:.0}", all(&|| unsafe { limit_bf16() })));
    }
    found.join(", ")
}

#[cfg(not(target_arch = "x86_64"))]
fn limits() -> String {
    "not measured here".into()
}

/// A loop of independent multiplications, `$operations` each; billions of operations a second.
#[cfg(target_arch = "x86_64")]
macro_rules! limit {
    ($name:ident, $features:literal, $instruction:literal, $operations:expr) => {
        #[target_feature(enable = $features)]
        fn $name() -> f64 {
            const LOOPS: usize = 10_000_000;
            let start = Instant::now();
            for _ in 0..LOOPS {
                // SAFETY: registers alone, all of them named.
                unsafe {
                    std::arch::asm!(
                        concat!($instruction, " zmm0, zmm30, zmm31"), concat!($instruction, " zmm1, zmm30, zmm31"),
                        concat!($instruction, " zmm2, zmm30, zmm31"), concat!($instruction, " zmm3, zmm30, zmm31"),
                        concat!($instruction, " zmm4, zmm30, zmm31"), concat!($instruction, " zmm5, zmm30, zmm31"),
                        concat!($instruction, " zmm6, zmm30, zmm31"), concat!($instruction, " zmm7, zmm30, zmm31"),
                        concat!($instruction, " zmm8, zmm30, zmm31"), concat!($instruction, " zmm9, zmm30, zmm31"),
                        concat!($instruction, " zmm10, zmm30, zmm31"), concat!($instruction, " zmm11, zmm30, zmm31"),
                        out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                        out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                        out("zmm30") _, out("zmm31") _,
                        options(nostack, nomem),
                    );
                }
            }
            (12 * $operations * LOOPS) as f64 / start.elapsed().as_secs_f64() / 1e9
        }
    };
}

#[cfg(target_arch = "x86_64")]
limit!(limit_f32, "avx512f", "vfmadd231ps", 32);
#[cfg(target_arch = "x86_64")]
limit!(limit_bf16, "avx512f,avx512bf16", "vdpbf16ps", 64);
