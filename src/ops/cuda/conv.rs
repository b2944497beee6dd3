//! Convolution with what stands around it: what is convolved is prepared, a library multiplies, one kernel adds bias and
//! residual.

use candle_core::{DType, Tensor};

use super::input::Prepared;
use super::{Gpu, Matrix, Pass, cast, column_sums, of_type};
use crate::error::Result;
use crate::ops::conv::{Convolution, Input};
use crate::ops::cpu::conv::ConvShape;
use crate::ops::tape::{InputGradients, Tape, Value};

/// What one call keeps for its backward pass.
struct Op {
    gpu: Gpu,
    shape: ConvShape,
    /// Of the products' operands.
    dtype: DType,
    input: Prepared,
    /// As it is multiplied.
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
    let dtype = super::gpu::precision().dtype();
    let op = Op {
        dtype,
        input: Prepared::new(&gpu, input, [shape.batch, shape.height, shape.width, shape.in_channels])?,
        weight: cast(&gpu, weight.tensor(), dtype)?,
        weight_dims: weight.dims().to_vec(),
        has_bias: options.bias.is_some(),
        residual: options.residual.map(|r| r.tensor().dtype()),
        shape,
        gpu,
    };
    let out = op.forward(options)?;
    tape.count_flops(2 * out.elem_count() * op.shape.patch_len());
    let of_input = input.values();
    let mut inputs: Vec<&Value> = of_input.iter().collect();
    inputs.push(weight);
    inputs.extend(options.bias);
    inputs.extend(options.residual);
    Ok(tape.record(out, &inputs, move |gradient| op.backward(gradient)))
}

impl Op {
    fn forward(&self, options: Convolution) -> Result<Tensor> {
        let s = &self.shape;
        let dtype = if options.f32_output { DType::F32 } else { self.dtype };
        let out = self.gpu.empty(&[s.batch, s.out_height(), s.out_width(), s.out_channels], dtype)?;
        self.multiply(Pass::Forward, &self.input.values, &self.weight, &out)?;
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
        let dx = self.input.needs_gradient().then(|| self.input_gradient(&dy)).transpose()?;
        let mut found = self.input.gradients(dx)?;
        // cuBLAS sums bf16 to f32; cuDNN does not.
        let dtype = if self.is_product() { DType::F32 } else { self.dtype };
        let weight = gpu.empty(&self.weight_dims, dtype)?;
        self.multiply(Pass::Weight, &self.input.values, &weight, &dy)?;
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

    /// That of what is convolved.
    fn input_gradient(&self, dy: &Tensor) -> Result<Tensor> {
        let dx = self.gpu.empty(self.input.values.dims(), self.dtype)?;
        self.multiply(Pass::Input, &dx, &self.weight, dy)?;
        Ok(dx)
    }
}
