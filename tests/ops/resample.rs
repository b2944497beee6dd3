//! upsample2x and avg_pool2x.

use distill::ops::{Tape, Value, avg_pool2x, reference, upsample2x};

use crate::check::{check, normal, normals};

const SIZES: [(usize, usize, usize, usize); 6] =
    [(1, 2, 2, 1), (3, 4, 6, 5), (2, 5, 4, 3), (1, 4, 7, 16), (5, 3, 3, 33), (7, 9, 11, 2)];

#[test]
fn upsample2x_agrees() {
    for (b, h, w, c) in SIZES.into_iter().chain([(2, 1, 1, 3), (1, 1, 5, 1)]) {
        check(
            &("upsample2x", b, h, w, c),
            &normals("upsample", &[&[b, h, w, c]]),
            |tape, v| upsample2x(tape, &v[0]),
            |v| reference::upsample2x(&v[0], (b, h, w, c)),
        );
    }
}

#[test]
fn avg_pool2x_agrees() {
    for (b, h, w, c) in SIZES {
        check(
            &("avg_pool2x", b, h, w, c),
            &normals("pool", &[&[b, h, w, c]]),
            |tape, v| avg_pool2x(tape, &v[0]),
            |v| reference::avg_pool2x(&v[0], (b, h, w, c)),
        );
    }
}

#[test]
fn avg_pool2x_refuses_what_is_smaller_than_its_kernel() {
    for dims in [[1, 1, 4, 2], [1, 4, 1, 2]] {
        assert!(avg_pool2x(&Tape::inference(), &Value::constant(normal("pool", 0, &dims))).is_err());
    }
}
