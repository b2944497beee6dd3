//! Multi-head self-attention over joined queries, keys and values, one image and head at a time; the backward pass
//! computes the weights again instead of keeping them.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::{Buffer, Element, depth};
use super::isa::{self, Isa};
use super::micro::{Block, COLUMNS, DEPTH, SPARE_ROWS, Session, TILE};
use super::{overwritten, pack};

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
}

/// softmax(q k^T / sqrt(head_dim)) v: (batch, tokens, heads x head_dim).
pub fn forward<E: Element>(shape: &AttentionShape, qkv: &[E]) -> Vec<E> {
    let (n, c, d) = (shape.tokens, shape.channels(), shape.head_dim);
    let isa = isa::current();
    let run = |out: &mut [MaybeUninit<E>]| {
        out.par_chunks_mut(n * c).zip(qkv.par_chunks(3 * n * c)).for_each(|(out, qkv)| {
            HEAD.with_borrow_mut(|buffers| {
                let mut head = Head::new(shape, isa, buffers);
                for first in (0..c).step_by(d.max(1)) {
                    head.load_qkv(qkv, c, first);
                    head.weights(shape.scale());
                    head.product(A::Rows(P), B::Rows(V));
                    head.store(1.0, c, first, out);
                }
            });
        });
    };
    // SAFETY: the heads cover all channels of every token.
    unsafe { overwritten(shape.batch * n * c, run) }
}

/// The gradient of `qkv` from that of the output: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dP P));
/// dQ = dS K / sqrt(d); dK = dS^T Q / sqrt(d).
pub fn backward<E: Element>(shape: &AttentionShape, qkv: &[E], gradient: &[E]) -> Vec<E> {
    let (n, c, d) = (shape.tokens, shape.channels(), shape.head_dim);
    let isa = isa::current();
    let run = |out: &mut [MaybeUninit<E>]| {
        let images = out.par_chunks_mut(3 * n * c).zip(qkv.par_chunks(3 * n * c)).zip(gradient.par_chunks(n * c));
        images.for_each(|((out, qkv), gradient)| {
            HEAD.with_borrow_mut(|buffers| {
                let mut head = Head::new(shape, isa, buffers);
                for first in (0..c).step_by(d.max(1)) {
                    let [q, k, v] = head.load_qkv(qkv, c, first);
                    head.load(G, gradient, c, first);
                    head.weights(shape.scale());
                    head.product(A::Transposed(P), B::Rows(G));
                    head.store(1.0, 3 * c, v, out);
                    head.product(A::Rows(G), B::Columns(V));
                    head.through_softmax();
                    head.product(A::Rows(S), B::Rows(K));
                    head.store(shape.scale(), 3 * c, q, out);
                    head.product(A::Transposed(S), B::Rows(Q));
                    head.store(shape.scale(), 3 * c, k, out);
                }
            });
        });
    };
    // SAFETY: the heads cover all channels of queries, keys and values of every token.
    unsafe { overwritten(qkv.len(), run) }
}

/// The matrices of a head: queries, keys, values and the output's gradient (tokens, head_dim), the weights and the
/// scores' gradient (tokens, tokens).
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const G: usize = 3;
const P: usize = 4;
const S: usize = 5;

/// The operands of a product.
enum A {
    Rows(usize),
    Transposed(usize),
}

enum B {
    /// Depth are the matrix's rows.
    Rows(usize),
    /// Depth are the matrix's columns.
    Columns(usize),
}

#[derive(Default)]
struct Buffers {
    matrices: [Buffer; 6],
    transposed: Buffer,
    tiles: Buffer,
    sums: Buffer,
}

thread_local! {
    static HEAD: RefCell<Buffers> = RefCell::default();
}

/// One head of one image at work.
struct Head<'a, E> {
    tokens: usize,
    head_dim: usize,
    buffers: &'a mut Buffers,
    session: Session,
    /// Bytes to each step.
    steps: Vec<usize>,
    /// Elements from one row of the sums to the next.
    width: usize,
    element: std::marker::PhantomData<E>,
}

