//! What a convolution reads: one tensor or two joined along their channels, normalized, resampled, and only then
//! convolved. An image is made when it is needed, in the cache, and made again for the backward pass, so that nothing
//! between two convolutions is written to memory.

use std::mem::MaybeUninit;

use super::element::{Buffer, Element};
use super::micro::COLUMNS;
use super::norm::{self, Norm, Pixels, out_of};

/// Elements that rows of pixels are joined to.
const ROW: usize = 256;

/// What happens to the size between a tensor and its convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    Keep,
    /// Every pixel four times (nearest neighbour).
    Upsample,
    /// The mean of 2 x 2 pixels, after norm and activation; an odd last row or column is left out.
    Pool,
}

impl Resample {
    /// Height and width afterwards.
    pub fn size(self, height: usize, width: usize) -> (usize, usize) {
        match self {
            Resample::Keep => (height, width),
            Resample::Upsample => (2 * height, 2 * width),
            Resample::Pool => (height / 2, width / 2),
        }
    }
}

/// The input of a convolution. Up-sampling comes without a norm, pooling with one.
pub struct Input<'a, E> {
    /// One or two tensors (B, H, W, channels).
    pub parts: Vec<Pixels<'a, E>>,
    /// Size of the tensors.
    pub height: usize,
    pub width: usize,
    pub norm: Option<Norm<'a>>,
    pub resample: Resample,
}

impl<E: Element> Input<'_, E> {
    pub fn channels(&self) -> usize {
        self.parts.iter().map(|part| part.channels).sum()
    }

    /// Height and width of what is convolved.
    pub fn size(&self) -> (usize, usize) {
        self.resample.size(self.height, self.width)
    }

    /// Means and 1 / std that an image keeps for the backward pass.
    pub fn statistics_len(&self) -> usize {
        self.norm.map_or(0, |_| 2 * self.channels())
    }

    /// Image `n` of each part.
    fn pixels(&self, n: usize) -> Vec<Pixels<'_, E>> {
        self.parts.iter().map(|part| part.image(n, self.height * self.width)).collect()
    }

    /// Measures image `n` for its norm.
    pub fn measure(&self, n: usize, statistics: &mut [f32]) {
        if let Some(norm) = &self.norm {
            norm.statistics(&self.pixels(n), statistics);
        }
    }

    /// Image `n` as it is convolved.
    pub fn image<'b>(&'b self, n: usize, statistics: &[f32], buffer: &'b mut Buffer) -> &'b [E] {
        let parts = self.pixels(n);
        if let ([part], None, Resample::Keep) = (&parts[..], &self.norm, self.resample) {
            let len = part.values.len();
            return &self.parts[0].values[n * len..][..len];
        }
        let (height, width) = self.size();
        let c = self.channels();
        let out = buffer.take::<E>(height * width * c);
        let factors = self.norm.as_ref().map(|norm| norm.factors(n, statistics));
        out_of(&parts, |part, at| {
            let out = &mut out[at.start..];
            match (&self.norm, &factors, self.resample) {
                (Some(norm), Some((a, b)), Resample::Pool) => {
                    let rows = part.values.chunks_exact(2 * self.width * part.channels);
                    for (x, out) in rows.zip(out.chunks_mut(width * c)) {
                        norm::normalize_pool(norm.act, x, &a[at.clone()], &b[at.clone()], c, out);
                    }
                }
                (Some(norm), Some((a, b)), _) => {
                    let k = self.period();
                    let (a, b) = (a[at.clone()].repeat(k), b[at].repeat(k));
                    norm::normalize(norm.act, part.values, &a, &b, k * c, out);
                }
                (_, _, Resample::Upsample) => upsample(part, self.width, c, out),
                _ => copy(part.values, part.channels, c, out),
            }
        });
        out
    }

    /// From `dy`, the gradient of [`Input::image`] in rows of `stride` elements (which it overwrites), the gradient of
    /// each part of image `n`, and `sums` for [`Norm::gradients`].
    pub fn backward(
        &self,
        n: usize,
        statistics: &[f32],
        stride: usize,
        dy: &mut [f32],
        dx: &mut [&mut [MaybeUninit<E>]],
        sums: &mut [f32],
    ) {
        let parts = self.pixels(n);
        let Some(norm) = &self.norm else {
            return self.backward_without_norm(&parts, stride, dy, dx);
        };
        let (c, pixels) = (self.channels(), self.height * self.width);
        let (a, b) = norm.factors(n, statistics);
        let mean = &statistics[..c];
        {
            let (sum, sum_xhat) = sums.split_at_mut(c);
            out_of(&parts, |part, at| {
                let factors = (&a[at.clone()], &b[at.clone()], &mean[at.clone()]);
                let sums = (&mut sum[at.clone()], &mut sum_xhat[at.clone()]);
                let dy = &mut dy[at.start..];
                match self.resample {
                    Resample::Pool => self.pooled(part, stride, dy, |x, dy| {
                        norm::pooled_sums(norm.act, x, factors, stride, dy, (&mut *sums.0, &mut *sums.1));
                    }),
                    _ => self.through_activation(norm, part, factors, stride, dy, sums),
                }
            });
            sum_xhat.iter_mut().zip(&statistics[c..]).for_each(|(sum, rstd)| *sum *= rstd);
        }
        let factors = norm.input_factors(n, pixels, statistics, sums);
        let mut dx = dx.iter_mut();
        out_of(&parts, |part, at| {
            let Some(dx) = dx.next() else { return };
            let [p, q, r] = factors.each_ref().map(|f| &f[at.clone()]);
            let dy = &dy[at.start..];
            match self.resample {
                Resample::Pool => self.combine_pooled(norm, part, (&a[at.clone()], &b[at]), [p, q, r], stride, dy, dx),
                _ => {
                    let k = self.period();
                    let [p, q, r] = [p.repeat(k), q.repeat(k), r.repeat(k)];
                    norm::combine(part.values, [&p, &q, &r], k * stride, dy, dx);
                }
            }
        });
    }

    /// Pixels that the loops of a norm take for one: rows of few channels would be too short for vector code.
    fn period(&self) -> usize {
        let c = self.channels();
        let dense = self.parts.len() == 1 && c.is_multiple_of(COLUMNS);
        let fits = |k: &usize| k * c <= ROW && (self.height * self.width).is_multiple_of(*k);
        if dense { [16, 8, 4, 2].into_iter().find(fits).unwrap_or(1) } else { 1 }
    }

    fn through_activation(
        &self,
        norm: &Norm,
        part: &Pixels<E>,
        (a, b, mean): (&[f32], &[f32], &[f32]),
        stride: usize,
        dy: &mut [f32],
        sums: (&mut [f32], &mut [f32]),
    ) {
        let k = self.period();
        let factors = [a.repeat(k), b.repeat(k), mean.repeat(k)];
        let mut found = [vec![0.0; k * a.len()], vec![0.0; k * a.len()]];
        let [sum, sum_xhat] = &mut found;
        let factors = (&factors[0][..], &factors[1][..], &factors[2][..]);
        norm::through_activation(norm.act, part.values, factors, k * stride, dy, (sum, sum_xhat));
        for (total, found) in [sums.0, sums.1].into_iter().zip(&found) {
            norm::channel_sums(found, total);
        }
    }

    fn backward_without_norm(&self, parts: &[Pixels<E>], stride: usize, dy: &[f32], dx: &mut [&mut [MaybeUninit<E>]]) {
        let mut dx = dx.iter_mut();
        out_of(parts, |part, at| {
            let Some(dx) = dx.next() else { return };
            match self.resample {
                Resample::Upsample => sum_blocks(&dy[at.start..], self.width, part.channels, stride, dx),
                _ => round_rows(&dy[at.start..], part.channels, stride, dx),
            }
        });
    }

    /// Calls `f` with every two rows of pixels and their row of outputs.
    fn pooled(&self, part: &Pixels<E>, stride: usize, dy: &[f32], mut f: impl FnMut(&[E], &[f32])) {
        let rows = part.values.chunks_exact(2 * self.width * part.channels);
        rows.zip(dy.chunks((self.width / 2 * stride).max(1))).for_each(|(x, dy)| f(x, dy));
    }

    #[allow(clippy::too_many_arguments)]
    fn combine_pooled(
        &self,
        norm: &Norm,
        part: &Pixels<E>,
        factors: (&[f32], &[f32]),
        pqr: [&[f32]; 3],
        stride: usize,
        dy: &[f32],
        dx: &mut [MaybeUninit<E>],
    ) {
        let c = part.channels;
        let (row, two) = (self.width * c, 2 * self.width * c);
        let none = vec![0.0; row.max(c)];
        {
            let mut rows = dx.chunks_exact_mut(two);
            self.pooled(part, stride, dy, |x, dy| {
                if let Some(dx) = rows.next() {
                    norm::combine_pooled(norm.act, x, factors, pqr, stride, dy, dx);
                }
            });
        }
        // Pixels that no output has read.
        if !self.height.is_multiple_of(2) {
            let at = (self.height - 1) * row;
            norm::combine(&part.values[at..], pqr, c, &none, &mut dx[at..]);
        }
        if !self.width.is_multiple_of(2) {
            for y in 0..self.height / 2 * 2 {
                let at = y * row + row - c..y * row + row;
                norm::combine(&part.values[at.clone()], pqr, c, &none, &mut dx[at]);
            }
        }
    }
}

