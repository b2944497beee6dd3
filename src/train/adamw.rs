//! AdamW with visible state, and the EMA of the weights, in one pass over each parameter.

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::error::Result;
use crate::nn::Params;
use crate::ops::Gradients;
use crate::ops::cpu::{self, Floats};

/// AdamW (Loshchilov and Hutter 2019, algorithm 2) with PyTorch's order of operations, and an exponential moving
/// average of the weights (Karras et al. 2023, section 3, for why).
pub struct AdamW {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    slots: Vec<Slot>,
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
    /// Factor of all gradients (clipping).
    pub gradient_scale: f64,
    pub ema_decay: f64,
}

impl AdamW {
    /// `ema` holds parameters of the same names and shapes as `params`.
    pub fn new(params: &Params, ema: &Params, weight_decay: f64) -> Result<Self> {
        let slot = |((name, param), (_, ema)): ((String, Tensor), (String, Tensor))| {
            Ok(Slot { m: param.zeros_like()?, v: param.zeros_like()?, name, param, ema })
        };
        let slots = params.named().into_iter().zip(ema.named()).map(slot).collect::<Result<_>>()?;
        Ok(AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay, slots })
    }

    /// The moments as (name, tensor) pairs: "m.NAME" and "v.NAME". The tensors are the live ones.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let pair = |s: &Slot| [(format!("m.{}", s.name), s.m.clone()), (format!("v.{}", s.name), s.v.clone())];
        self.slots.iter().flat_map(pair).collect()
    }

    /// The L2 norm of all gradients together.
    pub fn gradient_norm(&self, gradients: &Gradients) -> Result<f64> {
        let mut total = 0.0;
        for slot in &self.slots {
            let g = Floats::of(gradients.get(&slot.param)?)?;
            let sums: Vec<f64> = g.par_chunks(cpu::CHUNK).map(sum_of_squares).collect();
            total += sums.iter().sum::<f64>();
        }
        Ok(total.sqrt())
    }

    /// Updates all parameters and their averages.
    pub fn step(&mut self, gradients: &Gradients, sizes: StepSizes) -> Result<()> {
        let t = (sizes.step + 1) as f64;
        let bias2 = (1.0 - self.beta2.powf(t)).sqrt();
        let factors = Factors {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            scale: sizes.gradient_scale as f32,
            decay: (1.0 - sizes.learning_rate * self.weight_decay) as f32,
            step: (sizes.learning_rate / (1.0 - self.beta1.powf(t))) as f32,
            bias2: bias2 as f32,
            eps: self.eps as f32,
            ema: sizes.ema_decay as f32,
        };
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
        Ok(())
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
