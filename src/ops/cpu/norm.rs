//! Group normalization with an optional scale-shift and activation: what is computed for each channel of one image, and
//! the loops over its pixels.

use std::mem::MaybeUninit;

use multiversion::multiversion;

use super::element::Element;
use super::elementwise::{sigmoid, silu_derivative};

/// What follows a normalization in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Identity,
    Relu,
    Silu,
    /// x Phi(x) by its approximation with tanh (Hendrycks and Gimpel 2016, section 2).
    Gelu,
}

/// y = act((x_hat gamma + beta) (1 + scale) + shift), where x_hat is normalized over an image's groups of channels.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// (C)
    pub gamma: &'a [f32],
    /// (C)
    pub beta: &'a [f32],
    /// (B, 2C): scale, then shift.
    pub scale_shift: Option<&'a [f32]>,
    /// 0 for x_hat = x.
    pub groups: usize,
    pub act: Activation,
    pub eps: f32,
}

/// The gradients of what a [`Norm`] is made of; shapes as there.
pub struct NormGradients {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub scale_shift: Option<Vec<f32>>,
}

/// Pixels of one image or of many, one after the other.
#[derive(Clone, Copy)]
pub struct Pixels<'a, E> {
    pub values: &'a [E],
    pub channels: usize,
}

impl<'a, E> Pixels<'a, E> {
    /// Image `n` of many, of `pixels` pixels each.
    pub fn image(&self, n: usize, pixels: usize) -> Pixels<'a, E> {
        let len = pixels * self.channels;
        Pixels { values: &self.values[n * len..][..len], channels: self.channels }
    }
}

impl Norm<'_> {
    fn channels(&self) -> usize {
        self.gamma.len()
    }

    /// gamma (1 + scale) of image `n`.
    fn factor(&self, n: usize, i: usize) -> f32 {
        let scale = self.scale_shift.map_or(0.0, |s| s[n * 2 * self.channels() + i]);
        self.gamma[i] * (1.0 + scale)
    }

    /// y = act(a x + b): factors and offsets of image `n`, whose `statistics` are means and 1 / std of each channel.
    pub fn factors(&self, n: usize, statistics: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let c = self.channels();
        (0..c)
            .map(|i| {
                let (scale, shift) = self.scale_shift.map_or((0.0, 0.0), |s| (s[n * 2 * c + i], s[n * 2 * c + c + i]));
                let a = statistics[c + i] * self.factor(n, i);
                (a, self.beta[i] * (1.0 + scale) + shift - statistics[i] * a)
            })
            .unzip()
    }

    /// dx = p du + q x + r, from d x_hat = du gamma (1 + scale) and
    /// dx = rstd (d x_hat - mean(d x_hat) - x_hat mean(d x_hat x_hat)), means over the group; `sums` holds the sums over
    /// pixels of du, then those of du x_hat.
    pub fn input_factors(&self, n: usize, pixels: usize, statistics: &[f32], sums: &[f32]) -> [Vec<f32>; 3] {
        let c = self.channels();
        let mut m1: Vec<f32> = (0..c).map(|i| self.factor(n, i) * sums[i]).collect();
        let mut m2: Vec<f32> = (0..c).map(|i| self.factor(n, i) * sums[c + i]).collect();
        if self.groups == 0 {
            m1.fill(0.0);
            m2.fill(0.0);
        } else {
            average_groups(self.groups, pixels, &mut m1);
            average_groups(self.groups, pixels, &mut m2);
        }
        let mut out = [vec![0.0; c], vec![0.0; c], vec![0.0; c]];
        for i in 0..c {
            let (mean, rstd) = (statistics[i], statistics[c + i]);
            out[0][i] = rstd * self.factor(n, i);
            out[1][i] = -rstd * rstd * m2[i];
            out[2][i] = -rstd * m1[i] - out[1][i] * mean;
        }
        out
    }

    /// From the sums of all images, (B, 2C): those of du, then those of du x_hat.
    pub fn gradients(&self, sums: &[f32]) -> NormGradients {
        let c = self.channels();
        let (mut gamma, mut beta) = (vec![0.0; c], vec![0.0; c]);
        let mut scale_shift = self.scale_shift.map(|_| Vec::with_capacity(sums.len()));
        for (n, sums) in sums.chunks(2 * c).enumerate() {
            let (du, du_xhat) = sums.split_at(c);
            for i in 0..c {
                let scale = 1.0 + self.scale_shift.map_or(0.0, |s| s[n * 2 * c + i]);
                gamma[i] += scale * du_xhat[i];
                beta[i] += scale * du[i];
            }
            if let Some(out) = &mut scale_shift {
                out.extend((0..c).map(|i| self.gamma[i] * du_xhat[i] + self.beta[i] * du[i]));
                out.extend_from_slice(du);
            }
        }
        NormGradients { gamma, beta, scale_shift }
    }

    /// Means and 1 / std (2C) of the channels of an image, which `parts` hold side by side. Two passes: f32 sums of
    /// squares would lose digits where the mean is large.
    pub fn statistics<E: Element>(&self, parts: &[Pixels<E>], out: &mut [f32]) {
        let (mean, rstd) = out.split_at_mut(self.channels());
        if self.groups == 0 {
            mean.fill(0.0);
            rstd.fill(1.0);
            return;
        }
        let pixels = parts[0].values.len() / parts[0].channels;
        out_of(parts, |part, at| channel_sums(part.values, &mut mean[at]));
        average_groups(self.groups, pixels, mean);
        out_of(parts, |part, at| centered_squares(part.values, &mean[at.clone()], &mut rstd[at]));
        average_groups(self.groups, pixels, rstd);
        for r in rstd {
            *r = 1.0 / (*r + self.eps).sqrt();
        }
    }
}

