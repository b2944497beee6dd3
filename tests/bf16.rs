//! Convolutions in bf16 against plain loops over operands rounded to bf16, which leaves f32's error alone; and training,
//! whose losses must follow those in f32.

use candle_core::{DType, Device, Tensor};
use distill::ops::cpu::conv::ConvShape;
use distill::ops::cpu::isa::{self, Isa, Precision};
use distill::ops::{Activation, Convolution, Input, Norm, Tape, Value, conv2d, linear, reshape, squared_error};
use distill::rng::Rng;

/// The largest error of a sum in f32, as a part of the largest value beside it.
const TOLERANCE: f64 = 1e-5;
/// The largest error of a value that was rounded to bf16, as a part of it.
const ROUNDING: f64 = 1.0 / 256.0;
/// That of a weight's gradient: cuDNN rounds it.
const WEIGHT_ROUNDING: f64 = if cfg!(cuda_emulated) { ROUNDING } else { 0.0 };

/// Runs `test` with every set of kernels in bf16 that this processor has, and says which were left out.
fn in_bf16(test: impl Fn()) {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.precision() == Precision::Bf16) {
        match isa.available() {
            true => isa::with(isa, &test),
            false => eprintln!("skipped: this processor has no {}", isa.as_str()),
        }
    }
}

fn normal(index: u32, dims: &[usize]) -> Tensor {
    let values = Rng::stream(1, "bf16", index, 0).normal(dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
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

/// `rounding`: of each value, beside the error of sums.
fn close(what: &str, found: &Tensor, expected: &[f64], rounding: f64) {
    let found = floats(found);
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let largest = expected.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
    for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
        let allowed = TOLERANCE * largest + rounding * e.abs();
        assert!((f64::from(f) - e).abs() <= allowed, "{what}: element {i} is {f}, expected {e}");
    }
}

/// The output and the gradients of x, weight, bias and residual, when the output's gradient is `g`.
fn run(inputs: &[Tensor], g: &Tensor, op: &impl Fn(&Tape, &[Value]) -> Value) -> Vec<Tensor> {
    let tape = Tape::recording();
    let values: Vec<Value> = inputs.iter().map(|t| tape.param(t)).collect();
    let out = op(&tape, &values);
    let gradient = g.copy().unwrap();
    let loss = tape.record(Tensor::new(0f32, &Device::Cpu).unwrap(), &[&out], move |_| Ok(vec![Some(gradient)]));
    let gradients = tape.backward(&loss).unwrap();
    let found = inputs.iter().map(|t| gradients.get(t).unwrap().clone());
    [out.tensor().clone()].into_iter().chain(found).collect()
}

/// Checks x, weight, bias and, where there is one, residual.
fn check(s: &ConvShape, inputs: &[Tensor], g: &Tensor, op: impl Fn(&Tape, &[Value]) -> Value) {
    let (rx, rw, rg) = (rounded(&inputs[0]), rounded(&inputs[1]), rounded(g));
    let bias = floats(&inputs[2]);
    let residual = inputs.get(3).map_or(vec![0.0; rg.len()], floats);
    let added = |(i, r): (usize, f32)| f64::from(r) + f64::from(bias[i % bias.len()]);
    let mut out: Vec<f64> = residual.into_iter().enumerate().map(added).collect();
    let (mut dx, mut dw) = (vec![0.0; rx.len()], vec![0.0; rw.len()]);
    each_product(s, |o, i, w| {
        out[o] += rx[i] * rw[w];
        dx[i] += rg[o] * rw[w];
        dw[w] += rg[o] * rx[i];
    });
    let mut dbias = vec![0.0; s.out_channels];
    floats(g).iter().enumerate().for_each(|(i, &g)| dbias[i % s.out_channels] += f64::from(g));
    let dresidual: Vec<f64> = floats(g).into_iter().map(f64::from).collect();

    let found = run(inputs, g, &op);
    let expected = [
        ("output", &out, 0.0),
        ("gradient of x", &dx, ROUNDING),
        ("gradient of weight", &dw, WEIGHT_ROUNDING),
        ("gradient of bias", &dbias, 0.0),
        ("gradient of residual", &dresidual, 0.0),
    ];
    for ((name, expected, rounding), found) in expected.into_iter().zip(&found) {
        close(&format!("{:?}, {s:?}: {name}", isa::current()), found, expected, rounding);
    }
    for (first, again) in found.iter().zip(run(inputs, g, &op)) {
        assert_eq!(floats(first), floats(&again), "{s:?}: differs from run to run");
    }
}

fn check_conv(s: ConvShape) {
    let out = [s.batch, s.out_height(), s.out_width(), s.out_channels];
    let inputs = [
        normal(0, &[s.batch, s.height, s.width, s.in_channels]),
        normal(1, &[s.out_channels, s.kernel, s.kernel, s.in_channels]),
        normal(2, &[s.out_channels]),
        normal(3, &out),
    ];
    check(&s, &inputs, &normal(4, &out), |tape, v| {
        let (bias, residual) = (Some(&v[2]), Some(&v[3]));
        let options = Convolution { stride: s.stride, padding: s.padding, bias, residual, f32_output: true };
        conv2d(tape, &Input::of(&v[0]), &v[1], options).unwrap()
    });
}

#[test]
fn conv2d_agrees_for_every_kernel_stride_and_padding() {
    in_bf16(|| {
        for kernel in [1, 2, 3, 4, 5] {
            for stride in [1, 2, 3] {
                for padding in [0, 1, 2, 3] {
                    for (batch, height, width, in_channels, out_channels) in
                        [(1, 5, 7, 3, 5), (3, 8, 6, 17, 1), (2, 6, 5, 33, 34)]
                    {
                        let shape =
                            ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding };
                        check_conv(shape);
                    }
                }
            }
        }
    });
}

