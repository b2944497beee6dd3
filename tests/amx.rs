//! Products in bf16: conv2d and linear against plain loops over inputs rounded to bf16, which leaves f32's error alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};
use distill::ops::cpu::conv::ConvShape;
use distill::ops::cpu::products::{self, Products};
use distill::ops::{Activation, Tape, Value, conv2d, group_norm, linear, squared_error};
use distill::rng::Rng;

/// The largest error of a sum in f32, as a part of the largest value beside it.
const TOLERANCE: f64 = 1e-5;

/// Holds the process-wide setting for one test; `None`, after saying so, where it cannot be had.
fn in_bf16() -> Option<MutexGuard<'static, ()>> {
    static SETTING: Mutex<()> = Mutex::new(());
    if !products::available() {
        eprintln!("skipped: this CPU has no AMX");
        return None;
    }
    let guard = SETTING.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(products::set(Products::Bf16), Products::Bf16);
    Some(guard)
}

fn normal(index: u32, dims: &[usize]) -> Tensor {
    let values = Rng::stream(1, "amx", index, 0).normal(dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// To nearest even, as f64.
fn rounded(tensor: &Tensor) -> Vec<f64> {
    let round = |v: f32| {
        let bits = v.to_bits();
        f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    };
    floats(tensor).into_iter().map(round).collect()
}

/// What a convolution and its gradients are made of: f(output, input, weight) for each product, by their indices.
fn each_product(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    for out in 0..s.batch * s.out_height() * s.out_width() * s.out_channels {
        let (pixel, o) = (out / s.out_channels, out % s.out_channels);
        let (row, ox) = (pixel / s.out_width(), pixel % s.out_width());
        let (n, oy) = (row / s.out_height(), row % s.out_height());
        for tap in 0..s.kernel * s.kernel {
            let y = (oy * s.stride + tap / s.kernel).wrapping_sub(s.padding);
            let x = (ox * s.stride + tap % s.kernel).wrapping_sub(s.padding);
            if y < s.height && x < s.width {
                for i in 0..s.in_channels {
                    let input = ((n * s.height + y) * s.width + x) * s.in_channels + i;
                    f(out, input, (o * s.kernel * s.kernel + tap) * s.in_channels + i);
                }
            }
        }
    }
}

fn close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = floats(found);
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let largest = expected.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
    for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(f) - e).abs() <= TOLERANCE * largest, "{what}: element {i} is {f}, expected {e}");
    }
}

/// The output and the gradients of x, weight, bias and residual, when the output's gradient is `g`.
fn run(inputs: &[Tensor; 4], g: &Tensor, op: &impl Fn(&Tape, &[Value]) -> Value) -> Vec<Tensor> {
    let tape = Tape::recording();
    let values: Vec<Value> = inputs.iter().map(|t| tape.param(t)).collect();
    let out = op(&tape, &values);
    let gradient = g.copy().unwrap();
    let loss = tape.record(Tensor::new(0f32, &Device::Cpu).unwrap(), &[&out], move |_| Ok(vec![Some(gradient)]));
    let gradients = tape.backward(&loss).unwrap();
    let found = inputs.iter().map(|t| gradients.get(t).unwrap().clone());
    [out.tensor().clone()].into_iter().chain(found).collect()
}

fn check(s: &ConvShape, inputs: &[Tensor; 4], op: impl Fn(&Tape, &[Value]) -> Value) {
    let [x, weight, bias, residual] = inputs;
    let g = normal(4, residual.dims());
    let (rx, rw, rg) = (rounded(x), rounded(weight), rounded(&g));
    let bias = floats(bias);
    let added = |(i, r): (usize, f32)| f64::from(r) + f64::from(bias[i % bias.len()]);
    let mut out: Vec<f64> = floats(residual).into_iter().enumerate().map(added).collect();
    let (mut dx, mut dw) = (vec![0.0; rx.len()], vec![0.0; rw.len()]);
    each_product(s, |o, i, w| {
        out[o] += rx[i] * rw[w];
        dx[i] += rg[o] * rw[w];
        dw[w] += rg[o] * rx[i];
    });
    let mut dbias = vec![0.0; s.out_channels];
    floats(&g).iter().enumerate().for_each(|(i, &g)| dbias[i % s.out_channels] += f64::from(g));
    let dresidual: Vec<f64> = floats(&g).into_iter().map(f64::from).collect();

    let found = run(inputs, &g, &op);
    let names = ["output", "gradient of x", "of weight", "of bias", "of residual"];
    for ((name, found), expected) in names.iter().zip(&found).zip([&out, &dx, &dw, &dbias, &dresidual]) {
        close(&format!("{s:?}: {name}"), found, expected);
    }
    for (first, again) in found.iter().zip(run(inputs, &g, &op)) {
        assert_eq!(floats(first), floats(&again), "{s:?}: differs from run to run");
    }
}

fn check_conv(s: ConvShape) {
    let inputs = [
        normal(0, &[s.batch, s.height, s.width, s.in_channels]),
        normal(1, &[s.out_channels, s.kernel, s.kernel, s.in_channels]),
        normal(2, &[s.out_channels]),
        normal(3, &[s.batch, s.out_height(), s.out_width(), s.out_channels]),
    ];
    let op = |tape: &Tape, v: &[Value]| conv2d(tape, &v[0], &v[1], Some(&v[2]), Some(&v[3]), s.stride, s.padding);
    check(&s, &inputs, |tape, v| op(tape, v).unwrap());
}

