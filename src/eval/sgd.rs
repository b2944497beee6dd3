//! Stochastic gradient descent with momentum, in PyTorch's formulation.

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::Protocol;
use crate::error::Result;
use crate::nn::Params;
use crate::ops::Gradients;
use crate::ops::cpu::{CHUNK, Floats, update};
#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::ops::cuda;

/// The optimizer of a student: g' = g + weight_decay p; v = momentum v + g'; p = p - lr v.
///
/// PyTorch's v is g' at the first step, which is what a v of zeros gives. The lr stands outside v, unlike in Sutskever
/// et al. (2013).
pub struct Sgd {
    params: Vec<Tensor>,
    /// v of each parameter.
    velocities: Vec<Tensor>,
    lr: f32,
    momentum: f32,
    weight_decay: f32,
}

impl Sgd {
    /// An optimizer of all parameters with `protocol`'s first learning rate.
    pub fn new(params: &Params, protocol: &Protocol) -> Result<Self> {
        let params: Vec<Tensor> = params.trainable().into_iter().map(|(_, tensor)| tensor).collect();
        let velocities = params.iter().map(|p| Ok(p.zeros_like()?)).collect::<Result<_>>()?;
        let Protocol { lr, momentum, weight_decay, .. } = *protocol;
        Ok(Sgd { params, velocities, lr, momentum, weight_decay })
    }

    pub fn lr(&self) -> f32 {
        self.lr
    }

    pub fn set_lr(&mut self, lr: f32) {
        self.lr = lr;
    }

    /// One update of every parameter, in place.
    pub fn step(&mut self, gradients: &Gradients) -> Result<()> {
        let Sgd { lr, momentum, weight_decay, .. } = *self;
        #[cfg(any(feature = "cuda", cuda_emulated))]
        if let Some(gpu) = self.params.first().and_then(cuda::Gpu::of) {
            let lines = self.params.iter().zip(&self.velocities);
            let lines: Vec<_> = lines.map(|(p, v)| Ok([gradients.get(p)?, p, v])).collect::<Result<_>>()?;
            let chunks = cuda::optimizer::Chunks::new(&lines, self.params[0].device())?;
            return chunks.sgd(&gpu, lr, momentum, weight_decay);
        }
        for (param, velocity) in self.params.iter().zip(&self.velocities) {
            let gradient = Floats::of(gradients.get(param)?)?;
            update(param, |param| {
                update(velocity, |velocity| {
                    let chunks = param.par_chunks_mut(CHUNK).zip(velocity.par_chunks_mut(CHUNK));
                    chunks.zip(gradient.par_chunks(CHUNK)).for_each(|((p, v), g)| {
                        apply((lr, momentum, weight_decay), p, v, g);
                    });
                })
            })??;
        }
        Ok(())
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn apply((lr, momentum, weight_decay): (f32, f32, f32), p: &mut [f32], v: &mut [f32], g: &[f32]) {
    for ((p, v), g) in p.iter_mut().zip(v).zip(g) {
        *v = momentum * *v + (g + weight_decay * *p);
        *p -= lr * *v;
    }
}
