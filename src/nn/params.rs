//! The trainable tensors of a network by name, initialized from named random streams.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use crate::error::Result;
use crate::fail;
use crate::rng::Rng;

type Vars = BTreeMap<String, Var>;

/// The last words in the names of statistics, which layers keep beside their parameters and no optimizer changes.
pub(super) const RUNNING_MEAN: &str = "running_mean";
pub(super) const RUNNING_VAR: &str = "running_var";

fn is_statistic(name: &str) -> bool {
    name.ends_with(RUNNING_MEAN) || name.ends_with(RUNNING_VAR)
}

/// A network's parameters. [`Params::builder`] creates them while the network is built; afterwards they are listed in
/// the order of their names, which is the order of the optimizer, the EMA and the files.
#[derive(Clone)]
pub struct Params {
    vars: Arc<Mutex<Vars>>,
    seed: u64,
    device: Device,
}

impl Params {
    pub fn new(seed: u64, device: &Device) -> Self {
        Params { vars: Arc::default(), seed, device: device.clone() }
    }

    /// The `VarBuilder` that networks are built with.
    pub fn builder(&self) -> VarBuilder<'static> {
        let backend = Backend { vars: self.vars.clone(), seed: self.seed };
        VarBuilder::from_backend(Box::new(backend), DType::F32, self.device.clone())
    }

    /// All parameters and statistics, sorted by name: what a file holds.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        lock(&self.vars).iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }

    /// All parameters, sorted by name: what an optimizer changes.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.named().into_iter().filter(|(name, _)| !is_statistic(name)).collect()
    }

    /// All statistics, sorted by name.
    pub fn statistics(&self) -> Vec<Tensor> {
        self.named().into_iter().filter(|(name, _)| is_statistic(name)).map(|(_, tensor)| tensor).collect()
    }

    /// The number of trainable values.
    pub fn count(&self) -> usize {
        self.trainable().iter().map(|(_, tensor)| tensor.elem_count()).sum()
    }

    /// Sets every parameter from `tensors`; names and shapes must match exactly, in both directions.
    pub fn assign(&self, tensors: &BTreeMap<String, Tensor>, source: &str) -> Result<()> {
        let vars = lock(&self.vars);
        if let Some(name) = tensors.keys().find(|name| !vars.contains_key(*name)) {
            fail!(
                "{source}: tensor {name} is not part of this network; it is of another configuration, train the stage again"
            );
        }
        for (name, var) in vars.iter() {
            match tensors.get(name) {
                Some(tensor) if tensor.shape() == var.shape() => var.set(tensor)?,
                Some(tensor) => fail!(
                    "{source}: tensor {name} has shape {:?}, expected {:?}; it is of another configuration, train the stage again",
                    tensor.dims(),
                    var.dims()
                ),
                None => fail!("{source}: tensor {name} is missing; train the stage again"),
            }
        }
        Ok(())
    }
}

/// The number of trainable values of the network that `build` makes; no memory is taken for them.
pub fn count<T>(build: impl FnOnce(VarBuilder<'static>) -> Result<T>) -> Result<usize> {
    let counter = Counter::default();
    build(VarBuilder::from_backend(Box::new(counter.clone()), DType::F32, Device::Cpu))?;
    Ok(counter.0.load(Ordering::Relaxed))
}

/// Adds up the sizes of the tensors that are asked for; each is one zero, repeated.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl SimpleBackend for Counter {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        if !is_statistic(name) {
            self.0.fetch_add(shape.elem_count(), Ordering::Relaxed);
        }
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: a layer must state its shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

fn lock(vars: &Mutex<Vars>) -> MutexGuard<'_, Vars> {
    vars.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Backend {
    vars: Arc<Mutex<Vars>>,
    seed: u64,
}

impl SimpleBackend for Backend {
    fn get(&self, shape: Shape, name: &str, init: Init, _: DType, device: &Device) -> candle_core::Result<Tensor> {
        let mut rng = Rng::stream(self.seed, &format!("init {name}"), 0, 0);
        let n = shape.elem_count();
        let values: Vec<f32> = match init {
            Init::Const(value) => vec![value as f32; n],
            Init::Uniform { lo, up } => (0..n).map(|_| rng.uniform_in(lo as f32, up as f32)).collect(),
            Init::Randn { mean, stdev } => rng.normal(n).iter().map(|v| mean as f32 + stdev as f32 * v).collect(),
            Init::Kaiming { .. } => candle_core::bail!("{name}: layers state the bounds of their initialization"),
        };
        let var = Var::from_vec(values, shape, device)?;
        let tensor = var.as_tensor().clone();
        match lock(&self.vars).insert(name.to_string(), var) {
            None => Ok(tensor),
            Some(_) => candle_core::bail!("two layers share the name {name}"),
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: a layer must state its shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        lock(&self.vars).contains_key(name)
    }
}
