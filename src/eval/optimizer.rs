//! What updates a student's weights, as its protocol says.

use super::{OptimizerKind, Protocol, Sgd};
use crate::error::Result;
use crate::fail;
use crate::nn::Params;
use crate::ops::{Gradients, Value};
use crate::train::{AdamW, StepSizes};

/// The optimizer of one student.
pub enum Optimizer {
    Sgd(Sgd),
    AdamW(Box<Adam>),
}

/// AdamW with its learning rate and the number of its steps.
pub struct Adam {
    optimizer: AdamW,
    lr: f32,
    steps: u64,
}

impl Optimizer {
    /// An optimizer of all parameters with `protocol`'s first learning rate. `average` has parameters of the same names
    /// and shapes: AdamW keeps an average of the weights there, which no student uses; SGD leaves it alone.
    pub fn new(params: &Params, average: &Params, protocol: &Protocol) -> Result<Self> {
        Ok(match protocol.optimizer {
            OptimizerKind::Sgd => Optimizer::Sgd(Sgd::new(params, protocol)?),
            OptimizerKind::Adamw => {
                let mut optimizer = AdamW::new(params, average, f64::from(protocol.weight_decay))?;
                optimizer.beta2 = 0.999;
                Optimizer::AdamW(Box::new(Adam { optimizer, lr: protocol.lr, steps: 0 }))
            }
        })
    }

    pub fn lr(&self) -> f32 {
        match self {
            Optimizer::Sgd(sgd) => sgd.lr(),
            Optimizer::AdamW(adam) => adam.lr,
        }
    }

    pub fn set_lr(&mut self, lr: f32) {
        match self {
            Optimizer::Sgd(sgd) => sgd.set_lr(lr),
            Optimizer::AdamW(adam) => adam.lr = lr,
        }
    }

    /// One update of every parameter, in place, by the gradients of `loss`.
    ///
    /// # Errors
    /// AdamW: the gradients are not finite, but the loss is.
    pub fn step(&mut self, loss: &Value, gradients: &Gradients) -> Result<()> {
        match self {
            Optimizer::Sgd(sgd) => sgd.step(gradients),
            Optimizer::AdamW(adam) => {
                let sizes = StepSizes {
                    step: adam.steps,
                    learning_rate: f64::from(adam.lr),
                    clip_norm: f64::INFINITY,
                    ema_decay: 0.0,
                };
                adam.steps += 1;
                let (loss, norm) = adam.optimizer.update(loss, gradients, sizes)?.read()?;
                if loss.is_finite() && !norm.is_finite() {
                    fail!(
                        "the gradient's norm at update {} is {norm}; lower the protocol's lr of {}",
                        adam.steps,
                        adam.lr
                    );
                }
                Ok(())
            }
        }
    }
}