/// Calls `f` with each part and the range of its channels.
pub fn out_of<'a, E>(parts: &[Pixels<'a, E>], mut f: impl FnMut(&Pixels<'a, E>, std::ops::Range<usize>)) {
    let mut first = 0;
    for part in parts {
        f(part, first..first + part.channels);
        first += part.channels;
    }
}

/// Replaces channel sums by the mean over their group's channels and pixels.
fn average_groups(groups: usize, pixels: usize, sums: &mut [f32]) {
    let width = sums.len() / groups;
    for group in sums.chunks_mut(width) {
        let total: f64 = group.iter().map(|&v| f64::from(v)).sum();
        group.fill((total / (width * pixels) as f64) as f32);
    }
}

/// Adds the pixels' values to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn channel_sums<E: Element>(x: &[E], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += x.widen();
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn centered_squares<E: Element>(x: &[E], mean: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for ((s, x), m) in sums.iter_mut().zip(row).zip(mean) {
            *s += (x.widen() - m) * (x.widen() - m);
        }
    }
}

/// act(u).
#[inline(always)]
pub fn apply<E: Element>(act: Activation, u: f32) -> f32 {
    match act {
        Activation::Identity => u,
        Activation::Relu => {
            if u > 0.0 {
                u
            } else {
                0.0 * u
            }
        } // 0 * u keeps a NaN visible
        Activation::Silu => u * sigmoid::<E>(u),
        Activation::Gelu => u * sigmoid::<E>(gelu_argument(u)),
    }
}

/// act'(u). That of ReLU can be told from its output as well.
#[inline(always)]
pub fn derivative<E: Element>(act: Activation, u: f32) -> f32 {
    match act {
        Activation::Identity => 1.0,
        Activation::Relu => f32::from(u8::from(u > 0.0)),
        Activation::Silu => silu_derivative::<E>(u),
        Activation::Gelu => {
            let s = sigmoid::<E>(gelu_argument(u));
            s + u * s * (1.0 - s) * GELU_FACTOR * (1.0 + 3.0 * GELU_CUBE * u * u)
        }
    }
}

/// 2 sqrt(2 / pi)
const GELU_FACTOR: f32 = 1.595_769;
const GELU_CUBE: f32 = 0.044_715;

/// (1 + tanh(z)) / 2 is the logistic function of 2 z = sqrt(8 / pi) (u + 0.044715 u^3).
#[inline(always)]
fn gelu_argument(u: f32) -> f32 {
    GELU_FACTOR * u * (1.0 + GELU_CUBE * u * u)
}

/// Calls a loop with the activation as a constant, so that each becomes its own vector code.
macro_rules! for_each_activation {
    ($act:expr, $loop:expr) => {
        match $act {
            Activation::Identity => $loop(Activation::Identity),
            Activation::Relu => $loop(Activation::Relu),
            Activation::Silu => $loop(Activation::Silu),
            Activation::Gelu => $loop(Activation::Gelu),
        }
    };
}
pub(super) use for_each_activation;

/// act(a x + b) of each pixel, into rows of `out` of `stride` elements.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn normalize<E: Element>(act: Activation, x: &[E], a: &[f32], b: &[f32], stride: usize, out: &mut [E]) {
    for_each_activation!(act, |act| {
        for (out, x) in out.chunks_mut(stride).zip(x.chunks_exact(a.len())) {
            for (((o, x), a), b) in out.iter_mut().zip(x).zip(a).zip(b) {
                *o = E::round(apply::<E>(act, a * x.widen() + b));
            }
        }
    });
}

