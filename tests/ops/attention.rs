//! attention.

use distill::ops::cpu::attention::AttentionShape;
use distill::ops::{Tape, Value, attention, reference};

use crate::check::{check, normal, normals};

#[test]
fn attention_agrees() {
    for (batch, tokens, heads, head_dim) in
        [(1, 1, 1, 4), (2, 7, 1, 5), (3, 9, 2, 4), (5, 13, 4, 3), (1, 33, 3, 16), (7, 4, 5, 1), (1, 64, 1, 33)]
    {
        check(
            &("attention", batch, tokens, heads, head_dim),
            &normals("attention", &[&[batch, tokens, 3 * heads * head_dim]]),
            |tape, v| attention(tape, &v[0], heads),
            |v| reference::attention(&AttentionShape { batch, tokens, heads, head_dim }, &v[0]),
        );
    }
}

#[test]
fn attention_survives_large_scores() {
    let qkv = normal("attention", 1, &[1, 8, 12]).affine(100.0, 0.0).unwrap();
    let out = attention(&Tape::inference(), &Value::constant(qkv), 1).unwrap();
    assert!(crate::check::floats(out.tensor()).iter().all(|v| v.is_finite()));
}

#[test]
fn heads_that_do_not_divide_the_channels_are_refused() {
    let qkv = Value::constant(normal("attention", 0, &[1, 2, 12]));
    assert!(attention(&Tape::inference(), &qkv, 3).is_err());
    assert!(attention(&Tape::inference(), &qkv, 0).is_err());
}
