//! What updates a student's weights, as its protocol says.

use super::{OptimizerKind, Protocol, Sgd};
use crate::error::Result;
use crate::fail;
use crate::nn::Params;
use crate::ops::{Gradients, Value};
use crate::train::{AdamW, Figures, MOST_PENDING, StepSizes};

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
    /// Learning rates and figures of the last updates, not looked at yet.
    pending: Vec<(f32, Figures)>,
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
                Optimizer::AdamW(Box::new(Adam { optimizer, lr: protocol.lr, steps: 0, pending: Vec::new() }))
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
    /// AdamW: as [`Optimizer::check`], which a GPU need not have come to yet.
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
                let figures = adam.optimizer.update(loss, gradients, sizes)?;
                let known = matches!(figures, Figures::Read { .. });
                adam.pending.push((adam.lr, figures));
                if known || adam.pending.len() >= MOST_PENDING { self.check() } else { Ok(()) }
            }
        }
    }

    /// Looks at the updates since the last look, for which a GPU must have ended them.
    ///
    /// # Errors
    /// AdamW left one out, whose gradients are not finite though its loss is.
    pub fn check(&mut self) -> Result<()> {
        let Optimizer::AdamW(adam) = self else { return Ok(()) };
        let first = adam.steps + 1 - adam.pending.len() as u64;
        for (update, (lr, figures)) in (first..).zip(adam.pending.drain(..)) {
            let (loss, norm) = figures.read()?;
            if loss.is_finite() && !norm.is_finite() {
                fail!(
                    "the gradient's norm at update {update}, with a learning rate of {lr}, is {norm}; lower the protocol's lr"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn an_update_that_was_left_out_is_told_with_its_number_and_rate() {
        let protocol = Protocol::named("soft").unwrap();
        let params = Params::new(0, &Device::Cpu);
        let mut optimizer = Optimizer::new(&params, &params, &protocol).unwrap();
        let figures = |loss: f64, norm: f64| Figures::Read { loss, norm };
        let mut told = |pending: Vec<(f32, Figures)>| {
            let Optimizer::AdamW(adam) = &mut optimizer else { panic!("soft is trained by AdamW") };
            (adam.steps, adam.pending) = (40, pending);
            optimizer.check().err().map(|e| e.to_string())
        };
        let good = || (0.25, figures(1.0, 2.0));
        assert_eq!(told(vec![good(), good()]), None);
        let error = told(vec![good(), (0.5, figures(1.0, f64::INFINITY)), good()]).unwrap();
        assert!(error.contains("update 39") && error.contains("0.5") && error.contains("inf"), "{error}");
        // A loss that is not finite is told by who reads the losses.
        assert_eq!(told(vec![(0.5, figures(f64::NAN, f64::NAN))]), None);
    }
}
