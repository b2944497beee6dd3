//! group_norm.

use distill::ops::cpu::norm::NormShape;
use distill::ops::{Activation, Tape, Value, group_norm, reference};

use crate::check::{check, normal, normals};

const EPS: f32 = 1e-5;

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
        |tape, v| group_norm(tape, &v[0], &v[1], &v[2], v.get(3), groups, act, EPS),
        |v| reference::group_norm(&shape, &v[0], &v[1], &v[2], v.get(3).map(|s| &s[..]), act, f64::from(EPS)),
    );
}

#[test]
fn group_norm_agrees_for_every_grouping_activation_and_scale_shift() {
    for act in [Activation::Identity, Activation::Relu, Activation::Silu] {
        for with_scale_shift in [false, true] {
            for groups in [1, 2, 4, 12] {
                check_norm(&[3, 5, 3, 12], groups, act, with_scale_shift);
            }
        }
    }
}

#[test]
fn group_norm_agrees_for_other_ranks_and_sizes() {
    check_norm(&[1, 7, 7, 1], 1, Activation::Silu, true);
    check_norm(&[5, 9, 33], 3, Activation::Silu, true);
    check_norm(&[7, 16], 4, Activation::Identity, false); // no pixels: groups of channels alone
    check_norm(&[2, 16, 16, 5], 5, Activation::Relu, false);
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
        group_norm(&tape, &x, &gamma, &beta, None, 2, Activation::Identity, EPS).unwrap()
    };
    let difference = (norm(&x).tensor() - norm(&shifted).tensor()).unwrap().abs().unwrap();
    assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-4);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normal("refused", 0, dims));
    let x = value(&[2, 3, 3, 6]);
    let norm = |gamma: &[usize], scale_shift: Option<&Value>, groups| {
        group_norm(&tape, &x, &value(gamma), &value(&[6]), scale_shift, groups, Activation::Relu, EPS)
    };
    assert!(norm(&[6], None, 3).is_ok());
    assert!(norm(&[6], None, 4).is_err());
    assert!(norm(&[6], None, 0).is_err());
    assert!(norm(&[5], None, 3).is_err());
    assert!(norm(&[6], Some(&value(&[2, 6])), 3).is_err());
    let scalar = value(&[]);
    assert!(group_norm(&tape, &scalar, &scalar, &scalar, None, 1, Activation::Relu, EPS).is_err());
}
