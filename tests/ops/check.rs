//! One checker for all ops (`ops::check`), with every set of kernels: forward against the plain version, every gradient
//! against its central differences, the same bits again.

use std::fmt::Debug;

use candle_core::{Device, Tensor};
use distill::error::Result;
use distill::ops::check::{self, Finding, Op, Plain};
use distill::ops::cpu::isa::{self, Isa, Precision};
use distill::ops::{Input, Tape, Value};

/// The largest error of an op, as a part of the largest value beside it.
fn tolerance(isa: Isa) -> f64 {
    if isa.precision() == Precision::F32 { 1e-5 } else { 3e-2 }
}

/// A standard normal tensor; `name` and `index` make it differ from the others of its test.
pub fn normal(name: &str, index: usize, dims: &[usize]) -> Tensor {
    check::normal(name, index, dims).unwrap()
}

/// Standard normal tensors of the given shapes.
pub fn normals(name: &str, shapes: &[&[usize]]) -> Vec<Tensor> {
    shapes.iter().enumerate().map(|(i, dims)| normal(name, i, dims)).collect()
}

pub fn floats(tensor: &Tensor) -> Vec<f32> {
    check::floats(tensor).unwrap()
}

pub fn doubles(tensor: &Tensor) -> Vec<f64> {
    check::doubles(tensor).unwrap()
}

/// The dot product with fixed weights: a loss under which an output's gradient is `weights`.
pub fn functional(tape: &Tape, x: &Value, weights: &Tensor) -> Value {
    check::functional(tape, x, weights).unwrap()
}

/// What a convolution reads, as it reads it.
pub fn seen(tape: &Tape, input: &Input, channels: usize) -> Result<Value> {
    check::seen(tape, input, channels)
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
    let inputs: Vec<Tensor> = inputs.iter().map(|t| check::exact_in_bf16(t).unwrap()).collect();
    let (op, reference): (&Op, &Plain) = (&op, &reference);
    each_isa(|isa| {
        let accept = |findings: Result<Vec<Finding>>, allowed| {
            for finding in findings.unwrap_or_else(|e| panic!("{isa:?}, {case:?}: {e}")) {
                assert!(finding.error <= allowed, "{isa:?}, {case:?}: {finding:?}");
            }
        };
        accept(check::against_plain(&Device::Cpu, &inputs, op, reference), tolerance(isa));
        accept(check::repeated(&Device::Cpu, &inputs, op), 0.0);
    });
}

/// Checks that two arrays agree, in parts of the largest expected value.
pub fn close(what: &str, found: &[f64], expected: &[f64]) {
    let finding = Finding::between(what, found, expected, check::largest(expected, 1e-6)).unwrap();
    assert!(finding.error <= tolerance(Isa::Portable), "{finding:?}");
}
