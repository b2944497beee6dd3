//! What a layer reads, made by one kernel: values joined, normalized, activated and resampled; and the way back.

use candle_core::{DType, Tensor};

use super::{Args, COLUMNS, Gpu, THREADS, cast, column_sums, of_type};
use crate::error::Result;
use crate::fail;
use crate::ops::conv::{Input, Norm};
use crate::ops::cpu::input::Resample;
use crate::ops::cpu::norm::Activation;
use crate::ops::tape::{InputGradients, Tape, Value};

/// An input as it is multiplied, with what the way back needs.
pub struct Prepared {
    gpu: Gpu,
    input: Input,
    /// (B, H, W, C), resampled.
    dims: [usize; 4],
    /// Those of the input, as the networks compute.
    parts: Vec<Tensor>,
    /// (B, groups, 2): mean and 1 / std; none without normalization.
    statistics: Option<Tensor>,
    /// (B, H, W, C): the input itself, where nothing is to be done.
    pub values: Tensor,
}

impl Prepared {
    /// Of an input of these sizes, which have been checked.
    pub fn new(gpu: &Gpu, input: &Input, dims: [usize; 4]) -> Result<Self> {
        if input.parts.len() > 2 {
            fail!("{} joined inputs; the GPU's kernels take at most two", input.parts.len());
        }
        let dtype = super::gpu::precision().dtype();
        let parts: Vec<Tensor> =
            input.parts.iter().map(|part| cast(gpu, part.tensor(), dtype)).collect::<Result<_>>()?;
        let values = parts[0].clone();
        let mut this = Prepared { gpu: gpu.clone(), input: input.clone(), dims, parts, statistics: None, values };
        this.statistics = this.measure()?;
        if !this.is_plain() {
            this.values = this.prepare()?;
        }
        Ok(this)
    }

    /// Whether the layer reads one value as it is.
    fn is_plain(&self) -> bool {
        matches!((&self.parts[..], &self.input.norm, self.input.resample), ([_], None, Resample::Keep))
    }

    /// The tensors and sizes that kernels/input.cu begins its arguments with.
    fn arguments(&self) -> ([Option<&Tensor>; 6], [usize; 8]) {
        let norm = self.input.norm.as_ref();
        let values = [norm.map(|n| n.gamma.tensor()), norm.map(|n| n.beta.tensor())];
        let scale_shift = norm.and_then(|n| n.scale_shift.as_ref()).map(Value::tensor);
        let (height, width, first) = match *self.parts[0].dims() {
            [_, height, width, channels] => (height, width, channels),
            _ => (0, 0, 0), // shapes have been checked
        };
        let resample = match self.input.resample {
            Resample::Keep => 0,
            Resample::Upsample => 1,
            Resample::Pool => 2,
        };
        let [batch, _, _, channels] = self.dims;
        // To the kernels no groups are no norm: without normalization each channel is one.
        let groups = norm.map_or(0, |norm| if norm.groups == 0 { channels } else { norm.groups });
        let act = number(norm.map_or(Activation::Identity, |n| n.act));
        (
            [Some(&self.parts[0]), self.parts.get(1), self.statistics.as_ref(), values[0], values[1], scale_shift],
            [batch, height, width, first, channels, groups, act, resample],
        )
    }

    /// Means and deviations of the input's groups.
    fn measure(&self) -> Result<Option<Tensor>> {
        let Some(norm) = self.input.norm.as_ref().filter(|norm| norm.groups > 0) else { return Ok(None) };
        let [batch, _, _, channels] = self.dims;
        let statistics = self.gpu.empty(&[batch, norm.groups, 2], DType::F32)?;
        let (tensors, sizes) = self.arguments();
        let each = (COLUMNS / (channels / norm.groups)).clamp(1, norm.groups);
        let tensors = [&tensors[..], &[Some(&statistics)]].concat();
        let args = Args::new(&tensors, &[&sizes[..], &[each]].concat(), &[norm.eps])?;
        let blocks = [norm.groups.div_ceil(each), batch, 1];
        self.gpu.launch(&of_type("statistics", self.parts[0].dtype()), blocks, THREADS, &args)?;
        Ok(Some(statistics))
    }

    fn prepare(&self) -> Result<Tensor> {
        let out = self.gpu.empty(&self.dims, self.parts[0].dtype())?;
        let (tensors, sizes) = self.arguments();
        let tensors = [&tensors[..], &[Some(&out)]].concat();
        self.gpu.each(&of_type("prepare", out.dtype()), out.elem_count(), &tensors, &sizes, &[])?;
        Ok(out)
    }

    /// Frees what was read, where the way back does not need it.
    pub fn forget_values(&mut self) {
        self.values = self.parts[0].clone();
    }

    /// Whether the gradient of anything in it is wanted.
    pub fn needs_gradient(&self) -> bool {
        self.input.values().iter().any(Value::needs_gradient)
    }

