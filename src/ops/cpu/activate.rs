//! What a convolution would read, written out: normed, pooled or joined, plus a residual, through an activation.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::{Buffer, Element};
use super::input::Input;
use super::norm::{Activation, NormGradients, apply, derivative, for_each_activation};
use super::overwritten;

thread_local! {
    /// The input of an image, and the gradient of that.
    static IMAGE: RefCell<(Buffer, Buffer)> = RefCell::default();
}

/// What [`forward`] returns.
pub struct Activated<E> {
    /// (B, H', W', C)
    pub out: Vec<E>,
    /// What the activation took, where [`backward`] needs it.
    pub before: Option<Vec<E>>,
    pub statistics: Vec<f32>,
}

/// act(`input` + `residual`) of `batch` images.
pub fn forward<E: Element>(batch: usize, input: &Input<E>, residual: Option<&[E]>, act: Activation) -> Activated<E> {
    let (height, width) = input.size();
    let (len, kept) = (height * width * input.channels(), input.statistics_len());
    // An image without statistics keeps one number, so that every image has a part of them.
    let mut statistics = vec![0.0; batch * kept.max(1)];
    let mut sums = vec![E::default(); batch * len];
    let images = sums.par_chunks_mut(len).zip(statistics.par_chunks_mut(kept.max(1)));
    images.enumerate().for_each(|(n, (sums, statistics))| {
        input.measure(n, statistics);
        IMAGE.with_borrow_mut(|(image, _)| {
            let image = input.image(n, &statistics[..kept], image);
            match residual {
                Some(residual) => add(image, &residual[n * len..][..len], sums),
                None => sums.copy_from_slice(image),
            }
        });
    });
    let before = (!told_by_output(act)).then(|| sums.clone());
    sums.par_chunks_mut(len).for_each(|values| activate(act, values));
    Activated { out: sums, before, statistics }
}

/// Whether the derivative follows from the output alone.
fn told_by_output(act: Activation) -> bool {
    matches!(act, Activation::Identity | Activation::Relu)
}

/// What [`backward`] returns: the gradients of the input's parts, of its norm and of the residual.
pub struct Gradients<E> {
    pub parts: Vec<Vec<E>>,
    pub norm: Option<NormGradients>,
    pub residual: Vec<E>,
}

/// The gradients from that of the output; `kept` is what the activation took, or the output where that tells enough.
pub fn backward<E: Element>(
    batch: usize,
    input: &Input<E>,
    act: Activation,
    (kept, statistics): (&[E], &[f32]),
    gradient: Vec<E>,
) -> Gradients<E> {
    let (height, width) = input.size();
    let (channels, per_image) = (input.channels(), input.statistics_len());
    let len = height * width * channels;
    let mut gradient = gradient;
    gradient.par_chunks_mut(len).zip(kept.par_chunks(len)).for_each(|(g, kept)| through(act, kept, g));
    let mut norm_sums = vec![0.0; batch * per_image.max(1)];
    let lens: Vec<usize> = input.parts.iter().map(|part| input.height * input.width * part.channels).collect();
    let all: usize = lens.iter().sum();
    let write = |out: &mut [MaybeUninit<E>]| {
        let images = out.par_chunks_mut(all).zip(norm_sums.par_chunks_mut(per_image.max(1)));
        images.enumerate().for_each(|(n, (mut out, sums))| {
            let mut dx = Vec::new();
            for &len in &lens {
                let (part, rest) = out.split_at_mut(len);
                dx.push(part);
                out = rest;
            }
            IMAGE.with_borrow_mut(|(_, buffer)| {
                let dy = buffer.take::<f32>(len);
                widen(&gradient[n * len..][..len], dy);
                let statistics = &statistics[n * per_image..][..per_image];
                input.backward(n, statistics, channels, dy, &mut dx, &mut sums[..per_image]);
            });
        });
    };
    // SAFETY: the images cover the output, and `Input::backward` writes all of an image's parts.
    let of_images = unsafe { overwritten(batch * all, write) };
    Gradients {
        parts: split(of_images, &lens),
        norm: input.norm.map(|norm| norm.gradients(&norm_sums)),
        residual: gradient,
    }
}

/// The parts of all images, from images that hold one part after the other.
fn split<E: Element>(images: Vec<E>, lens: &[usize]) -> Vec<Vec<E>> {
    if lens.len() == 1 {
        return vec![images];
    }
    let mut parts: Vec<Vec<E>> = vec![Vec::new(); lens.len()];
    for image in images.chunks(lens.iter().sum()) {
        let mut first = 0;
        for (part, len) in parts.iter_mut().zip(lens) {
            part.extend_from_slice(&image[first..first + len]);
            first += len;
        }
    }
    parts
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn add<E: Element>(a: &[E], b: &[E], out: &mut [E]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = E::round(a.widen() + b.widen());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn activate<E: Element>(act: Activation, values: &mut [E]) {
    for_each_activation!(act, |act| {
        for v in values.iter_mut() {
            *v = E::round(apply::<E>(act, v.widen()));
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn through<E: Element>(act: Activation, kept: &[E], gradient: &mut [E]) {
    for_each_activation!(act, |act| {
        for (g, kept) in gradient.iter_mut().zip(kept) {
            *g = E::round(g.widen() * derivative::<E>(act, kept.widen()));
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn widen<E: Element>(values: &[E], out: &mut [f32]) {
    for (out, v) in out.iter_mut().zip(values) {
        *out = v.widen();
    }
}
