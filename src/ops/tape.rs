//! Reverse-mode differentiation over candle tensors.
//!
//! candle's own `backward` makes and adds a zero tensor for every input of every op, and keeps all activations to the
//! end. Here an op computes its output outside candle's graph and records one closure that turns the gradient of its
//! output into the gradients of its inputs. The first gradient to reach a value is moved in, later ones are added in
//! place, and whatever a closure saved is freed as soon as it has run.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use candle_core::{DType, Tensor, TensorId};

use crate::error::Result;
use crate::fail;
use crate::ops::cpu;
#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::ops::cuda;

/// The gradients of an op's inputs, in the order of the inputs; `None` where an input needs none.
///
/// Each tensor must be owned by the tape alone (no two of them share storage), because later gradients are added to it
/// in place.
pub type InputGradients = Vec<Option<Tensor>>;

type Backward = Box<dyn FnOnce(Tensor) -> Result<InputGradients>>;

enum Node {
    Leaf(TensorId),
    Op { inputs: Vec<Option<usize>>, backward: Backward },
}

/// A tensor that an op made or takes, and its place on the tape if a gradient can flow through it.
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    node: Option<usize>,
}

impl Value {
    /// A value through which no gradient flows.
    pub fn constant(tensor: Tensor) -> Self {
        Value { tensor, node: None }
    }

    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub fn needs_gradient(&self) -> bool {
        self.node.is_some()
    }

    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// (batch, height, width, channels) of an NHWC value.
    pub fn nhwc(&self) -> Result<(usize, usize, usize, usize)> {
        Ok(self.tensor.dims4()?)
    }

    /// The value of a one-element tensor, read back to the host.
    pub fn scalar(&self) -> Result<f32> {
        Ok(self.tensor.flatten_all()?.get(0)?.to_dtype(DType::F32)?.to_scalar::<f32>()?)
    }
}

/// The record of one forward pass.
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
    leaves: RefCell<HashMap<TensorId, usize>>,
    recording: bool,
    flops: Cell<u64>,
}

impl Tape {
    /// A tape that records, for training.
    pub fn recording() -> Self {
        Self::new(true)
    }

    /// A tape that records nothing: activations are freed as soon as the next op has read them.
    pub fn inference() -> Self {
        Self::new(false)
    }

    fn new(recording: bool) -> Self {
        Tape { nodes: RefCell::default(), leaves: RefCell::default(), recording, flops: Cell::new(0) }
    }

    /// Whether it is for training.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Counts the multiplications and additions of a matrix product.
    pub fn count_flops(&self, flops: usize) {
        self.flops.set(self.flops.get() + flops as u64);
    }

    /// Floating-point operations of all matrix products of the forward pass so far.
    pub fn flops(&self) -> u64 {
        self.flops.get()
    }

    /// A trainable tensor; every use of the same tensor adds to the same gradient.
    pub fn param(&self, tensor: &Tensor) -> Value {
        if !self.recording {
            return Value::constant(tensor.clone());
        }
        let node = *self.leaves.borrow_mut().entry(tensor.id()).or_insert_with(|| {
            let mut nodes = self.nodes.borrow_mut();
            nodes.push(Node::Leaf(tensor.id()));
            nodes.len() - 1
        });
        Value { tensor: tensor.clone(), node: Some(node) }
    }

    /// Records an op. `backward` gets the gradient of `output` and returns those of `inputs`.
    pub fn record(
        &self,
        output: Tensor,
        inputs: &[&Value],
        backward: impl FnOnce(Tensor) -> Result<InputGradients> + 'static,
    ) -> Value {
        let inputs: Vec<_> = inputs.iter().map(|v| v.node).collect();
        if !self.recording || inputs.iter().all(Option::is_none) {
            return Value::constant(output);
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node::Op { inputs, backward: Box::new(backward) });
        Value { tensor: output, node: Some(nodes.len() - 1) }
    }

    /// The gradients of the scalar `loss` with respect to every [`Tape::param`] that it depends on.
    pub fn backward(self, loss: &Value) -> Result<Gradients> {
        let mut nodes = self.nodes.into_inner();
        let mut pending: Vec<Option<Tensor>> = vec![None; nodes.len()];
        let mut found = HashMap::new();
        if let Some(root) = loss.node {
            pending[root] = Some(loss.tensor.ones_like()?);
        }
        while let Some(node) = nodes.pop() {
            let Some(gradient) = pending.pop().flatten() else { continue };
            match node {
                Node::Leaf(id) => {
                    found.insert(id, gradient);
                }
                Node::Op { inputs, backward } => {
                    for (input, gradient) in inputs.into_iter().zip(backward(gradient)?) {
                        let (Some(input), Some(gradient)) = (input, gradient) else { continue };
                        match &pending[input] {
                            None => pending[input] = Some(gradient),
                            Some(sum) => add_assign(sum, &gradient)?,
                        }
                    }
                }
            }
        }
        Ok(Gradients(found))
    }
}

/// `target += addend`, in place.
fn add_assign(target: &Tensor, addend: &Tensor) -> Result<()> {
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(target) {
        return cuda::add_assign(&gpu, target, addend);
    }
    cpu::add_assign(target, addend)
}

/// The gradients that [`Tape::backward`] found.
#[derive(Debug)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// Adds the gradients of another loss, in place.
    pub fn add(&mut self, others: Gradients) -> Result<()> {
        // In any order: each has a sum of its own.
        others.0.into_iter().try_for_each(|(id, gradient)| match self.0.get(&id) {
            Some(sum) => add_assign(sum, &gradient),
            None => {
                self.0.insert(id, gradient);
                Ok(())
            }
        })
    }

    /// The gradient of a trainable tensor; an error if the loss did not depend on it.
    pub fn get(&self, param: &Tensor) -> Result<&Tensor> {
        match self.0.get(&param.id()) {
            Some(gradient) => Ok(gradient),
            None => fail!("a parameter of shape {:?} got no gradient: the loss does not depend on it", param.dims()),
        }
    }
}
