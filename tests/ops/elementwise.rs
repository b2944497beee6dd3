//! silu, add, concat, reshape, embedding, gaussian_sample and weighted_sum.

use candle_core::{Device, Tensor};
use distill::ops::{
    Tape, Value, add, concat, embedding, gaussian_sample, reference, reshape, silu, squared_error, weighted_sum,
};

use crate::check::{check, doubles, normal, normals};

/// More elements than one task takes.
const LARGE: usize = 70_001;

#[test]
fn silu_agrees() {
    for dims in [&[1][..], &[3, 5, 7], &[LARGE]] {
        check(&("silu", dims), &normals("silu", &[dims]), |tape, v| silu(tape, &v[0]), |v| reference::silu(&v[0]));
    }
    let steep = normal("silu", 1, &[200]).affine(30.0, 0.0).unwrap();
    check(&"steep silu", &[steep], |tape, v| silu(tape, &v[0]), |v| reference::silu(&v[0]));
}

#[test]
fn add_agrees() {
    for dims in [&[1][..], &[3, 5, 7], &[LARGE]] {
        let inputs = normals("add", &[dims, dims]);
        check(&("add", dims), &inputs, |tape, v| add(tape, &v[0], &v[1]), |v| reference::add(&v[0], &v[1]));
        check(&"x + x", &inputs[..1], |tape, v| add(tape, &v[0], &v[0]), |v| reference::add(&v[0], &v[0]));
    }
}

#[test]
fn concat_agrees() {
    for (leading, ca, cb) in [(&[1][..], 1, 1), (&[3, 5, 2], 3, 16), (&[2, 7], 5, 1), (&[20_001], 3, 2)] {
        let with = |c: usize| [leading, &[c]].concat();
        check(
            &("concat", leading, ca, cb),
            &normals("concat", &[&with(ca), &with(cb)]),
            |tape, v| concat(tape, &v[0], &v[1]),
            |v| reference::concat(&v[0], &v[1], ca, cb),
        );
    }
    let x = normals("concat", &[&[4, 3]]);
    check(&"x | x", &x, |tape, v| concat(tape, &v[0], &v[0]), |v| reference::concat(&v[0], &v[0], 3, 3));
}

#[test]
fn reshape_agrees() {
    let x = normals("reshape", &[&[2, 3, 4]]);
    check(&"reshape", &x, |tape, v| reshape(tape, &v[0], &[6, 4]), |v| v[0].clone());
    // The reshaped value shares its storage with x, which gets a gradient on its own as well.
    check(
        &"x + reshaped x",
        &x,
        |tape, v| {
            let flat = reshape(tape, &v[0], &[24])?;
            add(tape, &silu(tape, &flat)?, &reshape(tape, &add(tape, &v[0], &v[0])?, &[24])?)
        },
        |v| reference::add(&reference::silu(&v[0]), &reference::add(&v[0], &v[0])),
    );
}

#[test]
fn embedding_agrees_with_repeated_indices() {
    for indices in [&[0][..], &[2, 0, 2, 2, 4], &[1, 1, 1]] {
        check(
            &("embedding", indices),
            &normals("table", &[&[5, 7]]),
            |tape, v| embedding(tape, &v[0], indices),
            |v| reference::embedding(&v[0], 7, indices),
        );
    }
}

#[test]
fn gaussian_sample_agrees() {
    for (leading, c) in [(&[1][..], 1), (&[3, 2, 5], 4)] {
        let noise = normal("noise", 0, &[leading, &[c]].concat());
        check(
            &("gaussian_sample", leading, c),
            &normals("moments", &[&[leading, &[2 * c]].concat()]),
            |tape, v| gaussian_sample(tape, &v[0], &noise),
            |v| reference::gaussian_sample(&v[0], &doubles(&noise), c),
        );
    }
}

/// Outside of their range, log-variances are clamped and get no gradient.
#[test]
fn gaussian_sample_clamps_log_variances() {
    let moments = Tensor::new(&[[1f32, 2.0, -40.0, 25.0], [3.0, 4.0, 10.0, -20.0]], &Device::Cpu).unwrap();
    let noise = normal("noise", 1, &[2, 2]);
    check(
        &"clamped gaussian_sample",
        &[moments],
        |tape, v| gaussian_sample(tape, &v[0], &noise),
        |v| reference::gaussian_sample(&v[0], &doubles(&noise), 2),
    );
}

/// The terms are losses of two inputs; one loss appears twice.
#[test]
fn weighted_sum_agrees() {
    let target = normal("target", 0, &[3, 4]);
    let error = |x: &[f64]| reference::squared_error(x, &doubles(&target), &[1.0; 3]);
    check(
        &"weighted_sum",
        &normals("terms", &[&[3, 4], &[3, 4]]),
        |tape, v| {
            let a = squared_error(tape, &v[0], &target, None)?;
            let b = squared_error(tape, &v[1], &target, None)?;
            weighted_sum(tape, &[(&a, 0.5), (&b, -3.0), (&a, 2.0)])
        },
        |v| vec![2.5 * error(&v[0]) - 3.0 * error(&v[1])],
    );
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normal("refused", 0, dims));
    assert!(add(&tape, &value(&[2, 3]), &value(&[3, 2])).is_err());
    assert!(concat(&tape, &value(&[2, 3]), &value(&[3, 3])).is_err());
    assert!(concat(&tape, &value(&[]), &value(&[3])).is_err());
    assert!(reshape(&tape, &value(&[2, 3]), &[5]).is_err());
    assert!(embedding(&tape, &value(&[2, 3]), &[2]).is_err());
    assert!(gaussian_sample(&tape, &value(&[2, 6]), &normal("noise", 0, &[2, 2])).is_err());
    assert!(gaussian_sample(&tape, &value(&[2, 6]), &normal("noise", 0, &[])).is_err());
    assert!(weighted_sum(&tape, &[(&value(&[2]), 1.0)]).is_err());
}
