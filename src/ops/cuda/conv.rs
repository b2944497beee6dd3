//! Convolution with what stands around it: one kernel makes what is convolved, a library multiplies, one kernel adds bias
//! and residual.

use candle_core::{DType, Tensor};

use super::{Args, COLUMNS, Gpu, Matrix, Pass, THREADS, cast, column_sums, of_type};
use crate::error::Result;
use crate::fail;
use crate::ops::conv::{Convolution, Input, Norm};
use crate::ops::cpu::conv::ConvShape;
use crate::ops::cpu::input::Resample;
use crate::ops::cpu::norm::Activation;
use crate::ops::tape::{InputGradients, Tape, Value};

/// What one call keeps for its backward pass.
struct Op {
    gpu: Gpu,
    shape: ConvShape,
    input: Input,
    /// Of the products' operands.
    dtype: DType,
    parts: Vec<Tensor>,
    /// (B, groups, 2): mean and 1 / std.
    statistics: Option<Tensor>,
    /// What is convolved, and the weight, as they are multiplied.
    prepared: Tensor,
    weight: Tensor,
    weight_dims: Vec<usize>,
    has_bias: bool,
    residual: Option<DType>,
}

/// See [`crate::ops::conv2d`]; `shape` has been checked.
pub(in crate::ops) fn conv2d(
    tape: &Tape,
    gpu: Gpu,
    shape: ConvShape,
    input: &Input,
    weight: &Value,
    options: Convolution,
) -> Result<Value> {
    if input.parts.len() > 2 {
        fail!("conv2d: {} joined inputs; the GPU's kernels take at most two", input.parts.len());
    }
    let dtype = super::gpu::precision().dtype();
    let parts: Vec<Tensor> = input.parts.iter().map(|part| cast(&gpu, part.tensor(), dtype)).collect::<Result<_>>()?;
    let statistics = measure(&gpu, &shape, input, &parts)?;
    let prepared = prepare(&gpu, &shape, input, &parts, statistics.as_ref())?;
    let op = Op {
        dtype,
        parts,
        statistics,
        prepared,
        weight: cast(&gpu, weight.tensor(), dtype)?,
        weight_dims: weight.dims().to_vec(),
        has_bias: options.bias.is_some(),
        residual: options.residual.map(|r| r.tensor().dtype()),
        input: input.clone(),
        shape,
        gpu,
    };
    let out = op.forward(options)?;
    tape.count_flops(2 * out.elem_count() * op.shape.patch_len());
    let mut inputs: Vec<&Value> = input.parts.iter().collect();
    if let Some(norm) = &input.norm {
        inputs.extend([&norm.gamma, &norm.beta]);
        inputs.extend(&norm.scale_shift);
    }
    inputs.push(weight);
    inputs.extend(options.bias);
    inputs.extend(options.residual);
    Ok(tape.record(out, &inputs, move |gradient| op.backward(gradient)))
}

/// The tensors and sizes that kernels/input.cu begins its arguments with.
fn arguments<'a>(
    shape: &ConvShape,
    input: &'a Input,
    parts: &'a [Tensor],
    statistics: Option<&'a Tensor>,
) -> ([Option<&'a Tensor>; 6], [usize; 8]) {
    let norm = input.norm.as_ref();
    let values = [norm.map(|n| n.gamma.tensor()), norm.map(|n| n.beta.tensor())];
    let scale_shift = norm.and_then(|n| n.scale_shift.as_ref()).map(Value::tensor);
    let (height, width, first) = match *parts[0].dims() {
        [_, height, width, channels] => (height, width, channels),
        _ => (0, 0, 0), // shapes have been checked
    };
    let act = match norm.map(|n| n.act) {
        None | Some(Activation::Identity) => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Silu) => 2,
        Some(Activation::Gelu) => 3,
    };
    let resample = match input.resample {
        Resample::Keep => 0,
        Resample::Upsample => 1,
        Resample::Pool => 2,
    };
    let groups = norm.map_or(0, |n| groups(n, shape));
    (
        [Some(&parts[0]), parts.get(1), statistics, values[0], values[1], scale_shift],
        [shape.batch, height, width, first, shape.in_channels, groups, act, resample],
    )
}

/// The groups of a norm for the kernels, to which none are no norm: without normalization each channel is one, whose
/// statistics are constants.
fn groups(norm: &Norm, shape: &ConvShape) -> usize {
    if norm.groups == 0 { shape.in_channels } else { norm.groups }
}

