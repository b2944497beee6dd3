//! squared_error, gaussian_kl, cross_entropy and distillation_loss.

use candle_core::{Device, Tensor};
use distill::ops::{Tape, Value, cross_entropy, distillation_loss, gaussian_kl, reference, squared_error};

use crate::check::{check, doubles, normal, normals};

#[test]
fn squared_error_agrees() {
    for (dims, weights) in [
        (&[1, 1][..], None),
        (&[3, 5, 4, 2], None),
        (&[3, 5, 4, 2], Some(&[0.5, 2.0, 0.0][..])),
        (&[1, 7], Some(&[3.0])),
        (&[5], Some(&[1.0, 2.0, 3.0, 4.0, 5.0])),
    ] {
        let target = normal("target", 0, dims);
        let exact: Vec<f64> = weights.map_or(vec![1.0; dims[0]], |w: &[f32]| w.iter().map(|&v| v.into()).collect());
        check(
            &("squared_error", dims, weights),
            &normals("prediction", &[dims]),
            |tape, v| squared_error(tape, &v[0], &target, weights),
            |v| vec![reference::squared_error(&v[0], &doubles(&target), &exact)],
        );
    }
}

#[test]
fn gaussian_kl_agrees() {
    for (dims, c) in [(&[1, 2][..], 1), (&[3, 2, 5, 8], 4)] {
        check(
            &("gaussian_kl", dims),
            &normals("moments", &[dims]),
            |tape, v| gaussian_kl(tape, &v[0]),
            |v| vec![reference::gaussian_kl(&v[0], c)],
        );
    }
    let clamped = Tensor::new(&[[1f32, 2.0, -40.0, 1.5], [3.0, 4.0, -35.0, -20.0]], &Device::Cpu).unwrap();
    check(&"clamped", &[clamped], |tape, v| gaussian_kl(tape, &v[0]), |v| vec![reference::gaussian_kl(&v[0], 2)]);
}

#[test]
fn cross_entropy_agrees() {
    for (labels, classes) in [(&[0][..], 1), (&[2], 5), (&[0, 9, 3, 3, 7], 10)] {
        check(
            &("cross_entropy", labels, classes),
            &normals("logits", &[&[labels.len(), classes]]),
            |tape, v| cross_entropy(tape, &v[0], labels),
            |v| vec![reference::cross_entropy(&v[0], classes, labels)],
        );
    }
}

#[test]
fn cross_entropy_survives_large_logits() {
    let logits = Tensor::new(&[[1000f32, 0.0], [1000.0, 0.0]], &Device::Cpu).unwrap();
    let loss = cross_entropy(&Tape::inference(), &Value::constant(logits), &[0, 1]).unwrap();
    assert_eq!(loss.scalar().unwrap(), 500.0);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normal("refused", 0, dims));
    assert!(squared_error(&tape, &value(&[2, 3]), &normal("target", 0, &[3, 2]), None).is_err());
    assert!(squared_error(&tape, &value(&[2, 3]), &normal("target", 0, &[2, 3]), Some(&[1.0])).is_err());
    assert!(squared_error(&tape, &value(&[]), &normal("target", 0, &[]), None).is_err());
    assert!(gaussian_kl(&tape, &value(&[2, 3])).is_err());
    assert!(cross_entropy(&tape, &value(&[2, 3]), &[0]).is_err());
    assert!(cross_entropy(&tape, &value(&[2, 3]), &[0, 3]).is_err());
}

#[test]
fn distillation_loss_agrees() {
    let rows: [&[f32]; 3] = [&[1.0], &[0.7, 0.2, 0.1, 0.0], &[0.25, 0.25, 0.25, 0.25, 0.0, 1.0, 0.0, 0.0]];
    for (probabilities, classes) in rows.into_iter().zip([1, 4, 4]) {
        for temperature in [0.5, 1.0, 4.0, 20.0] {
            let exact: Vec<f64> = probabilities.iter().map(|&p| p.into()).collect();
            check(
                &("distillation_loss", probabilities, temperature),
                &normals("logits", &[&[probabilities.len() / classes, classes]]),
                |tape, v| distillation_loss(tape, &v[0], probabilities, temperature),
                |v| vec![reference::distillation_loss(&v[0], classes, &exact, temperature.into())],
            );
        }
    }
}

#[test]
fn one_hot_soft_labels_at_temperature_1_are_hard_ones() {
    let logits = Value::constant(normal("logits", 0, &[3, 4]));
    let hot = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    let soft = distillation_loss(&Tape::inference(), &logits, &hot, 1.0).unwrap().scalar().unwrap();
    let hard = cross_entropy(&Tape::inference(), &logits, &[1, 0, 3]).unwrap().scalar().unwrap();
    assert!((soft - hard).abs() < 1e-6, "{soft} and {hard}");
    assert!(distillation_loss(&Tape::inference(), &logits, &hot[..8], 1.0).is_err());
}
