//! Elementwise kernels, and joins of rows.

use std::mem::MaybeUninit;
use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::{CHUNK, copy_to, overwritten};

/// e^x within 2 units in the last place, written so that the compiler turns a loop of it into vector code.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_by(x, |r| 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0))))))
}

/// e^x within a part of 10,000, for results that are rounded to bf16.
#[inline(always)]
pub fn exp_to_bf16(x: f32) -> f32 {
    exp_by(x, |r| 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r / 24.0))))
}

/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor `polynomial`; 2^n by the exponent bits. Inputs are clamped to
/// [-87, 88], where f32's normal numbers end.
#[inline(always)]
fn exp_by(x: f32, polynomial: impl Fn(f32) -> f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves a rounded integer in the low mantissa bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    polynomial(r) * f32::from_bits(exponent)
}

/// The logistic function 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<E: Element>(x: f32) -> f32 {
    1.0 / (1.0 + E::exp(-x))
}

/// The derivative of x sigmoid(x).
#[inline(always)]
pub fn silu_derivative<E: Element>(x: f32) -> f32 {
    let s = sigmoid::<E>(x);
    s * (1.0 + x * (1.0 - s))
}

/// target += addend.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn add_to<E: Element>(target: &mut [E], addend: &[E]) {
    for (t, a) in target.iter_mut().zip(addend) {
        *t = E::round(t.widen() + a.widen());
    }
}

/// Elements of one type from those of another.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn round_to<A: Element, B: Element>(values: &[A], out: &mut [MaybeUninit<B>]) {
    for (out, v) in out.iter_mut().zip(values) {
        out.write(B::round(v.widen()));
    }
}

/// x sigmoid(x) of each element.
pub fn silu(x: &[f32]) -> Vec<f32> {
    #[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
    fn kernel(x: &[f32], out: &mut [MaybeUninit<f32>]) {
        for (o, &x) in out.iter_mut().zip(x) {
            o.write(x * sigmoid::<f32>(x));
        }
    }
    let write = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(o, x)| kernel(x, o));
    };
    // SAFETY: `kernel` writes every element of its chunk.
    unsafe { overwritten(x.len(), write) }
}

/// Multiplies `gradient` by silu's derivative at `x`.
pub fn silu_backward(x: &[f32], gradient: &mut [f32]) {
    #[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
    fn kernel(x: &[f32], out: &mut [f32]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o *= silu_derivative::<f32>(x);
        }
    }
    gradient.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(g, x)| kernel(x, g));
}

/// Adds up equally long vectors, first to last.
pub fn sum_in_order(partials: Vec<Vec<f32>>) -> Vec<f32> {
    let mut partials = partials.into_iter();
    let mut total = partials.next().unwrap_or_default();
    partials.for_each(|partial| add_to(&mut total, &partial));
    total
}

/// Joins rows of `a` and `b`: (rows, ca) and (rows, cb) to (rows, ca + cb).
pub fn concat<E: Element>(a: &[E], b: &[E], ca: usize, cb: usize) -> Vec<E> {
    let rows = (CHUNK / (ca + cb)).max(1);
    let write = |out: &mut [MaybeUninit<E>]| {
        out.par_chunks_mut(rows * (ca + cb)).zip(a.par_chunks(rows * ca)).zip(b.par_chunks(rows * cb)).for_each(
            |((out, a), b)| {
                for ((out, a), b) in out.chunks_mut(ca + cb).zip(a.chunks(ca)).zip(b.chunks(cb)) {
                    copy_to(&mut out[..ca], a);
                    copy_to(&mut out[ca..], b);
                }
            },
        );
    };
    // SAFETY: the two parts make up every row.
    unsafe { overwritten(a.len() + b.len(), write) }
}

/// Undoes [`concat`].
pub fn split<E: Element>(values: &[E], ca: usize, cb: usize) -> (Vec<E>, Vec<E>) {
    rayon::join(|| columns(values, ca + cb, 0..ca), || columns(values, ca + cb, ca..ca + cb))
}

/// Columns `range` of a matrix with `width`.
fn columns<E: Element>(values: &[E], width: usize, range: Range<usize>) -> Vec<E> {
    let mut out = Vec::with_capacity(values.len() / width * range.len());
    values.chunks_exact(width).for_each(|row| out.extend_from_slice(&row[range.clone()]));
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_close_to_the_library_function() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            assert!((f64::from(super::exp(x)) / expected - 1.0).abs() < 3e-7, "exp({x})");
            assert!((f64::from(super::exp_to_bf16(x)) / expected - 1.0).abs() < 1e-4, "exp_to_bf16({x})");
        }
    }
}
