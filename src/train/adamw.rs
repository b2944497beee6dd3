//! AdamW with visible state, and the EMA of the weights, in one pass over each parameter.

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::error::Result;
use crate::nn::Params;
use crate::ops::cpu::{self, Floats};
#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::ops::cuda;
use crate::ops::{Gradients, Value, follow};

/// AdamW (Loshchilov and Hutter 2019, algorithm 2) with PyTorch's order of operations, and an exponential moving
/// average of the weights (Karras et al. 2023, section 3, for why).
pub struct AdamW {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    slots: Vec<Slot>,
    /// Statistics of layers and their averages.
    statistics: Vec<(Tensor, Tensor)>,
}

struct Slot {
    name: String,
    param: Tensor,
    ema: Tensor,
    /// First and second moment of the gradient.
    m: Tensor,
    v: Tensor,
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub struct StepSizes {
    /// Steps done before this one.
    pub step: u64,
    pub learning_rate: f64,
    /// Gradients are scaled down to this L2 norm.
    pub clip_norm: f64,
    pub ema_decay: f64,
}

/// The loss and the gradient's norm of a step.
#[derive(Clone, Debug)]
pub enum Figures {
    Read {
        loss: f64,
        norm: f64,
    },
    /// On a GPU, which need not have come to them yet.
    Pending {
        loss: Tensor,
        squared_norm: Tensor,
    },
}

impl Figures {
    /// (loss, norm); of a GPU, after it has computed them.
    pub fn read(&self) -> Result<(f64, f64)> {
        match self {
            Figures::Read { loss, norm } => Ok((*loss, *norm)),
            Figures::Pending { loss, squared_norm } => {
                let read = |scalar: &Tensor| Result::Ok(f64::from(scalar.to_scalar::<f32>()?));
                Ok((read(loss)?, read(squared_norm)?.sqrt()))
            }
        }
    }
}

impl AdamW {
    /// `ema` holds parameters of the same names and shapes as `params`.
    pub fn new(params: &Params, ema: &Params, weight_decay: f64) -> Result<Self> {
        let slot = |((name, param), (_, ema)): ((String, Tensor), (String, Tensor))| {
            Ok(Slot { m: param.zeros_like()?, v: param.zeros_like()?, name, param, ema })
        };
        let slots = params.trainable().into_iter().zip(ema.trainable()).map(slot).collect::<Result<_>>()?;
        let statistics = params.statistics().into_iter().zip(ema.statistics()).collect();
        Ok(AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay, slots, statistics })
    }