    /// The gradients of its parts and of the norm's values, from `dx`, that of what is read; or none of each.
    pub fn gradients(&self, dx: Option<Tensor>) -> Result<InputGradients> {
        let gpu = &self.gpu;
        let Some(dx) = dx else { return Ok(vec![None; self.input.values().len()]) };
        if self.is_plain() {
            return Ok(vec![Some(cast(gpu, &dx, self.input.parts[0].tensor().dtype())?)]);
        }
        let (tensors, sizes) = self.arguments();
        let (factors, of_norm) = match &self.input.norm {
            Some(norm) => {
                let (factors, found) = self.norm_gradients(&dx, norm)?;
                (Some(factors), found)
            }
            None => (None, Vec::new()),
        };
        let mut found = Vec::new();
        for (value, part) in self.input.parts.iter().zip(&self.parts) {
            let wanted = value.needs_gradient();
            found.push(wanted.then(|| gpu.empty(part.dims(), dx.dtype())).transpose()?);
        }
        let second = found.get(1).and_then(Option::as_ref);
        let tensors = [&tensors[..], &[Some(&dx), factors.as_ref(), found[0].as_ref(), second]].concat();
        let n: usize = self.parts.iter().map(Tensor::elem_count).sum();
        gpu.each(&of_type("input_gradient", dx.dtype()), n, &tensors, &sizes, &[])?;
        let like =
            |(dx, part): (Option<Tensor>, &Value)| dx.map(|dx| cast(gpu, &dx, part.tensor().dtype())).transpose();
        let parts = found.into_iter().zip(&self.input.parts).map(like);
        parts.chain(of_norm.into_iter().map(|g| Ok(Some(g)))).collect()
    }

    /// From the gradient of what is read: the factors of the input's gradient (B, 3, C), and the gradients of gamma,
    /// beta and, if there, scale and shift.
    fn norm_gradients(&self, dx: &Tensor, norm: &Norm) -> Result<(Tensor, Vec<Tensor>)> {
        let (gpu, [batch, _, _, c]) = (&self.gpu, self.dims);
        let (tensors, sizes) = self.arguments();
        let sums = gpu.empty(&[batch, 2, c], DType::F32)?;
        let args = Args::new(&[&tensors[..], &[Some(dx), Some(&sums)]].concat(), &sizes, &[])?;
        gpu.launch(&of_type("norm_sums", dx.dtype()), [c.div_ceil(COLUMNS), batch, 1], THREADS, &args)?;
        let factors = gpu.empty(&[batch, 3, c], DType::F32)?;
        let parts = gpu.empty(&[batch, 2 * c], DType::F32)?;
        let of_scale = norm.scale_shift.is_some().then(|| gpu.empty(&[batch, 2 * c], DType::F32)).transpose()?;
        let outputs = [Some(&sums), Some(&factors), Some(&parts), of_scale.as_ref()];
        gpu.each("norm_factors", batch * c, &[&tensors[..], &outputs].concat(), &sizes, &[])?;
        let both = column_sums(gpu, &parts, batch, 2 * c)?;
        // Copies, for gradients are added to in place.
        let mut found = vec![both.narrow(0, 0, c)?.copy()?, both.narrow(0, c, c)?.copy()?];
        found.extend(of_scale);
        Ok((factors, found))
    }
}

/// As the kernels number them.
pub fn number(act: Activation) -> usize {
    match act {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Silu => 2,
        Activation::Gelu => 3,
    }
}

/// (rows, ca) and (rows, cb) side by side: the kernels of a joined input.
pub fn concat(tape: &Tape, gpu: Gpu, (a, ca): (&Value, usize), (b, cb): (&Value, usize)) -> Result<Value> {
    let dtype = a.tensor().dtype();
    if b.tensor().dtype() != dtype {
        fail!("concat: {:?} and {:?} differ in their types", dtype, b.tensor().dtype());
    }
    let (rows, all) = (a.tensor().elem_count() / ca, ca + cb);
    let dims = [&a.dims()[..a.dims().len() - 1], &[all]].concat();
    let sizes = [rows, 1, 1, ca, all, 0, 0, 0];
    let out = gpu.empty(&dims, dtype)?;
    let mut tensors = [None; 10];
    (tensors[0], tensors[1], tensors[6]) = (Some(a.tensor()), Some(b.tensor()), Some(&out));
    gpu.each(&of_type("prepare", dtype), rows * all, &tensors, &sizes, &[])?;
    let (dims_a, dims_b) = (a.dims().to_vec(), b.dims().to_vec());
    Ok(tape.record(out, &[a, b], move |gradient| {
        let (da, db) = (gpu.empty(&dims_a, dtype)?, gpu.empty(&dims_b, dtype)?);
        let mut tensors = [None; 10];
        (tensors[6], tensors[8], tensors[9]) = (Some(&gradient), Some(&da), Some(&db));
        gpu.each(&of_type("input_gradient", dtype), rows * all, &tensors, &sizes, &[])?;
        Ok(vec![Some(da), Some(db)])
    }))
}