/// The mean of act(a x + b) over 2 x 2 pixels, into rows of `out` of `stride` elements. `x` is two rows of pixels.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn normalize_pool<E: Element>(act: Activation, x: &[E], a: &[f32], b: &[f32], stride: usize, out: &mut [E]) {
    let c = a.len();
    let (top, bottom) = x.split_at(x.len() / 2);
    for_each_activation!(act, |act| {
        for ((out, top), bottom) in out.chunks_mut(stride).zip(top.chunks_exact(2 * c)).zip(bottom.chunks_exact(2 * c))
        {
            let ((x0, x1), (x2, x3)) = (top.split_at(c), bottom.split_at(c));
            for i in 0..c {
                let value = |x: &[E]| apply::<E>(act, a[i] * x[i].widen() + b[i]);
                out[i] = E::round(0.25 * ((value(x0) + value(x1)) + (value(x2) + value(x3))));
            }
        }
    });
}

/// du = dy act'(a x + b) in place of dy, whose rows have `stride` elements, and its sums and those of du (x - mean).
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
#[allow(clippy::too_many_arguments)]
pub fn through_activation<E: Element>(
    act: Activation,
    x: &[E],
    (a, b, mean): (&[f32], &[f32], &[f32]),
    stride: usize,
    dy: &mut [f32],
    (sum, sum_xhat): (&mut [f32], &mut [f32]),
) {
    let c = a.len();
    for_each_activation!(act, |act| {
        for (dy, x) in dy.chunks_mut(stride).zip(x.chunks_exact(c)) {
            let dy = &mut dy[..c];
            for i in 0..c {
                let x = x[i].widen();
                let du = dy[i] * derivative::<E>(act, a[i] * x + b[i]);
                dy[i] = du;
                sum[i] += du;
                sum_xhat[i] += du * (x - mean[i]);
            }
        }
    });
}

/// dx = p du + q x + r.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn combine<E: Element>(x: &[E], [p, q, r]: [&[f32]; 3], stride: usize, du: &[f32], dx: &mut [MaybeUninit<E>]) {
    let c = p.len();
    for ((dx, du), x) in dx.chunks_exact_mut(c).zip(du.chunks(stride)).zip(x.chunks_exact(c)) {
        let du = &du[..c];
        for i in 0..c {
            dx[i].write(E::round(p[i] * du[i] + q[i] * x[i].widen() + r[i]));
        }
    }
}

/// The sums of [`through_activation`] behind 2 x 2 pooling: each pixel gets a quarter of its output's `dy`. `x` is two
/// rows of pixels, `dy` one of outputs.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
#[allow(clippy::too_many_arguments)]
pub fn pooled_sums<E: Element>(
    act: Activation,
    x: &[E],
    (a, b, mean): (&[f32], &[f32], &[f32]),
    stride: usize,
    dy: &[f32],
    (sum, sum_xhat): (&mut [f32], &mut [f32]),
) {
    let c = a.len();
    let (top, bottom) = x.split_at(x.len() / 2);
    for_each_activation!(act, |act| {
        for ((dy, top), bottom) in dy.chunks(stride).zip(top.chunks_exact(2 * c)).zip(bottom.chunks_exact(2 * c)) {
            let dy = &dy[..c];
            for x in [&top[..c], &top[c..], &bottom[..c], &bottom[c..]] {
                for i in 0..c {
                    let x = x[i].widen();
                    let du = 0.25 * dy[i] * derivative::<E>(act, a[i] * x + b[i]);
                    sum[i] += du;
                    sum_xhat[i] += du * (x - mean[i]);
                }
            }
        }
    });
}

/// [`combine`] behind 2 x 2 pooling, with du computed again. `x` and `dx` are two rows of pixels, `dy` one of outputs.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
#[allow(clippy::too_many_arguments)]
pub fn combine_pooled<E: Element>(
    act: Activation,
    x: &[E],
    (a, b): (&[f32], &[f32]),
    [p, q, r]: [&[f32]; 3],
    stride: usize,
    dy: &[f32],
    dx: &mut [MaybeUninit<E>],
) {
    let c = a.len();
    let ((top, bottom), (dx_top, dx_bottom)) = (x.split_at(x.len() / 2), dx.split_at_mut(x.len() / 2));
    for_each_activation!(act, |act| {
        for (x, dx) in [(top, &mut *dx_top), (bottom, &mut *dx_bottom)] {
            for ((dy, x), dx) in dy.chunks(stride).zip(x.chunks_exact(2 * c)).zip(dx.chunks_exact_mut(2 * c)) {
                let dy = &dy[..c];
                for (x, dx) in x.chunks_exact(c).zip(dx.chunks_exact_mut(c)) {
                    for i in 0..c {
                        let x = x[i].widen();
                        let du = 0.25 * dy[i] * derivative::<E>(act, a[i] * x + b[i]);
                        dx[i].write(E::round(p[i] * du + q[i] * x + r[i]));
                    }
                }
            }
        }
    });
}