/// Means and deviations of the input's groups.
fn measure(gpu: &Gpu, shape: &ConvShape, input: &Input, parts: &[Tensor]) -> Result<Option<Tensor>> {
    let Some(norm) = &input.norm else { return Ok(None) };
    let (batch, channels) = (shape.batch, shape.in_channels);
    if norm.groups == 0 {
        let constants = [0.0f32, 1.0].repeat(batch * channels);
        return Ok(Some(Tensor::from_vec(constants, (batch, channels, 2), parts[0].device())?));
    }
    let statistics = gpu.empty(&[batch, norm.groups, 2], DType::F32)?;
    let (tensors, sizes) = arguments(shape, input, parts, None);
    let each = (COLUMNS / (channels / norm.groups)).clamp(1, norm.groups);
    let args = Args::new(&[&tensors[..], &[Some(&statistics)]].concat(), &[&sizes[..], &[each]].concat(), &[norm.eps])?;
    let blocks = [norm.groups.div_ceil(each), batch, 1];
    gpu.launch(&of_type("statistics", parts[0].dtype()), blocks, THREADS, &args)?;
    Ok(Some(statistics))
}

/// What is convolved.
fn prepare(
    gpu: &Gpu,
    shape: &ConvShape,
    input: &Input,
    parts: &[Tensor],
    statistics: Option<&Tensor>,
) -> Result<Tensor> {
    if let ([part], None, Resample::Keep) = (parts, &input.norm, input.resample) {
        return Ok(part.clone());
    }
    let s = shape;
    let dims = [s.batch, s.height, s.width, s.in_channels];
    let out = gpu.empty(&dims, parts[0].dtype())?;
    let (tensors, sizes) = arguments(shape, input, parts, statistics);
    let tensors = [&tensors[..], &[Some(&out)]].concat();
    gpu.each(&of_type("prepare", out.dtype()), out.elem_count(), &tensors, &sizes, &[])?;
    Ok(out)
}

impl Op {
    fn forward(&self, options: Convolution) -> Result<Tensor> {
        let s = &self.shape;
        let dtype = if options.f32_output { DType::F32 } else { self.dtype };
        let out = self.gpu.empty(&[s.batch, s.out_height(), s.out_width(), s.out_channels], dtype)?;
        self.multiply(Pass::Forward, &self.prepared, &self.weight, &out)?;
        if options.bias.is_some() || options.residual.is_some() {
            let bias = options.bias.map(Value::tensor);
            let residual = options.residual.map(|r| cast(&self.gpu, r.tensor(), dtype)).transpose()?;
            let (n, name) = (out.elem_count(), of_type("finish", dtype));
            let tensors = [Some(&out), bias, residual.as_ref(), Some(&out)];
            self.gpu.each(&name, n, &tensors, &[n, s.out_channels], &[])?;
        }
        Ok(out)
    }

    /// Whether the convolution is a matrix product: its kernel covers one pixel, or all of them.
    fn is_product(&self) -> bool {
        let s = &self.shape;
        s.padding == 0 && (s.kernel == 1 && s.stride == 1 || s.kernel == s.height && s.kernel == s.width)
    }

    /// One of the three products, into the tensor that is not read: `y` from `x` and `weight`, `x` from the others, or
    /// `weight` from the others.
    fn multiply(&self, pass: Pass, x: &Tensor, weight: &Tensor, y: &Tensor) -> Result<()> {
        let s = &self.shape;
        if !self.is_product() {
            return self.convolve(pass, [x, weight, y]);
        }
        // cuBLAS stores columns, so that a matrix of ours is its own transpose there.
        let (inputs, outputs) = (s.patch_len(), s.out_channels);
        let rows = x.elem_count() / inputs;
        let (x, w, y) = (Matrix::new(x, inputs), Matrix::new(weight, inputs), Matrix::new(y, outputs));
        match pass {
            Pass::Forward => self.gpu.multiply([outputs, rows, inputs], w.transposed(), x, y),
            Pass::Input => self.gpu.multiply([inputs, rows, outputs], w, y, x),
            Pass::Weight => self.gpu.multiply([inputs, outputs, rows], x, y.transposed(), w),
        }
    }

    /// The same by cuDNN, which wants all three of one type: bf16 is widened where a result is f32.
    fn convolve(&self, pass: Pass, tensors: [&Tensor; 3]) -> Result<()> {
        let made = match pass {
            Pass::Forward => 2,
            Pass::Input => 0,
            Pass::Weight => 1,
        };
        let dtype = tensors[made].dtype();
        let [x, weight, y] = tensors.map(|t| cast(&self.gpu, t, dtype));
        self.gpu.convolve(pass, &self.shape, &x?, &weight?, &y?)
    }