impl<'a, E: Element> Head<'a, E> {
    fn new(shape: &AttentionShape, isa: Isa, buffers: &'a mut Buffers) -> Self {
        let AttentionShape { tokens, head_dim, .. } = *shape;
        let steps = (0..tokens.max(head_dim).div_ceil(depth::<E>())).map(|s| s * 64).collect();
        let session = Session::new(isa);
        Head { tokens, head_dim, buffers, session, steps, width: 0, element: std::marker::PhantomData }
    }

    /// Columns of a matrix, in whole steps; those beyond its own are zero.
    fn padded(&self, matrix: usize) -> usize {
        if matrix >= P { self.tokens } else { self.head_dim }.next_multiple_of(depth::<E>())
    }

    /// A matrix without the rows that a block may read beyond it.
    fn matrix(&mut self, matrix: usize) -> &mut [E] {
        let width = self.padded(matrix);
        &mut self.buffers.matrices[matrix].take::<E>((self.tokens + SPARE_ROWS) * width)[..self.tokens * width]
    }

    /// Copies a head's columns, from `first` of rows of `stride` elements.
    fn load(&mut self, matrix: usize, values: &[E], stride: usize, first: usize) {
        let (width, d) = (self.padded(matrix), self.head_dim);
        for (row, values) in self.matrix(matrix).chunks_exact_mut(width).zip(values.chunks_exact(stride)) {
            row[..d].copy_from_slice(&values[first..first + d]);
            row[d..].fill(E::default());
        }
    }

    /// Loads queries, keys and values of the head whose channels begin at `first` of `c`; returns where theirs begin.
    fn load_qkv(&mut self, qkv: &[E], c: usize, first: usize) -> [usize; 3] {
        let places = [0, c, 2 * c].map(|part| part + first);
        [Q, K, V].into_iter().zip(places).for_each(|(matrix, place)| self.load(matrix, qkv, 3 * c, place));
        places
    }

    /// The attention weights, softmax(scale Q K^T), as matrix P.
    fn weights(&mut self, scale: f32) {
        self.product(A::Rows(Q), B::Columns(K));
        let (n, width, padded) = (self.tokens, self.width, self.padded(P));
        let sums = self.buffers.sums.take::<f32>(n * width);
        softmax_rows(sums, (n, width), scale, self.buffers.matrices[P].take::<E>((n + SPARE_ROWS) * padded), padded);
    }

    /// The gradient of the scores from that of the weights, which the sums hold, as matrix S.
    fn through_softmax(&mut self) {
        let (n, width, padded) = (self.tokens, self.width, self.padded(P));
        let Buffers { matrices, sums, .. } = &mut *self.buffers;
        let [.., weights, scores] = matrices;
        let (weights, scores) = (weights.take::<E>(n * padded), scores.take::<E>((n + SPARE_ROWS) * padded));
        softmax_backward_rows(weights, sums.take(n * width), (n, width), scores, padded);
    }

