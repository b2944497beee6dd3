//! Norms, seen through a convolution that changes nothing.

use distill::error::Result;
use distill::ops::reference::NormShape;
use distill::ops::{Activation, Input, Norm, Tape, Value, batch_norm, reference};

use crate::check::{check, normal, normals, seen};

const EPS: f32 = 1e-5;

/// `x`, `gamma`, `beta` and perhaps `scale_shift`.
fn normalized(tape: &Tape, v: &[Value], groups: usize, act: Activation) -> Result<Value> {
    let (gamma, beta, scale_shift) = (v[1].clone(), v[2].clone(), v.get(3).cloned());
    let norm = Norm { gamma, beta, scale_shift, groups, act, eps: EPS };
    seen(tape, &Input::of(&v[0]).normalized(norm), v[0].dims()[3])
}

fn check_norm(dims: &[usize], groups: usize, act: Activation, with_scale_shift: bool) {
    let (batch, channels) = (dims[0], dims[dims.len() - 1]);
    let mut inputs = normals("norm", &[dims, &[channels], &[channels]]);
    if with_scale_shift {
        inputs.push(normal("norm", 3, &[batch, 2 * channels]));
    }
    let shape = NormShape { batch, channels, groups, pixels: dims[1..dims.len() - 1].iter().product() };
    check(
        &(dims, groups, act, with_scale_shift),
        &inputs,
        |tape, v| normalized(tape, v, groups, act),
        |v| reference::group_norm(&shape, &v[0], &v[1], &v[2], v.get(3).map(|s| &s[..]), act, f64::from(EPS)),
    );
}

#[test]
fn group_norm_agrees_for_every_grouping_activation_and_scale_shift() {
    for act in [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Gelu] {
        for with_scale_shift in [false, true] {
            for groups in [0, 1, 2, 4, 12] {
                check_norm(&[3, 5, 3, 12], groups, act, with_scale_shift);
            }
        }
    }
}

#[test]
fn group_norm_agrees_for_other_sizes() {
    check_norm(&[1, 7, 7, 2], 2, Activation::Silu, true);
    check_norm(&[5, 9, 1, 33], 3, Activation::Silu, true);
    check_norm(&[7, 1, 1, 16], 4, Activation::Identity, false); // groups of channels alone
    check_norm(&[2, 16, 16, 5], 5, Activation::Relu, false);
}

#[test]
fn batch_norm_is_the_norm_of_one_image_that_holds_all_of_them() {
    for dims in [[3, 5, 3, 12], [1, 7, 7, 2], [5, 9, 1, 33], [2, 40, 40, 24]] {
        let channels = dims[3];
        let pixels = dims[..3].iter().product();
        let shape = NormShape { batch: 1, channels, groups: channels, pixels };
        let op = |tape: &Tape, v: &[Value]| {
            let found = batch_norm(tape, &v[0], &v[1], &v[2], EPS)?;
            let (gamma, beta, act) = (found.factor, found.offset, Activation::Silu);
            let norm = Norm { gamma, beta, scale_shift: None, groups: 0, act, eps: 0.0 };
            seen(tape, &Input::of(&v[0]).normalized(norm), channels)
        };
        let plain =
            |v: &[Vec<f64>]| reference::group_norm(&shape, &v[0], &v[1], &v[2], None, Activation::Silu, f64::from(EPS));
        check(&("batch_norm", dims), &normals("batch norm", &[&dims, &[channels], &[channels]]), op, plain);
    }
}

/// A constant added to an image must not reach its normalized output: two passes keep the digits.
#[test]
fn group_norm_survives_a_large_mean() {
    let tape = Tape::inference();
    let x = normal("norm", 9, &[1, 8, 8, 4]);
    let shifted = x.affine(1.0, 64.0).unwrap();
    let (gamma, beta) = (Value::constant(normal("norm", 1, &[4])), Value::constant(normal("norm", 2, &[4])));
    let norm = |x: &candle_core::Tensor| {
        let x = Value::constant(x.clone());
        normalized(&tape, &[x, gamma.clone(), beta.clone()], 2, Activation::Identity).unwrap()
    };
    let difference = (norm(&x).tensor() - norm(&shifted).tensor()).unwrap().abs().unwrap();
    assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-4);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normal("refused", 0, dims));
    let x = value(&[2, 3, 3, 6]);
    let norm = |gamma: &[usize], scale_shift: Option<&[usize]>, groups| {
        let mut v = vec![x.clone(), value(gamma), value(&[6])];
        v.extend(scale_shift.map(value));
        normalized(&tape, &v, groups, Activation::Relu)
    };
    assert!(norm(&[6], None, 3).is_ok());
    assert!(norm(&[6], None, 4).is_err());
    assert!(norm(&[5], None, 3).is_err());
    assert!(norm(&[6], Some(&[2, 6]), 3).is_err());
}
