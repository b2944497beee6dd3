//! Activations and poolings that are ops of their own.

use candle_core::{Device, Tensor};
use distill::ops::reference::{self, NormShape, activation};
use distill::ops::{Activation, Input, Norm, Tape, Value, activate, flatten, max_pool, mean_pixels};

use crate::check::{check, doubles, functional, normal, normals};

const ALL: [Activation; 4] = [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Gelu];
const SIZES: [(usize, usize, usize, usize); 5] =
    [(1, 2, 3, 1), (3, 4, 6, 5), (2, 5, 4, 3), (1, 4, 7, 16), (5, 3, 3, 33)];

#[test]
fn an_input_written_out_agrees_with_a_residual_and_without() {
    for (b, h, w, c) in SIZES {
        for act in ALL {
            let dims = [b, h, w, c];
            check(
                &("activate", dims, act),
                &normals("activate", &[&dims]),
                |tape, v| activate(tape, &Input::of(&v[0]), None, act),
                |v| v[0].iter().map(|&u| activation(act, u)).collect(),
            );
            // Small, so that no sum of two rounded values lies on ReLU's kink.
            let residual = normal("residual", 0, &dims).affine(0.05, 0.0).unwrap();
            check(
                &("activate with residual", dims, act),
                &[normal("activate", 0, &dims), residual],
                |tape, v| activate(tape, &Input::of(&v[0]), Some(&v[1]), act),
                |v| v[0].iter().zip(&v[1]).map(|(x, r)| activation(act, x + r)).collect(),
            );
        }
    }
}

#[test]
fn norm_pooling_and_joins_come_before_the_activation() {
    let norm = |v: &[Value], groups, act| Norm {
        gamma: v[1].clone(),
        beta: v[2].clone(),
        scale_shift: None,
        groups,
        act,
        eps: 1e-5,
    };
    for (b, h, w, c) in SIZES {
        let shape = NormShape { batch: b, pixels: h * w, channels: c, groups: c };
        check(
            &("normed and pooled", b, h, w, c),
            &normals("activate", &[&[b, h, w, c], &[c], &[c]]),
            |tape, v| {
                let input = Input::of(&v[0]).normalized(norm(v, c, Activation::Silu)).pooled();
                activate(tape, &input, None, Activation::Gelu)
            },
            |v| {
                let x = reference::group_norm(&shape, &v[0], &v[1], &v[2], None, Activation::Silu, 1e-5);
                reference::avg_pool2x(&x, (b, h, w, c)).into_iter().map(|u| activation(Activation::Gelu, u)).collect()
            },
        );
        check(
            &("joined", b, h, w, c),
            &normals("activate", &[&[b, h, w, c], &[b, h, w, 2]]),
            |tape, v| activate(tape, &Input::of(&v[0]).join(&v[1]), None, Activation::Silu),
            |v| reference::concat(&v[0], &v[1], c, 2).into_iter().map(|u| activation(Activation::Silu, u)).collect(),
        );
    }
}

#[test]
fn poolings_agree() {
    for (b, h, w, c) in SIZES {
        let inputs = normals("pool", &[&[b, h, w, c]]);
        let pooled = |v: &[Vec<f64>]| reference::max_pool2x(&v[0], (b, h, w, c));
        check(&("max", b, h, w, c), &inputs, |tape, v| max_pool(tape, &v[0]), pooled);
        let mean = |v: &[Vec<f64>]| reference::mean_pixels(&v[0], h * w, c);
        check(&("mean", b, h, w, c), &inputs, |tape, v| mean_pixels(tape, &v[0]), mean);
        check(&("flatten", b, h, w, c), &inputs, |tape, v| flatten(tape, &v[0]), |v| v[0].clone());
        // In the networks' own type as well.
        let shape = |tape: &Tape, v: &[Value]| activate(tape, &Input::of(&v[0]), None, Activation::Identity);
        check(&("max of activations", b, h, w, c), &inputs, |t, v| max_pool(t, &shape(t, v)?), pooled);
        check(&("mean of activations", b, h, w, c), &inputs, |t, v| mean_pixels(t, &shape(t, v)?), mean);
        check(&("flat activations", b, h, w, c), &inputs, |t, v| flatten(t, &shape(t, v)?), |v| v[0].clone());
    }
}

/// PyTorch gives the whole gradient to the first of equal maxima in reading order.
#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    let x =
        Tensor::new(&[1f32, 1.0, 0.0, 2.0, 1.0, 1.0, 2.0, 2.0], &Device::Cpu).unwrap().reshape((1, 2, 4, 1)).unwrap();
    let tape = Tape::recording();
    let out = max_pool(&tape, &tape.param(&x)).unwrap();
    assert_eq!(doubles(out.tensor()), [1.0, 2.0]);
    let weights = Tensor::new(&[3f32, 5.0], &Device::Cpu).unwrap().reshape((1, 1, 2, 1)).unwrap();
    let loss = functional(&tape, &out, &weights);
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(doubles(gradients.get(&x).unwrap()), [3.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normal("refused", 0, dims));
    assert!(max_pool(&tape, &value(&[1, 1, 4, 2])).is_err());
    assert!(max_pool(&tape, &value(&[4, 2])).is_err());
    assert!(mean_pixels(&tape, &value(&[1, 0, 4, 2])).is_err());
    assert!(flatten(&tape, &value(&[0, 3])).is_err());
    let x = Input::of(&value(&[2, 3, 3, 4]));
    assert!(activate(&tape, &x, Some(&value(&[2, 3, 3, 5])), Activation::Relu).is_err());
    assert!(activate(&tape, &x.pooled(), None, Activation::Relu).is_err());
}
