//! Resampling, seen through a convolution that changes nothing.

use distill::ops::reference::NormShape;
use distill::ops::{Activation, Input, Norm, Tape, Value, reference};

use crate::check::{check, normal, normals, seen};

const SIZES: [(usize, usize, usize, usize); 6] =
    [(1, 2, 3, 1), (3, 4, 6, 5), (2, 5, 4, 3), (1, 4, 7, 16), (5, 3, 3, 33), (7, 5, 11, 2)];

#[test]
fn upsampling_agrees() {
    for (b, h, w, c) in SIZES.into_iter().chain([(2, 1, 1, 3), (1, 1, 5, 1)]) {
        check(
            &("upsampled", b, h, w, c),
            &normals("upsample", &[&[b, h, w, c]]),
            |tape, v| seen(tape, &Input::of(&v[0]).upsampled(), c),
            |v| reference::upsample2x(&v[0], (b, h, w, c)),
        );
    }
}

fn pooled(tape: &Tape, v: &[Value], act: Activation) -> distill::error::Result<Value> {
    let c = v[0].dims()[3];
    let norm = Norm { gamma: v[1].clone(), beta: v[2].clone(), scale_shift: None, groups: c, act, eps: 1e-5 };
    seen(tape, &Input::of(&v[0]).normalized(norm).pooled(), c)
}

#[test]
fn pooling_agrees_behind_every_activation() {
    for (b, h, w, c) in SIZES {
        for act in [Activation::Identity, Activation::Relu, Activation::Silu] {
            let shape = NormShape { batch: b, pixels: h * w, channels: c, groups: c };
            check(
                &("pooled", b, h, w, c, act),
                &normals("pool", &[&[b, h, w, c], &[c], &[c]]),
                |tape, v| pooled(tape, v, act),
                |v| {
                    let x = reference::group_norm(&shape, &v[0], &v[1], &v[2], None, act, 1e-5);
                    reference::avg_pool2x(&x, (b, h, w, c))
                },
            );
        }
    }
}

#[test]
fn pooling_refuses_what_is_smaller_than_its_kernel() {
    for dims in [[1, 1, 4, 2], [1, 4, 1, 2]] {
        let values = [&dims[..], &[2], &[2]].map(|dims| Value::constant(normal("pool", 0, dims)));
        assert!(pooled(&Tape::inference(), &values, Activation::Relu).is_err());
    }
}
