//! One checker for all ops: forward against the plain version, every gradient against its central differences.

use std::fmt::Debug;

use candle_core::{DType, Device, Tensor};
use distill::error::Result;
use distill::ops::cpu::isa::{self, Isa, Precision};
use distill::ops::{Convolution, Gradients, Input, Tape, Value, conv2d};
use distill::rng::Rng;

/// The largest error of an op, as a part of the largest value beside it.
fn tolerance(isa: Isa) -> f64 {
    if isa.precision() == Precision::F32 { 1e-5 } else { 3e-2 }
}
/// Central differences in f64: an error near STEP^2 from the third derivative and 1e-16 / STEP from rounding.
const STEP: f64 = 1e-5;
/// Elements of each input whose derivative is checked alone; a random direction checks all of them together.
const SAMPLES: usize = 24;

/// A standard normal tensor; `name` and `index` make it differ from the others of its test.
pub fn normal(name: &str, index: usize, dims: &[usize]) -> Tensor {
    let values = Rng::stream(1, name, index as u32, 0).normal(dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Standard normal tensors of the given shapes.
pub fn normals(name: &str, shapes: &[&[usize]]) -> Vec<Tensor> {
    shapes.iter().enumerate().map(|(i, dims)| normal(name, i, dims)).collect()
}

pub fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn doubles(tensor: &Tensor) -> Vec<f64> {
    floats(tensor).into_iter().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The dot product with fixed weights: a loss under which an output's gradient is `weights`.
pub fn functional(tape: &Tape, x: &Value, weights: &Tensor) -> Value {
    let value = dot(&doubles(x.tensor()), &doubles(weights)) as f32;
    // A copy, for the tape adds to gradients in place, of the output's type.
    let weights = weights.to_dtype(x.tensor().dtype()).unwrap().copy().unwrap();
    tape.record(Tensor::new(value, &Device::Cpu).unwrap(), &[x], move |_| Ok(vec![Some(weights)]))
}

/// The 1 x 1 kernel (C, 1, 1, C) that changes nothing, through which an input can be seen.
pub fn identity(channels: usize) -> Value {
    let value = |i: usize| f32::from(u8::from(i / channels == i % channels));
    let values: Vec<f32> = (0..channels * channels).map(value).collect();
    Value::constant(Tensor::from_vec(values, (channels, 1, 1, channels), &Device::Cpu).unwrap())
}

/// What a convolution reads, as it reads it.
pub fn seen(tape: &Tape, input: &Input, channels: usize) -> Result<Value> {
    conv2d(tape, input, &identity(channels), Convolution { f32_output: true, ..Default::default() })
}

/// Runs `op` on `inputs`, of which those that `trains` names are trainable; returns its output and the gradients of
/// the dot product of that with random weights, which are returned as well.
fn run(
    inputs: &[Tensor],
    trains: impl Fn(usize) -> bool,
    op: &impl Fn(&Tape, &[Value]) -> Result<Value>,
) -> (Tensor, Tensor, Gradients) {
    let tape = Tape::recording();
    let value = |(i, t): (usize, &Tensor)| if trains(i) { tape.param(t) } else { Value::constant(t.clone()) };
    let values: Vec<Value> = inputs.iter().enumerate().map(value).collect();
    let out = op(&tape, &values).unwrap();
    let weights = normal("functional", 0, out.dims());
    let loss = functional(&tape, &out, &weights);
    (out.tensor().clone(), weights, tape.backward(&loss).unwrap())
}

/// Runs `test` with every set of kernels that this processor has, and says which were left out.
pub fn each_isa(mut test: impl FnMut(Isa)) {
    for isa in Isa::ALL {
        match isa.available() {
            true => isa::with(isa, || test(isa)),
            false => eprintln!("skipped: this processor has no {}", isa.as_str()),
        }
    }
}

/// Checks `op` on `inputs` against its plain version `reference`, with every set of kernels. `case` names it in messages.
pub fn check(
    case: &dyn Debug,
    inputs: &[Tensor],
    op: impl Fn(&Tape, &[Value]) -> Result<Value>,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    // Values that bf16 holds exactly: what lies on one side of a kink stays there.
    let exact = |t: &Tensor| t.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
    let inputs: Vec<Tensor> = inputs.iter().map(exact).collect();
    each_isa(|isa| check_with(isa, &(isa, case), &inputs, &op, &reference));
}

fn check_with(
    isa: Isa,
    case: &dyn Debug,
    inputs: &[Tensor],
    op: &impl Fn(&Tape, &[Value]) -> Result<Value>,
    reference: &impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let (out, weights, gradients) = run(inputs, |_| true, op);
    let mut exact: Vec<Vec<f64>> = inputs.iter().map(doubles).collect();
    close_within(tolerance(isa), &format!("{case:?}: output"), &doubles(&out), &reference(&exact));
    let weights = doubles(&weights);
    for (i, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(input).unwrap();
        assert_eq!(gradient.dims(), input.dims(), "{case:?}: shape of gradient {i}");
        let loss = |x: &[Vec<f64>]| dot(&reference(x), &weights);
        check_gradient(tolerance(isa), &format!("{case:?}: gradient {i}"), &doubles(gradient), &mut exact, i, loss);
        // The same bits again, with this input alone trainable.
        let (again, _, alone) = run(inputs, |j| j == i, op);
        assert_eq!(floats(&out), floats(&again), "{case:?}: output differs from run to run");
        assert_eq!(floats(gradient), floats(alone.get(input).unwrap()), "{case:?}: gradient {i} differs when alone");
        let constants = (0..inputs.len()).filter(|&j| j != i);
        constants.for_each(|j| assert!(alone.get(&inputs[j]).is_err(), "{case:?}: constant {j} got a gradient"));
    }
}

/// Checks single derivatives of `loss` with respect to input `i`, then the one along a random corner of the cube.
fn check_gradient(
    tolerance: f64,
    what: &str,
    gradient: &[f64],
    inputs: &mut [Vec<f64>],
    i: usize,
    loss: impl Fn(&[Vec<f64>]) -> f64,
) {
    let mut rng = Rng::stream(2, "check", i as u32, 0);
    let n = gradient.len();
    let mut derivative = |direction: &dyn Fn(usize) -> f64| {
        let saved = inputs[i].clone();
        let mut moved = |step: f64| {
            inputs[i].iter_mut().zip(&saved).enumerate().for_each(|(k, (x, s))| *x = s + step * direction(k));
            loss(inputs)
        };
        let found = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        inputs[i] = saved;
        found
    };
    let picks: Vec<usize> = if n <= SAMPLES { (0..n).collect() } else { (0..SAMPLES).map(|_| rng.below(n)).collect() };
    let expected: Vec<f64> = picks.iter().map(|&p| derivative(&|k| f64::from(k == p))).collect();
    let largest = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
    for (&p, expected) in picks.iter().zip(expected) {
        let error = (gradient[p] - expected).abs();
        assert!(error <= tolerance * largest.max(1e-3), "{what}: element {p} is {}, expected {expected}", gradient[p]);
    }
    let signs: Vec<f64> = (0..n).map(|_| f64::from(rng.uniform() < 0.5) * 2.0 - 1.0).collect();
    let (found, expected) = (dot(gradient, &signs), derivative(&|k| signs[k]));
    let bound = tolerance * gradient.iter().map(|g| g.abs()).sum::<f64>().max(1e-3);
    assert!((found - expected).abs() <= bound, "{what}: along a random direction {found}, expected {expected}");
}

/// Checks that two arrays agree, in parts of the largest expected value.
pub fn close(what: &str, found: &[f64], expected: &[f64]) {
    close_within(tolerance(Isa::Portable), what, found, expected);
}

fn close_within(tolerance: f64, what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let largest = expected.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * largest, "{what}: element {i} is {f}, expected {e}");
    }
}
