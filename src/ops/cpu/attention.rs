//! Multi-head self-attention over joined queries, keys and values, one image and head at a time; the backward pass
//! computes the weights again instead of keeping them.

use multiversion::multiversion;
use rayon::prelude::*;

use super::elementwise::exp;
use super::gemm::{Matrix, gemm};

/// The sizes of one attention: `qkv` is (batch, tokens, 3 x heads x head_dim), ordered q, k, v, each head by head.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl AttentionShape {
    fn channels(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// softmax(q k^T / sqrt(head_dim)) of one head: (tokens, tokens).
    fn weights(&self, qkv: &[f32], head: usize, out: &mut [f32]) {
        let (n, c, d) = (self.tokens, self.channels(), self.head_dim);
        let q = Matrix::rows(&qkv[head * d..], 3 * c);
        let k = Matrix::transposed(&qkv[c + head * d..], 3 * c);
        gemm(out, n, (n, n, d), q, k, self.scale(), 0.0);
        softmax_rows(out, n);
    }
}

/// softmax(q k^T / sqrt(head_dim)) v: (batch, tokens, heads x head_dim).
pub fn forward(shape: &AttentionShape, qkv: &[f32]) -> Vec<f32> {
    let (n, c, d) = (shape.tokens, shape.channels(), shape.head_dim);
    let mut out = vec![0.0; shape.batch * n * c];
    out.par_chunks_mut(n * c).zip(qkv.par_chunks(3 * n * c)).for_each_init(
        || vec![0.0; n * n],
        |weights, (out, qkv)| {
            for head in 0..shape.heads {
                shape.weights(qkv, head, weights);
                let v = Matrix::rows(&qkv[2 * c + head * d..], 3 * c);
                gemm(&mut out[head * d..], c, (n, d, n), Matrix::rows(weights, n), v, 1.0, 0.0);
            }
        },
    );
    out
}

/// The gradient of `qkv` from that of the output.
pub fn backward(shape: &AttentionShape, qkv: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (n, c) = (shape.tokens, shape.channels());
    let mut out = vec![0.0; qkv.len()];
    out.par_chunks_mut(3 * n * c).zip(qkv.par_chunks(3 * n * c)).zip(gradient.par_chunks(n * c)).for_each_init(
        || (vec![0.0; n * n], vec![0.0; n * n]),
        |(weights, scores), ((out, qkv), gradient)| {
            for head in 0..shape.heads {
                head_backward(shape, qkv, gradient, head, weights, scores, out);
            }
        },
    );
    out
}

/// dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dP P)); dQ = dS K / sqrt(d); dK = dS^T Q / sqrt(d).
fn head_backward(
    shape: &AttentionShape,
    qkv: &[f32],
    gradient: &[f32],
    head: usize,
    weights: &mut [f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (n, c, d) = (shape.tokens, shape.channels(), shape.head_dim);
    let (q, k, v) = (head * d, c + head * d, 2 * c + head * d);
    shape.weights(qkv, head, weights);
    let g = Matrix::rows(&gradient[q..], c);
    gemm(&mut out[v..], 3 * c, (n, d, n), Matrix::transposed(weights, n), g, 1.0, 0.0);
    gemm(scores, n, (n, n, d), g, Matrix::transposed(&qkv[v..], 3 * c), 1.0, 0.0);
    softmax_backward_rows(weights, scores, n);
    let scale = shape.scale();
    gemm(&mut out[q..], 3 * c, (n, d, n), Matrix::rows(scores, n), Matrix::rows(&qkv[k..], 3 * c), scale, 0.0);
    gemm(&mut out[k..], 3 * c, (n, d, n), Matrix::transposed(scores, n), Matrix::rows(&qkv[q..], 3 * c), scale, 0.0);
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn softmax_rows(scores: &mut [f32], width: usize) {
    for row in scores.chunks_exact_mut(width) {
        let max = row.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
        for v in row.iter_mut() {
            *v = exp(*v - max);
        }
        let factor = 1.0 / row.iter().sum::<f32>();
        for v in row.iter_mut() {
            *v *= factor;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn softmax_backward_rows(weights: &[f32], gradient: &mut [f32], width: usize) {
    for (g, p) in gradient.chunks_exact_mut(width).zip(weights.chunks_exact(width)) {
        let dot: f32 = g.iter().zip(p).map(|(g, p)| g * p).sum();
        for (g, p) in g.iter_mut().zip(p) {
            *g = p * (*g - dot);
        }
    }
}
