//! AdamW with clipping and average, and SGD with momentum, beside their formulas in double precision.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{Allowed, Check};
use crate::error::Result;
use crate::eval::{Optimizer, Protocol};
use crate::nn::Params;
use crate::ops::check::{Finding, doubles, functional, largest, normal};
use crate::ops::{Gradients, Tape, Value, weighted_sum};
use crate::train::{AdamW, StepSizes};

const STEPS: u64 = 3;
/// Parameters of several shapes, one of them larger than what a task takes.
const SHAPES: [(&str, &[usize]); 3] = [("bias", &[5]), ("large", &[300, 251]), ("weight", &[7, 3, 3, 4])];
/// A statistic, which no gradient moves: the average follows it.
const STATISTIC: &str = "norm.running_mean";
/// Both compute in f32 whatever the networks do.
const ALLOWED: Allowed = Allowed { f32: 1e-5, tf32: 1e-5, bf16: 1e-5 };

pub fn checks() -> Vec<Check> {
    let check = |name: &str, run: fn(&Device) -> Result<Vec<Finding>>| Check {
        name: name.into(),
        shapes: "5, 300x251, 7x3x3x4".into(),
        allowed: ALLOWED,
        run: Box::new(run),
    };
    vec![check("adamw, clip and average, 3 steps", adamw), check("sgd, 3 steps", sgd)]
}

/// Parameters on the device, with a statistic of this value, and the same in double precision.
fn parameters(device: &Device, statistic: f32) -> Result<(Params, BTreeMap<String, Vec<f64>>)> {
    let params = Params::new(0, device);
    let builder = params.builder();
    let (mut tensors, mut exact) = (BTreeMap::new(), BTreeMap::new());
    for (name, dims) in SHAPES {
        builder.get(dims, name)?;
        let tensor = normal(name, 0, dims)?;
        exact.insert(name.to_string(), doubles(&tensor)?);
        tensors.insert(name.to_string(), tensor.to_device(device)?);
    }
    builder.get(2, STATISTIC)?;
    tensors.insert(STATISTIC.into(), Tensor::full(statistic, 2, device)?);
    exact.insert(STATISTIC.into(), vec![f64::from(statistic); 2]);
    params.assign(&tensors, "check")?;
    Ok((params, exact))
}

/// A loss and its gradients in `step`: random ones, the same on every device.
fn gradients(params: &Params, step: u64) -> Result<(Value, Gradients, BTreeMap<String, Vec<f64>>)> {
    let tape = Tape::recording();
    let (mut terms, mut exact) = (Vec::new(), BTreeMap::new());
    for (name, param) in params.trainable() {
        let weights = normal(&format!("gradient of {name}"), step as usize, param.dims())?;
        exact.insert(name, doubles(&weights)?);
        terms.push(functional(&tape, &tape.param(&param), &weights)?);
    }
    let terms: Vec<(&Value, f32)> = terms.iter().map(|term| (term, 1.0)).collect();
    let loss = weighted_sum(&tape, &terms)?;
    let found = tape.backward(&loss)?;
    Ok((loss, found, exact))
}

fn compared(what: &str, found: &Params, expected: &BTreeMap<String, Vec<f64>>) -> Result<Vec<Finding>> {
    let of = |(name, tensor): (String, Tensor)| {
        let expected = &expected[&name];
        Finding::between(format!("{what} {name}"), &doubles(&tensor)?, expected, largest(expected, 1e-6))
    };
    found.named().into_iter().map(of).collect()
}

/// Loshchilov and Hutter (2019), algorithm 2; gradients clipped to their L2 norm; an average of the weights.
fn adamw(device: &Device) -> Result<Vec<Finding>> {
    let ((params, mut p), (ema, mut average)) = (parameters(device, 3.0)?, parameters(device, 1.0)?);
    let mut optimizer = AdamW::new(&params, &ema, 0.1)?;
    let (beta1, beta2, eps, decay, lr, clip, kept) = (0.9, 0.99, 1e-8, 0.1, 1e-2, 1.0, 0.9);
    let (mut m, mut v) = (BTreeMap::new(), BTreeMap::new());
    let mut norms = Vec::new();
    for step in 0..STEPS {
        let (loss, found, exact) = gradients(&params, step)?;
        let sizes = StepSizes { step, learning_rate: lr, clip_norm: clip, ema_decay: kept };
        let (_, norm) = optimizer.update(&loss, &found, sizes)?.read()?;
        let expected = exact.values().flatten().map(|g| g * g).sum::<f64>().sqrt();
        norms.push(Finding::between("the gradients' norm", &[norm], &[expected], expected)?);
        let t = (step + 1) as i32;
        for (name, g) in &exact {
            let m = m.entry(name.clone()).or_insert(vec![0.0; g.len()]);
            let v = v.entry(name.clone()).or_insert(vec![0.0; g.len()]);
            let (p, average) = (p.entry(name.clone()).or_default(), average.entry(name.clone()).or_default());
            for (i, g) in g.iter().enumerate() {
                let g = g * (clip / expected).min(1.0);
                m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                let (m, v) = (m[i] / (1.0 - f64::powi(beta1, t)), v[i] / (1.0 - f64::powi(beta2, t)));
                p[i] -= lr * (decay * p[i] + m / (v.sqrt() + eps));
                average[i] += (1.0 - kept) * (p[i] - average[i]);
            }
        }
        let statistic = &p[STATISTIC];
        let averages = average.entry(STATISTIC.into()).or_default();
        averages.iter_mut().zip(statistic).for_each(|(a, s)| *a += (1.0 - kept) * (s - *a));
    }
    Ok([norms, compared("parameter", &params, &p)?, compared("average of", &ema, &average)?].concat())
}

/// As PyTorch has it: v = momentum v + g + decay p; p = p - lr v.
fn sgd(device: &Device) -> Result<Vec<Finding>> {
    let (params, mut p) = parameters(device, 3.0)?;
    let protocol = Protocol { lr: 0.1, momentum: 0.9, weight_decay: 0.01, ..Protocol::named("challenge")? };
    let (lr, momentum, decay) =
        (f64::from(protocol.lr), f64::from(protocol.momentum), f64::from(protocol.weight_decay));
    let mut optimizer = Optimizer::new(&params, &Params::new(0, device), &protocol)?;
    let mut velocities = BTreeMap::new();
    for step in 0..STEPS {
        let (loss, found, exact) = gradients(&params, step)?;
        optimizer.step(&loss, &found)?;
        for (name, g) in &exact {
            let velocity = velocities.entry(name.clone()).or_insert(vec![0.0; g.len()]);
            for ((p, v), g) in p.entry(name.clone()).or_default().iter_mut().zip(velocity).zip(g) {
                *v = momentum * *v + g + decay * *p;
                *p -= lr * *v;
            }
        }
    }
    compared("parameter", &params, &p)
}
