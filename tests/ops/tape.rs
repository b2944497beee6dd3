//! The tape: values used several times, values that need no gradient, and what is recorded at all.

use distill::ops::cpu::conv::ConvShape;
use distill::ops::{
    Activation, Convolution, Input, Norm, Tape, Value, add, conv2d, linear, reference, silu, squared_error,
};
use distill::rng::Rng;

use crate::check::{check, doubles, floats, normal, normals};

/// A 3 x 3 or 1 x 1 convolution that keeps the size, in f32.
fn conv(tape: &Tape, x: &Input, weight: &Value, bias: Option<&Value>, residual: Option<&Value>) -> Value {
    let padding = weight.dims()[1] / 2;
    conv2d(tape, x, weight, Convolution { stride: 1, padding, bias, residual, f32_output: true }).unwrap()
}

/// x feeds a convolution twice over, as its input and as its residual, then everything is added to x again.
#[test]
fn gradients_of_several_uses_add_up() {
    let s =
        ConvShape { batch: 3, height: 4, width: 5, in_channels: 6, out_channels: 6, kernel: 3, stride: 1, padding: 1 };
    check(
        &"residual block",
        &normals("uses", &[&[3, 4, 5, 6], &[6, 3, 3, 6], &[6]]),
        |tape, v| {
            let once = conv(tape, &Input::of(&v[0]), &v[1], Some(&v[2]), Some(&v[0]));
            let twice = conv(tape, &Input::of(&silu(tape, &once)?), &v[1], Some(&v[2]), Some(&once));
            add(tape, &add(tape, &twice, &once)?, &v[0])
        },
        |v| {
            let once = reference::conv2d(&s, &v[0], &v[1], Some(&v[2]), Some(&v[0]));
            let twice = reference::conv2d(&s, &reference::silu(&once), &v[1], Some(&v[2]), Some(&once));
            reference::add(&reference::add(&twice, &once), &v[0])
        },
    );
}

/// A gradient that `add` or a residual hands on as it is must not change when another use is added to it.
#[test]
fn adding_to_one_gradient_leaves_its_siblings_alone() {
    check(
        &"siblings",
        &normals("siblings", &[&[2, 5], &[2, 5], &[5, 5]]),
        |tape, v| {
            let sum = add(tape, &v[0], &v[1])?;
            let sum = add(tape, &linear(tape, &v[0], &v[2], None)?, &sum)?;
            let sum = add(tape, &sum, &v[0])?;
            add(tape, &sum, &sum)
        },
        |v| {
            let product = reference::linear(5, &v[0], &v[2], None, None);
            let sum: Vec<f64> = (0..10).map(|i| 2.0 * v[0][i] + v[1][i] + product[i]).collect();
            reference::add(&sum, &sum)
        },
    );
}

/// An op that hands one storage to two inputs breaks the tape's rule: an error, neither a hang nor a wrong sum.
#[test]
fn gradients_that_share_storage_are_refused() {
    let x = normal("shared", 0, &[4]);
    let tape = Tape::recording();
    let v = tape.param(&x);
    let sum = tape.record(x.clone(), &[&v, &v], |g| Ok(vec![Some(g.clone()), Some(g)]));
    assert!(tape.backward(&sum).is_err());
}

#[test]
fn every_param_call_on_one_tensor_is_the_same_leaf() {
    let x = normal("leaf", 0, &[4]);
    let tape = Tape::recording();
    let sum = add(&tape, &tape.param(&x), &tape.param(&x.clone())).unwrap();
    let loss = squared_error(&tape, &sum, &x.zeros_like().unwrap(), None).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    let expected: Vec<f32> = floats(&x).iter().map(|x| 2.0 * x).collect(); // d mean((2x)^2) / dx = 8x / 4
    assert_eq!(floats(gradients.get(&x).unwrap()), expected);
}

#[test]
fn constants_and_inference_record_nothing() {
    let x = normal("constant", 0, &[2, 3]);
    let recording = Tape::recording();
    assert!(!silu(&recording, &Value::constant(x.clone())).unwrap().needs_gradient());
    assert!(silu(&recording, &recording.param(&x)).unwrap().needs_gradient());
    let inference = Tape::inference();
    let out = silu(&inference, &inference.param(&x)).unwrap();
    assert!(!out.needs_gradient());
    assert!(inference.backward(&out).unwrap().get(&x).is_err());
}

#[test]
fn parameters_beside_the_loss_get_no_gradient() {
    let (x, unused) = (normal("beside", 0, &[2, 3]), normal("beside", 1, &[2, 3]));
    let tape = Tape::recording();
    let loss = squared_error(&tape, &tape.param(&x), &unused, None).unwrap();
    silu(&tape, &tape.param(&unused)).unwrap(); // recorded after the loss, so not part of it
    let gradients = tape.backward(&loss).unwrap();
    assert!(gradients.get(&x).is_ok());
    assert!(gradients.get(&unused).is_err());
}

/// Inputs keep their values through a backward pass that moves and adds gradients in place.
#[test]
fn backward_changes_no_input() {
    let inputs = normals("kept", &[&[3, 4, 4, 8], &[8], &[8], &[3, 16], &[8, 1, 1, 8]]);
    let before: Vec<Vec<f32>> = inputs.iter().map(floats).collect();
    let tape = Tape::recording();
    let v: Vec<Value> = inputs.iter().map(|t| tape.param(t)).collect();
    let (gamma, beta, scale_shift) = (v[1].clone(), v[2].clone(), Some(v[3].clone()));
    let norm = Norm { gamma, beta, scale_shift, groups: 4, act: Activation::Silu, eps: 1e-5 };
    let out = conv(&tape, &Input::of(&v[0]).normalized(norm), &v[4], None, Some(&v[0]));
    let loss = squared_error(&tape, &add(&tape, &out, &out).unwrap(), &inputs[0], None).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert!(inputs.iter().all(|t| doubles(gradients.get(t).unwrap()).iter().any(|&g| g != 0.0)));
    assert_eq!(before, inputs.iter().map(floats).collect::<Vec<_>>());
}

/// Two passes of the same network over the same inputs give the same bits, whatever the threads do.
#[test]
fn two_runs_give_the_same_bits() {
    let inputs = normals("bits", &[&[7, 16, 16, 8], &[8, 3, 3, 8], &[8], &[8], &[8]]);
    let mut rng = Rng::stream(3, "weights", 0, 0);
    let weights: Vec<f32> = (0..7).map(|_| rng.uniform()).collect();
    let run = || {
        let tape = Tape::recording();
        let v: Vec<Value> = inputs.iter().map(|t| tape.param(t)).collect();
        let hidden = conv(&tape, &Input::of(&v[0]), &v[1], Some(&v[2]), None);
        let (gamma, beta) = (v[3].clone(), v[4].clone());
        let norm = Norm { gamma, beta, scale_shift: None, groups: 2, act: Activation::Silu, eps: 1e-5 };
        let hidden = conv(&tape, &Input::of(&hidden).normalized(norm), &v[1], Some(&v[2]), None);
        let loss = squared_error(&tape, &hidden, &inputs[0], Some(&weights)).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        inputs.iter().map(|t| floats(gradients.get(t).unwrap())).collect::<Vec<_>>()
    };
    let first = run();
    (0..5).for_each(|_| assert_eq!(first, run()));
}