    /// The gradients of the parts, of the norm's values, of weight, bias and residual.
    fn backward(self, gradient: Tensor) -> Result<InputGradients> {
        let (gpu, s) = (&self.gpu, &self.shape);
        let dy = cast(gpu, &gradient, self.dtype)?;
        let mut found = self.input_gradients(&dy)?;
        // cuBLAS sums bf16 to f32; cuDNN does not.
        let dtype = if self.is_product() { DType::F32 } else { self.dtype };
        let weight = gpu.empty(&self.weight_dims, dtype)?;
        self.multiply(Pass::Weight, &self.prepared, &weight, &dy)?;
        found.push(Some(cast(gpu, &weight, DType::F32)?));
        if self.has_bias {
            let rows = gradient.elem_count() / s.out_channels;
            found.push(Some(column_sums(gpu, &gradient, rows, s.out_channels)?));
        }
        if let Some(dtype) = self.residual {
            found.push(Some(cast(gpu, &gradient, dtype)?));
        }
        Ok(found)
    }

    /// The gradients of the parts and of the norm's values.
    fn input_gradients(&self, dy: &Tensor) -> Result<InputGradients> {
        let (gpu, shape, norm) = (&self.gpu, &self.shape, self.input.norm.as_ref());
        let values = norm.map(|n| [Some(&n.gamma), Some(&n.beta), n.scale_shift.as_ref()]);
        let of_norm: Vec<&Value> = values.into_iter().flatten().flatten().collect();
        if !self.input.parts.iter().chain(of_norm.iter().copied()).any(Value::needs_gradient) {
            return Ok(vec![None; self.parts.len() + of_norm.len()]);
        }
        let dx = gpu.empty(self.prepared.dims(), self.dtype)?;
        self.multiply(Pass::Input, &dx, &self.weight, dy)?;
        if let ([part], None, Resample::Keep) = (&self.input.parts[..], norm, self.input.resample) {
            return Ok(vec![Some(cast(gpu, &dx, part.tensor().dtype())?)]);
        }
        let (tensors, sizes) = arguments(shape, &self.input, &self.parts, self.statistics.as_ref());
        let (factors, of_norm) = match norm {
            Some(norm) => {
                let (factors, found) = self.norm_gradients(&dx, norm)?;
                (Some(factors), found)
            }
            None => (None, Vec::new()),
        };
        let mut found = Vec::new();
        for (value, part) in self.input.parts.iter().zip(&self.parts) {
            let wanted = value.needs_gradient();
            found.push(wanted.then(|| gpu.empty(part.dims(), self.dtype)).transpose()?);
        }
        let second = found.get(1).and_then(Option::as_ref);
        let tensors = [&tensors[..], &[Some(&dx), factors.as_ref(), found[0].as_ref(), second]].concat();
        let n: usize = self.parts.iter().map(Tensor::elem_count).sum();
        gpu.each(&of_type("input_gradient", self.dtype), n, &tensors, &sizes, &[])?;
        let like =
            |(dx, part): (Option<Tensor>, &Value)| dx.map(|dx| cast(gpu, &dx, part.tensor().dtype())).transpose();
        let parts = found.into_iter().zip(&self.input.parts).map(like);
        parts.chain(of_norm.into_iter().map(|g| Ok(Some(g)))).collect()
    }

    /// From the gradient of what is convolved: the factors of the input's gradient (B, 3, C), and the gradients of gamma,
    /// beta and, if there, scale and shift.
    fn norm_gradients(&self, dx: &Tensor, norm: &Norm) -> Result<(Tensor, Vec<Tensor>)> {
        let (gpu, s) = (&self.gpu, &self.shape);
        let (batch, c) = (s.batch, s.in_channels);
        let (tensors, sizes) = arguments(&self.shape, &self.input, &self.parts, self.statistics.as_ref());
        let sums = gpu.empty(&[batch, 2, c], DType::F32)?;
        let args = Args::new(&[&tensors[..], &[Some(dx), Some(&sums)]].concat(), &sizes, &[])?;
        gpu.launch(&of_type("norm_sums", self.dtype), [c.div_ceil(COLUMNS), batch, 1], THREADS, &args)?;
        let factors = gpu.empty(&[batch, 3, c], DType::F32)?;
        let parts = gpu.empty(&[batch, 2 * c], DType::F32)?;
        let of_scale = norm.scale_shift.is_some().then(|| gpu.empty(&[batch, 2 * c], DType::F32)).transpose()?;
        let outputs = [Some(&sums), Some(&factors), Some(&parts), of_scale.as_ref()];
        let measured = if norm.groups == 0 { 0.0 } else { 1.0 };
        gpu.each("norm_factors", batch * c, &[&tensors[..], &outputs].concat(), &sizes, &[measured])?;
        let both = column_sums(gpu, &parts, batch, 2 * c)?;
        // Copies, for gradients are added to in place.
        let mut found = vec![both.narrow(0, 0, c)?.copy()?, both.narrow(0, c, c)?.copy()?];
        found.extend(of_scale);
        Ok((factors, found))
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