/// Rows of `c` elements into rows of `stride`.
fn copy<E: Element>(values: &[E], c: usize, stride: usize, out: &mut [E]) {
    for (out, x) in out.chunks_mut(stride).zip(values.chunks_exact(c)) {
        out[..c].copy_from_slice(x);
    }
}

fn upsample<E: Element>(part: &Pixels<E>, width: usize, stride: usize, out: &mut [E]) {
    let c = part.channels;
    for (pair, x) in out.chunks_mut(4 * width * stride).zip(part.values.chunks_exact(width * c)) {
        for row in pair.chunks_mut(2 * width * stride) {
            for (two, x) in row.chunks_mut(2 * stride).zip(x.chunks_exact(c)) {
                two[..c].copy_from_slice(x);
                two[stride..stride + c].copy_from_slice(x);
            }
        }
    }
}

/// The sum of the four outputs of each pixel; `dy` has rows of 2 `width` outputs of `stride` elements.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn sum_blocks<E: Element>(dy: &[f32], width: usize, c: usize, stride: usize, dx: &mut [MaybeUninit<E>]) {
    for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
        let corner = (i / width * 4 * width + i % width * 2) * stride;
        let below = corner + 2 * width * stride;
        let at = |first: usize| &dy[first..first + c];
        let (d0, d1, d2, d3) = (at(corner), at(corner + stride), at(below), at(below + stride));
        for k in 0..c {
            dx[k].write(E::round((d0[k] + d1[k]) + (d2[k] + d3[k])));
        }
    }
}

/// The first `c` of every `stride` elements.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn round_rows<E: Element>(values: &[f32], c: usize, stride: usize, out: &mut [MaybeUninit<E>]) {
    for (out, values) in out.chunks_exact_mut(c).zip(values.chunks(stride)) {
        for (out, &v) in out.iter_mut().zip(&values[..c]) {
            out.write(E::round(v));
        }
    }
}