    /// The moments as (name, tensor) pairs: "m.NAME" and "v.NAME". The tensors are the live ones.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let pair = |s: &Slot| [(format!("m.{}", s.name), s.m.clone()), (format!("v.{}", s.name), s.v.clone())];
        self.slots.iter().flat_map(pair).collect()
    }

    /// One step from the gradients of `loss`, clipped; where either is not finite, nothing changes.
    pub fn update(&mut self, loss: &Value, gradients: &Gradients, sizes: StepSizes) -> Result<Figures> {
        #[cfg(any(feature = "cuda", cuda_emulated))]
        if let Some(gpu) = cuda::Gpu::of(loss.tensor()) {
            return self.update_there(&gpu, loss, gradients, sizes);
        }
        let (loss, norm) = (f64::from(loss.scalar()?), self.gradient_norm(gradients)?);
        if loss.is_finite() && norm.is_finite() {
            self.step(gradients, (sizes.clip_norm / norm).min(1.0), sizes)?;
        }
        Ok(Figures::Read { loss, norm })
    }

    /// [`AdamW::update`] without waiting for the GPU.
    #[cfg(any(feature = "cuda", cuda_emulated))]
    fn update_there(
        &mut self,
        gpu: &cuda::Gpu,
        loss: &Value,
        gradients: &Gradients,
        sizes: StepSizes,
    ) -> Result<Figures> {
        let mut lines = Vec::with_capacity(self.slots.len());
        for Slot { param, ema, m, v, .. } in &self.slots {
            lines.push([gradients.get(param)?, param, ema, m, v]);
        }
        let chunks = cuda::optimizer::Chunks::new(&lines, loss.tensor().device())?;
        let squared_norm = chunks.squared_norm(gpu)?;
        let Factors { beta1, beta2, decay, step, bias2, eps, ema, .. } = self.factors(1.0, sizes);
        let numbers = [beta1, beta2, decay, step, bias2, eps, ema, sizes.clip_norm as f32];
        chunks.adamw(gpu, &squared_norm, loss.tensor(), numbers)?;
        self.follow_statistics(ema)?;
        Ok(Figures::Pending { loss: loss.tensor().clone(), squared_norm })
    }

    /// The L2 norm of all gradients together.
    fn gradient_norm(&self, gradients: &Gradients) -> Result<f64> {
        let mut total = 0.0;
        for slot in &self.slots {
            let g = Floats::of(gradients.get(&slot.param)?)?;
            let sums: Vec<f64> = g.par_chunks(cpu::CHUNK).map(sum_of_squares).collect();
            total += sums.iter().sum::<f64>();
        }
        Ok(total.sqrt())
    }

    fn factors(&self, gradient_scale: f64, sizes: StepSizes) -> Factors {
        let t = (sizes.step + 1) as f64;
        Factors {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            scale: gradient_scale as f32,
            decay: (1.0 - sizes.learning_rate * self.weight_decay) as f32,
            step: (sizes.learning_rate / (1.0 - self.beta1.powf(t))) as f32,
            bias2: (1.0 - self.beta2.powf(t)).sqrt() as f32,
            eps: self.eps as f32,
            ema: sizes.ema_decay as f32,
        }
    }

    /// Updates all parameters and their averages.
    fn step(&mut self, gradients: &Gradients, gradient_scale: f64, sizes: StepSizes) -> Result<()> {
        let factors = self.factors(gradient_scale, sizes);
        for slot in &self.slots {
            let g = Floats::of(gradients.get(&slot.param)?)?;
            cpu::update4([&slot.param, &slot.ema, &slot.m, &slot.v], |[p, ema, m, v]| {
                let chunks = p.par_chunks_mut(cpu::CHUNK).zip(ema.par_chunks_mut(cpu::CHUNK));
                let moments = m.par_chunks_mut(cpu::CHUNK).zip(v.par_chunks_mut(cpu::CHUNK));
                chunks.zip(moments).zip(g.par_chunks(cpu::CHUNK)).for_each(|(((p, ema), (m, v)), g)| {
                    apply(&factors, p, ema, m, v, g);
                });
            })?;
        }
        self.follow_statistics(factors.ema)
    }

    /// Running statistics are averaged like weights.
    fn follow_statistics(&self, ema: f32) -> Result<()> {
        self.statistics.iter().try_for_each(|(value, average)| follow(average, value, 1.0 - ema))
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16]; // which vector code may keep side by side
    for values in values.chunks(16) {
        values.iter().zip(&mut sums).for_each(|(&v, sum)| *sum += f64::from(v) * f64::from(v));
    }
    sums.iter().sum()
}

struct Factors {
    beta1: f32,
    beta2: f32,
    scale: f32,
    decay: f32,
    step: f32,
    bias2: f32,
    eps: f32,
    ema: f32,
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn apply(factors: &Factors, p: &mut [f32], ema: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    for ((((p, ema), m), v), g) in p.iter_mut().zip(ema).zip(m).zip(v).zip(g) {
        let g = g * factors.scale;
        *m = factors.beta1 * *m + (1.0 - factors.beta1) * g;
        *v = factors.beta2 * *v + (1.0 - factors.beta2) * g * g;
        *p = *p * factors.decay - factors.step * *m / (v.sqrt() / factors.bias2 + factors.eps);
        *ema += (1.0 - factors.ema) * (*p - *ema);
    }
}