#[test]
fn conv2d_agrees_for_every_kernel_stride_and_padding() {
    let Some(_setting) = in_bf16() else { return };
    for kernel in [1, 2, 3, 4, 5] {
        for stride in [1, 2, 3] {
            for padding in [0, 1, 2, 3] {
                for (batch, height, width, in_channels, out_channels) in
                    [(1, 5, 7, 3, 5), (3, 8, 6, 17, 1), (2, 6, 5, 33, 34)]
                {
                    check_conv(ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding });
                }
            }
        }
    }
}

#[test]
fn conv2d_agrees_for_every_number_of_channels() {
    let Some(_setting) = in_bf16() else { return };
    for (in_channels, out_channels) in [(1, 33), (33, 1), (16, 16), (3, 16), (33, 5), (16, 33), (96, 48), (64, 70)] {
        let shape =
            ConvShape { batch: 2, height: 6, width: 5, in_channels, out_channels, kernel: 3, stride: 1, padding: 1 };
        check_conv(shape);
        check_conv(ConvShape { stride: 2, ..shape });
        check_conv(ConvShape { kernel: 1, padding: 0, ..shape });
        check_conv(ConvShape { kernel: 1, padding: 0, stride: 2, ..shape });
    }
}

/// Images as small as the kernel, and images and batches that fill several tasks.
#[test]
fn conv2d_agrees_at_the_edges() {
    let Some(_setting) = in_bf16() else { return };
    let shape =
        ConvShape { batch: 2, height: 1, width: 1, in_channels: 2, out_channels: 3, kernel: 3, stride: 1, padding: 1 };
    check_conv(shape);
    check_conv(ConvShape { height: 3, width: 3, padding: 0, ..shape });
    check_conv(ConvShape { batch: 37, height: 4, width: 4, in_channels: 12, ..shape });
    check_conv(ConvShape { batch: 3, height: 33, width: 31, in_channels: 12, ..shape });
    check_conv(ConvShape { batch: 3, height: 33, width: 31, out_channels: 12, ..shape });
}

/// The bits of an output do not depend on the threads; those of a sum over pixels only on their number.
#[test]
fn conv2d_agrees_for_any_number_of_threads() {
    let Some(_setting) = in_bf16() else { return };
    let (batch, height, width, in_channels) = (7, 17, 16, 13);
    let shape = ConvShape { batch, height, width, in_channels, out_channels: 4, kernel: 3, stride: 1, padding: 1 };
    for threads in [1, 2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| check_conv(shape));
        pool.install(|| check_conv(ConvShape { stride: 2, ..shape }));
        pool.install(|| check_conv(ConvShape { in_channels: 3, ..shape }));
    }
}

#[test]
fn linear_agrees() {
    let Some(_setting) = in_bf16() else { return };
    for (rows, in_channels, out_channels) in [(1, 1, 3), (15, 16, 33), (18, 33, 5), (2001, 3, 2), (700, 96, 100)] {
        let inputs = [
            normal(0, &[rows, in_channels]),
            normal(1, &[out_channels, in_channels]),
            normal(2, &[out_channels]),
            normal(3, &[rows, out_channels]),
        ];
        let (kernel, stride, padding) = (1, 1, 0);
        let s = ConvShape { batch: rows, height: 1, width: 1, in_channels, out_channels, kernel, stride, padding };
        check(&s, &inputs, |tape, v| linear(tape, &v[0], &v[1], Some(&v[2]), Some(&v[3])).unwrap());
    }
}

/// The losses of ten steps of gradient descent on a small network.
fn losses() -> Vec<f32> {
    let images = normal(0, &[16, 8, 8, 3]);
    let target = normal(1, &[16, 4, 4, 5]);
    let scaled = |index, dims: &[usize], scale| normal(index, dims).affine(scale, 0.0).unwrap();
    let mut params = [
        scaled(2, &[32, 3, 3, 3], 0.2),
        scaled(3, &[48, 3, 3, 32], 0.06),
        Tensor::ones(48, candle_core::DType::F32, &Device::Cpu).unwrap(),
        scaled(4, &[48], 0.1),
        scaled(5, &[5, 48], 0.15),
    ];
    let mut step = || {
        let tape = Tape::recording();
        let p: Vec<Value> = params.iter().map(|t| tape.param(t)).collect();
        let hidden = conv2d(&tape, &Value::constant(images.clone()), &p[0], None, None, 1, 1).unwrap();
        let hidden = conv2d(&tape, &hidden, &p[1], None, None, 2, 1).unwrap();
        let hidden = group_norm(&tape, &hidden, &p[2], &p[3], None, 8, Activation::Silu, 1e-5).unwrap();
        let out = linear(&tape, &hidden, &p[4], None, None).unwrap();
        let loss = squared_error(&tape, &out, &target, None).unwrap();
        let value = loss.scalar().unwrap();
        let gradients = tape.backward(&loss).unwrap();
        for param in &mut params {
            *param = (&*param - (gradients.get(param).unwrap() * 0.5).unwrap()).unwrap();
        }
        value
    };
    (0..10).map(|_| step()).collect()
}

#[test]
fn training_follows_f32() {
    let Some(_setting) = in_bf16() else { return };
    let found = losses();
    products::set(Products::F32);
    let expected = losses();
    products::set(Products::Bf16);
    assert_ne!(found, expected, "bf16 was not in use");
    assert!(expected[9] < 0.95 * expected[0], "nothing was learned: {expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found / expected - 1.0).abs() < 0.01, "{found:?} differ from {expected:?}");
    }
}