#[test]
fn conv2d_agrees_for_every_number_of_channels() {
    in_bf16(|| {
        for (in_channels, out_channels) in [(1, 33), (33, 1), (16, 16), (3, 16), (33, 5), (16, 33), (96, 48), (64, 70)]
        {
            let (batch, height, width, kernel, stride, padding) = (2, 6, 5, 3, 1, 1);
            let shape = ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding };
            check_conv(shape);
            check_conv(ConvShape { stride: 2, ..shape });
            check_conv(ConvShape { kernel: 1, padding: 0, ..shape });
            check_conv(ConvShape { kernel: 1, padding: 0, stride: 2, ..shape });
        }
    });
}

/// Images as small as the kernel, and images and batches that fill several tasks.
#[test]
fn conv2d_agrees_at_the_edges() {
    in_bf16(|| {
        let (kernel, stride, padding) = (3, 1, 1);
        let shape =
            ConvShape { batch: 2, height: 1, width: 1, in_channels: 2, out_channels: 3, kernel, stride, padding };
        check_conv(shape);
        check_conv(ConvShape { height: 3, width: 3, padding: 0, ..shape });
        check_conv(ConvShape { batch: 37, height: 4, width: 4, in_channels: 33, ..shape });
        check_conv(ConvShape { batch: 3, height: 33, width: 31, in_channels: 33, ..shape });
        check_conv(ConvShape { batch: 3, height: 33, width: 31, out_channels: 33, ..shape });
    });
}

/// The bits of an output do not depend on the threads; those of a sum over pixels only on their number.
#[test]
fn conv2d_agrees_for_any_number_of_threads() {
    in_bf16(|| {
        let isa = isa::current();
        let (batch, height, width, in_channels) = (7, 17, 16, 33);
        let shape = ConvShape { batch, height, width, in_channels, out_channels: 4, kernel: 3, stride: 1, padding: 1 };
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let check_conv = |shape| pool.install(|| isa::with(isa, || check_conv(shape)));
            check_conv(shape);
            check_conv(ConvShape { stride: 2, ..shape });
            check_conv(ConvShape { in_channels: 3, ..shape });
        }
    });
}

#[test]
fn linear_agrees() {
    in_bf16(|| {
        for (rows, in_channels, out_channels) in [(1, 1, 3), (15, 16, 33), (18, 33, 5), (2001, 3, 2), (700, 96, 100)] {
            let inputs =
                [normal(0, &[rows, in_channels]), normal(1, &[out_channels, in_channels]), normal(2, &[out_channels])];
            let (kernel, stride, padding) = (1, 1, 0);
            let s = ConvShape { batch: rows, height: 1, width: 1, in_channels, out_channels, kernel, stride, padding };
            let g = normal(4, &[rows, out_channels]);
            check(&s, &inputs, &g, |tape, v| linear(tape, &v[0], &v[1], Some(&v[2])).unwrap());
        }
    });
}

/// The losses of ten steps of gradient descent on a small network.
fn losses() -> Vec<f32> {
    let images = normal(0, &[16, 8, 8, 3]);
    let target = normal(1, &[16, 4, 4, 5]);
    let scaled = |index, dims: &[usize], scale| normal(index, dims).affine(scale, 0.0).unwrap();
    let mut params = [
        scaled(2, &[32, 3, 3, 3], 0.2),
        scaled(3, &[48, 3, 3, 32], 0.06),
        Tensor::ones(48, DType::F32, &Device::Cpu).unwrap(),
        scaled(4, &[48], 0.1),
        scaled(5, &[5, 48], 0.15),
    ];
    let mut step = || {
        let tape = Tape::recording();
        let p: Vec<Value> = params.iter().map(|t| tape.param(t)).collect();
        let same = Convolution { padding: 1, ..Default::default() };
        let hidden = conv2d(&tape, &Input::of(&Value::constant(images.clone())), &p[0], same).unwrap();
        let halved = Convolution { stride: 2, ..same };
        let hidden = conv2d(&tape, &Input::of(&hidden), &p[1], halved).unwrap();
        let (gamma, beta) = (p[2].clone(), p[3].clone());
        let norm = Norm { gamma, beta, scale_shift: None, groups: 8, act: Activation::Silu, eps: 1e-5 };
        let last = reshape(&tape, &p[4], &[5, 1, 1, 48]).unwrap();
        let options = Convolution { f32_output: true, ..Default::default() };
        let out = conv2d(&tape, &Input::of(&hidden).normalized(norm), &last, options).unwrap();
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
    let expected = isa::with(Isa::Portable, losses);
    assert!(expected[9] < 0.95 * expected[0], "nothing was learned: {expected:?}");
    in_bf16(|| {
        let found = losses();
        assert_ne!(found, expected, "bf16 was not in use");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 0.01, "{found:?} differ from {expected:?}");
        }
    });
}