    /// Computes a product into the sums.
    fn product(&mut self, a: A, b: B) {
        let (deep, n) = (depth::<E>(), self.tokens);
        let matrix = match b {
            B::Rows(matrix) | B::Columns(matrix) => matrix,
        };
        let inner = self.padded(matrix);
        let (depth_len, columns) = if let B::Rows(_) = b { (n, inner) } else { (inner, n) };
        let (steps, columns) = (depth_len.div_ceil(deep), columns.div_ceil(COLUMNS));
        let Buffers { matrices, transposed, tiles, sums } = &mut *self.buffers;
        let tiles = tiles.take::<u32>(columns * steps * TILE);
        let values = matrices[matrix].take::<E>(n * inner);
        match b {
            B::Rows(_) => pack::rows_to_tiles(values, inner, (0, steps), tiles),
            B::Columns(_) => pack::columns_to_tiles(values, inner, tiles),
        }
        let (rows, a, a_stride): (usize, *const E, usize) = match a {
            A::Rows(matrix) => {
                let stride = if matrix >= P { n } else { self.head_dim }.next_multiple_of(deep);
                (n, matrices[matrix].as_ptr(), stride)
            }
            A::Transposed(matrix) => {
                let (width, stride) = (n.next_multiple_of(deep), n.next_multiple_of(deep));
                let out = transposed.take::<E>((width + SPARE_ROWS) * stride);
                pack::transposed(matrices[matrix].take::<E>(n * width), width, stride, &mut out[..width * stride]);
                (n, transposed.as_ptr(), stride)
            }
        };
        self.width = columns * COLUMNS;
        let sums = sums.take::<f32>((rows + SPARE_ROWS) * self.width);
        let block = Block {
            a: a.cast(),
            a_stride: a_stride * size_of::<E>(),
            steps: &self.steps[..steps],
            units: DEPTH,
            b: tiles.as_ptr(),
            b_stride: steps * TILE * 4,
            c: sums.as_mut_ptr(),
            c_stride: self.width * 4,
            rows,
            tiles: columns,
            accumulate: false,
        };
        // SAFETY: all operands have room for the spare rows, and A's rows for all steps.
        unsafe { self.session.run(&block) };
    }

    /// Writes `scale` times the sums to a head's columns, from `first` of rows of `stride` elements.
    fn store(&mut self, scale: f32, stride: usize, first: usize, out: &mut [MaybeUninit<E>]) {
        let (width, columns) = (self.width, first..first + self.head_dim);
        store_columns(self.buffers.sums.take(self.tokens * width), width, scale, stride, columns, out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn store_columns<E: Element>(
    sums: &[f32],
    width: usize,
    scale: f32,
    stride: usize,
    columns: Range<usize>,
    out: &mut [MaybeUninit<E>],
) {
    for (row, sums) in out.chunks_exact_mut(stride).zip(sums.chunks_exact(width)) {
        for (out, sum) in row[columns.clone()].iter_mut().zip(sums) {
            out.write(E::round(scale * sum));
        }
    }
}

/// softmax over the first `tokens` of each row of `scores` (tokens, width), into rows of `padded` elements, zeros after.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn softmax_rows<E: Element>(
    scores: &mut [f32],
    (tokens, width): (usize, usize),
    scale: f32,
    weights: &mut [E],
    padded: usize,
) {
    for (row, weights) in scores.chunks_exact_mut(width).zip(weights.chunks_exact_mut(padded)) {
        let row = &mut row[..tokens];
        let mut lanes = [f32::NEG_INFINITY; 16];
        row.chunks(16).for_each(|v| lanes.iter_mut().zip(v).for_each(|(m, &v)| *m = if v > *m { v } else { *m }));
        let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0; 16];
        for values in row.chunks_mut(16) {
            for (v, sum) in values.iter_mut().zip(&mut sums) {
                *v = E::exp(scale * (*v - max));
                *sum += *v;
            }
        }
        let factor = 1.0 / sums.into_iter().sum::<f32>();
        for (w, v) in weights.iter_mut().zip(row.iter()) {
            *w = E::round(factor * v);
        }
        weights[tokens..].fill(E::default());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn softmax_backward_rows<E: Element>(
    weights: &[E],
    gradient: &[f32],
    (tokens, width): (usize, usize),
    out: &mut [E],
    padded: usize,
) {
    let rows = weights.chunks_exact(padded).zip(gradient.chunks_exact(width)).zip(out.chunks_exact_mut(padded));
    for ((p, g), out) in rows {
        let (p, g) = (&p[..tokens], &g[..tokens]);
        let mut dots = [0.0; 16];
        for (p, g) in p.chunks(16).zip(g.chunks(16)) {
            p.iter().zip(g).zip(&mut dots).for_each(|((p, g), dot)| *dot += p.widen() * g);
        }
        let dot: f32 = dots.into_iter().sum();
        for ((out, p), g) in out.iter_mut().zip(p).zip(g) {
            *out = E::round(p.widen() * (g - dot));
        }
        out[tokens..].fill(E::default());
    }
}
