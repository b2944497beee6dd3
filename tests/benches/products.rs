//! Billions of operations a second of convolutions at the networks' shapes, in f32 and in bf16: `cargo bench`.

use std::hint::black_box;
use std::time::Instant;

use distill::ops::cpu::conv::{ConvShape, forward, input_gradient, weight_gradient};
use distill::ops::cpu::products::{self, Products};
use distill::rng::Rng;

/// Each figure is that of the fastest of so many calls.
const CALLS: usize = 50;

fn main() {
    for (batch, size, in_channels, out_channels, kernel) in [
        (64, 8, 96, 96, 3),
        (64, 8, 192, 192, 3),
        (64, 4, 192, 192, 3),
        (64, 16, 128, 128, 3),
        (64, 32, 32, 32, 3),
        (64, 32, 3, 128, 3),
        (4096, 1, 96, 288, 1),
    ] {
        let (stride, padding) = (1, kernel / 2);
        let shape = ConvShape { batch, height: size, width: size, in_channels, out_channels, kernel, stride, padding };
        products::set(Products::F32);
        let f32s = rates(&shape);
        let bf16 = match products::set(Products::Bf16) {
            Products::Bf16 => format!("{:.0?}", rates(&shape)),
            Products::F32 => "not there".into(),
        };
        println!("{size}x{size}x{in_channels}->{out_channels}, kernel {kernel}: f32 {f32s:.0?}, bf16 {bf16} GFLOP/s");
    }
}

/// Of the forward pass, the input's and the weight's gradient.
fn rates(shape: &ConvShape) -> [f64; 3] {
    let normal = |n: usize, stream: u32| Rng::stream(0, "bench", stream, 0).normal(n);
    let x = normal(shape.batch * shape.height * shape.width * shape.in_channels, 0);
    let weight = normal(shape.out_channels * shape.patch_len(), 1);
    let gradient = normal(shape.batch * shape.out_height() * shape.out_width() * shape.out_channels, 2);
    let operations = (2 * gradient.len() * shape.patch_len()) as f64;
    let rate = |work: &dyn Fn() -> Vec<f32>| {
        let time = || {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64()
        };
        operations / (0..CALLS).map(|_| time()).fold(f64::INFINITY, f64::min) / 1e9
    };
    [
        rate(&|| forward(shape, &x, &weight, None, None)),
        rate(&|| input_gradient(shape, &gradient, &weight)),
        rate(&|| weight_gradient(shape, &x, &gradient)),
    ]
}
