//! The ops against PyTorch: outputs and all gradients of `fixtures/ops.safetensors`, which
//! `scripts/make_fixtures.py` wrote.

use std::path::Path;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{Device, Tensor};
use distill::error::Result;
use distill::ops::{
    Activation, Convolution, Input, Norm, Tape, Value, attention, conv2d, cross_entropy, linear, reshape,
};

use crate::check::{close, doubles, functional, seen};

/// The labels of the case `cross_entropy`, as the file's metadata has them.
const LABELS: [u16; 4] = [3, 0, 9, 3];

/// Runs `op` on the tensors `case.input` and compares its output and the gradient of each input.
fn check(case: &str, inputs: &[&str], op: impl Fn(&Tape, &[Value]) -> Result<Value>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ops.safetensors");
    // SAFETY: nothing writes to the file while the tests run.
    let file = unsafe { MmapedSafetensors::new(path).unwrap() };
    let load = |name: &str| file.load(&format!("{case}.{name}"), &Device::Cpu).unwrap();
    let tensors: Vec<Tensor> = inputs.iter().map(|name| load(name)).collect();
    let tape = Tape::recording();
    let values: Vec<Value> = tensors.iter().map(|t| tape.param(t)).collect();
    let out = op(&tape, &values).unwrap();
    assert_eq!(out.dims(), load("out").dims(), "{case}: shape of the output");
    close(&format!("{case}: output"), &doubles(out.tensor()), &doubles(&load("out")));
    let loss = functional(&tape, &out, &load("cotangent"));
    let gradients = tape.backward(&loss).unwrap();
    for (name, tensor) in inputs.iter().zip(&tensors) {
        let expected = load(&format!("grad.{name}"));
        close(&format!("{case}: gradient of {name}"), &doubles(gradients.get(tensor).unwrap()), &doubles(&expected));
    }
}

#[test]
fn conv2d_and_linear_agree_with_pytorch() {
    for (case, stride, padding) in
        [("conv2d_k3", 1, 1), ("conv2d_k3_stride2", 2, 1), ("conv2d_k1", 1, 0), ("conv2d_k4_stride2", 2, 1)]
    {
        check(case, &["x", "weight", "bias"], |t, v| {
            let options = Convolution { stride, padding, bias: Some(&v[2]), ..Default::default() };
            conv2d(t, &Input::of(&v[0]), &v[1], options)
        });
    }
    check("linear", &["x", "weight", "bias"], |t, v| {
        let rows = reshape(t, &v[0], &[21, 6])?;
        reshape(t, &linear(t, &rows, &v[1], Some(&v[2]))?, &[3, 7, 5])
    });
}

#[test]
fn norms_agree_with_pytorch() {
    let norm = |groups, act| {
        move |t: &Tape, v: &[Value]| {
            let (gamma, beta, scale_shift) = (v[1].clone(), v[2].clone(), v.get(3).cloned());
            let norm = Norm { gamma, beta, scale_shift, groups, act, eps: 1e-5 };
            seen(t, &Input::of(&v[0]).normalized(norm), v[0].dims()[3])
        }
    };
    let inputs = ["x", "gamma", "beta", "scale_shift"];
    check("group_norm", &inputs[..3], norm(2, Activation::Identity));
    check("group_norm_relu", &inputs[..3], norm(4, Activation::Relu));
    check("group_norm_scale_shift_silu", &inputs, norm(3, Activation::Silu));
}

#[test]
fn attention_agrees_with_pytorch() {
    check("attention_1_head", &["qkv"], |t, v| attention(t, &v[0], 1));
    check("attention_2_heads", &["qkv"], |t, v| attention(t, &v[0], 2));
}

#[test]
fn upsampling_and_cross_entropy_agree_with_pytorch() {
    check("upsample2x", &["x"], |t, v| seen(t, &Input::of(&v[0]).upsampled(), v[0].dims()[3]));
    check("cross_entropy", &["logits"], |t, v| cross_entropy(t, &v[0], &LABELS));
}
