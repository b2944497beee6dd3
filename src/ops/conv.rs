//! Convolution and linear layers, with what stands between two of them: norm, activation, resampling and the join of
//! skips on the way in, bias and residual on the way out.

use candle_core::{DType, Tensor};
use half::bf16;

use super::cpu::conv::{self as kernel, ConvShape};
use super::cpu::element::Element;
use super::cpu::input::{self, Resample};
use super::cpu::isa::{self, Precision};
use super::cpu::norm::{self, Activation, Pixels};
use super::cpu::{Floats, Values, cast, tensor};
#[cfg(any(feature = "cuda", cuda_emulated))]
use super::cuda;
use super::tape::{InputGradients, Tape, Value};
use crate::error::Result;
use crate::fail;

/// act((x_hat gamma + beta) (1 + scale) + shift), where x_hat is normalized over each image's `groups` groups of channels
/// (Wu and He 2018; the scale-shift as in Dhariwal and Nichol 2021, eq. 9).
#[derive(Clone, Debug)]
pub struct Norm {
    /// (C)
    pub gamma: Value,
    /// (C)
    pub beta: Value,
    /// (B, 2C), scale first.
    pub scale_shift: Option<Value>,
    /// As many as channels is instance normalization; with 0 groups x_hat is x.
    pub groups: usize,
    pub act: Activation,
    pub eps: f32,
}

/// What a convolution reads: one value (B, H, W, C) or several joined along their channels, then normalized, then
/// resampled by a factor of two.
#[derive(Clone, Debug)]
pub struct Input {
    pub(super) parts: Vec<Value>,
    pub(super) norm: Option<Norm>,
    pub(super) resample: Resample,
}

impl Input {
    pub fn of(x: &Value) -> Self {
        Input { parts: vec![x.clone()], norm: None, resample: Resample::Keep }
    }

    /// The same with the channels of `x` after its own.
    pub fn join(mut self, x: &Value) -> Self {
        self.parts.push(x.clone());
        self
    }

    pub fn normalized(self, norm: Norm) -> Self {
        Input { norm: Some(norm), ..self }
    }

    /// Nearest-neighbour up-sampling, of an input that is not normalized.
    pub fn upsampled(self) -> Self {
        Input { resample: Resample::Upsample, ..self }
    }

    /// 2 x 2 average pooling of a normalized input; an odd last row or column is left out.
    pub fn pooled(self) -> Self {
        Input { resample: Resample::Pool, ..self }
    }

    /// Calls `f` with what the kernels read; `parts` are this input's, as elements E.
    pub(super) fn with_kernel<E: Element, T>(
        &self,
        parts: &[Tensor],
        f: impl FnOnce(&input::Input<E>) -> Result<T>,
    ) -> Result<T> {
        let [_, height, width, _] = self.dims()?;
        let values: Vec<Values<E>> = parts.iter().map(Values::of).collect::<Result<_>>()?;
        let parts = values.iter().zip(parts);
        let parts = parts.map(|(values, part)| Ok(Pixels { values: &values[..], channels: part.dim(3)? }));
        let parts = parts.collect::<Result<_>>()?;
        let floats = |v: &Value| Floats::of(v.tensor()).map(|floats| floats.to_vec());
        let norm = self.norm.as_ref();
        let vectors = norm.map(|norm| Result::Ok((floats(&norm.gamma)?, floats(&norm.beta)?))).transpose()?;
        let scale_shift = norm.and_then(|norm| norm.scale_shift.as_ref()).map(floats).transpose()?;
        let norm = norm.zip(vectors.as_ref()).map(|(norm, (gamma, beta))| norm::Norm {
            gamma,
            beta,
            scale_shift: scale_shift.as_deref(),
            groups: norm.groups,
            act: norm.act,
            eps: norm.eps,
        });
        f(&input::Input { parts, height, width, norm, resample: self.resample })
    }

    /// All values that it is made of: the parts, then those of the norm.
    pub(super) fn values(&self) -> Vec<Value> {
        let mut values = self.parts.clone();
        if let Some(norm) = &self.norm {
            values.extend([norm.gamma.clone(), norm.beta.clone()]);
            values.extend(norm.scale_shift.clone());
        }
        values
    }

    /// The parts as elements E.
    pub(super) fn elements<E: Element>(&self) -> Result<Vec<Tensor>> {
        self.parts.iter().map(|part| cast::<E>(part.tensor())).collect()
    }

    /// The gradients of [`Input::values`], from those that a kernel found.
    pub(super) fn gradients<E: Element>(
        &self,
        parts: Vec<Vec<E>>,
        norm: Option<norm::NormGradients>,
    ) -> Result<InputGradients> {
        let mut out = Vec::new();
        let mut found = parts.into_iter();
        for part in &self.parts {
            out.push(found.next().map(|dx| like(part.tensor().dtype(), tensor(dx, part.dims())?)).transpose()?);
        }
        if let Some(found) = norm {
            let [batch, _, _, channels] = self.dims()?;
            out.push(Some(tensor(found.gamma, channels)?));
            out.push(Some(tensor(found.beta, channels)?));
            if let Some(values) = found.scale_shift {
                out.push(Some(tensor(values, (batch, 2 * channels))?));
            }
        }
        Ok(out)
    }

    /// (batch, height, width) after the resampling, and the channels of all parts.
    pub(super) fn out_dims(&self) -> Result<[usize; 4]> {
        let dims @ [batch, height, width, channels] = self.dims()?;
        self.check(dims)?;
        let (height, width) = self.resample.size(height, width);
        Ok([batch, height, width, channels])
    }

    /// (batch, height, width) of the parts, and the channels of all of them.
    fn dims(&self) -> Result<[usize; 4]> {
        let (batch, height, width, mut channels) = self.parts[0].nhwc()?;
        for part in &self.parts[1..] {
            let (b, h, w, c) = part.nhwc()?;
            if (b, h, w) != (batch, height, width) {
                fail!("conv2d: {:?} and {:?} differ before the channels", self.parts[0].dims(), part.dims());
            }
            channels += c;
        }
        Ok([batch, height, width, channels])
    }

    /// Refuses what the kernels cannot compute.
    fn check(&self, [batch, height, width, channels]: [usize; 4]) -> Result<()> {
        let dims = self.parts[0].dims();
        if batch * height * width * channels == 0 {
            fail!("conv2d: input {dims:?} is empty");
        }
        match (self.resample, &self.norm) {
            (Resample::Pool, _) if height < 2 || width < 2 => fail!("conv2d: input {dims:?} is too small to be pooled"),
            (Resample::Pool, None) => fail!("conv2d: only a normalized input can be pooled"),
            (Resample::Upsample, Some(_)) => fail!("conv2d: a normalized input cannot be up-sampled"),
            _ => {}
        }
        let Some(norm) = &self.norm else { return Ok(()) };
        let fits = |v: &Value| v.dims() == [channels];
        if norm.groups > 0 && channels % norm.groups != 0 || !fits(&norm.gamma) || !fits(&norm.beta) {
            fail!("conv2d: {} groups and gamma {:?} do not fit input {dims:?}", norm.groups, norm.gamma.dims());
        }
        match norm.scale_shift.as_ref().filter(|s| s.dims() != [batch, 2 * channels]) {
            Some(other) => fail!("conv2d: scale_shift {:?} does not fit input {dims:?}", other.dims()),
            None => Ok(()),
        }
    }
}

/// What a convolution does with its input; the default is stride 1, no padding, no bias, no residual.
#[derive(Clone, Copy, Debug)]
pub struct Convolution<'a> {
    pub stride: usize,
    /// Zeros on all sides.
    pub padding: usize,
    /// (O)
    pub bias: Option<&'a Value>,
    /// Of the output's shape.
    pub residual: Option<&'a Value>,
    /// Whether the output is f32 whatever the networks compute in, for losses and whatever else reads it.
    pub f32_output: bool,
}

impl Default for Convolution<'_> {
    fn default() -> Self {
        Convolution { stride: 1, padding: 0, bias: None, residual: None, f32_output: false }
    }
}

/// Convolves `input` (B, H, W, I) with `weight` (O, K, K, I): (B, OH, OW, O).
pub fn conv2d(tape: &Tape, input: &Input, weight: &Value, options: Convolution) -> Result<Value> {
    let shape = shape(input, weight, options)?;
    #[cfg(any(feature = "cuda", cuda_emulated))]
    if let Some(gpu) = cuda::Gpu::of(weight.tensor()) {
        return cuda::conv::conv2d(tape, gpu, shape, input, weight, options);
    }
    match (isa::current().precision(), options.f32_output) {
        (Precision::F32, _) => Op::<f32, f32>::new(shape, input, weight, options)?.run(tape),
        (Precision::Bf16, true) => Op::<bf16, f32>::new(shape, input, weight, options)?.run(tape),
        (Precision::Bf16, false) => Op::<bf16, bf16>::new(shape, input, weight, options)?.run(tape),
    }
}

/// `x` (rows, I) times the transpose of `weight` (O, I), plus `bias` (O): (rows, O) in f32.
pub fn linear(tape: &Tape, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
    let (rows, inputs) = x.tensor().dims2()?;
    let (outputs, weight_in) = weight.tensor().dims2()?;
    if weight_in != inputs {
        fail!("linear: weight {:?} does not fit input {:?}", weight.dims(), x.dims());
    }
    // A pointwise convolution of single pixels.
    let x = super::reshape(tape, x, &[rows, 1, 1, inputs])?;
    let weight = super::reshape(tape, weight, &[outputs, 1, 1, inputs])?;
    let options = Convolution { bias, f32_output: true, ..Default::default() };
    super::reshape(tape, &conv2d(tape, &Input::of(&x), &weight, options)?, &[rows, outputs])
}

/// The sizes of a convolution, whose tensors must fit each other.
fn shape(input: &Input, weight: &Value, options: Convolution) -> Result<ConvShape> {
    let dims @ [batch, height, width, in_channels] = input.dims()?;
    input.check(dims)?;
    let (out_channels, kernel, kernel_width, weight_in) = weight.nhwc()?;
    if weight_in != in_channels || kernel != kernel_width {
        fail!("conv2d: weight {:?} does not fit {in_channels} channels of {:?}", weight.dims(), dims);
    }
    let (h, w) = input.resample.size(height, width);
    let Convolution { stride, padding, bias, residual, .. } = options;
    if stride == 0 || kernel == 0 || h + 2 * padding < kernel || w + 2 * padding < kernel {
        fail!("conv2d: kernel {kernel}, stride {stride} and padding {padding} do not fit input {dims:?}");
    }
    let shape = ConvShape { batch, height: h, width: w, in_channels, out_channels, kernel, stride, padding };
    if let Some(other) = bias.filter(|b| b.dims() != [out_channels]) {
        fail!("conv2d: bias {:?} does not fit weight {:?}", other.dims(), weight.dims());
    }
    let out = [batch, shape.out_height(), shape.out_width(), out_channels];
    if let Some(other) = residual.filter(|r| r.dims() != out) {
        fail!("conv2d: residual {:?} is not of the output's shape {out:?}", other.dims());
    }
    Ok(shape)
}

/// A convolution of elements E to elements O.
struct Op<E, O> {
    shape: ConvShape,
    input: Input,
    /// The input's parts as elements E.
    parts: Vec<Tensor>,
    weight: Value,
    bias: Option<Value>,
    residual: Option<Value>,
    /// Kept when the residual itself is let go.
    residual_type: Option<DType>,
    elements: std::marker::PhantomData<(E, O)>,
}

impl<E: Element, O: Element> Op<E, O> {
    fn new(shape: ConvShape, input: &Input, weight: &Value, options: Convolution) -> Result<Self> {
        Ok(Op {
            shape,
            parts: input.elements::<E>()?,
            input: input.clone(),
            weight: weight.clone(),
            bias: options.bias.cloned(),
            residual: options.residual.cloned(),
            residual_type: options.residual.map(|r| r.tensor().dtype()),
            elements: std::marker::PhantomData,
        })
    }

    fn with_input<T>(&self, f: impl FnOnce(&input::Input<E>) -> Result<T>) -> Result<T> {
        self.input.with_kernel(&self.parts, f)
    }

    fn run(mut self, tape: &Tape) -> Result<Value> {
        let s = self.shape;
        let dims = [s.batch, s.out_height(), s.out_width(), s.out_channels];
        tape.count_flops(2 * dims.iter().product::<usize>() * s.patch_len());
        let residual = self.residual.take();
        let added = residual.as_ref().map(|r| cast::<O>(r.tensor())).transpose()?;
        let (out, statistics) = {
            let residual = added.as_ref().map(Values::<O>::of).transpose()?;
            let bias = self.bias.as_ref().map(|b| Floats::of(b.tensor())).transpose()?;
            let weight = Floats::of(self.weight.tensor())?;
            self.with_input(|input| {
                Ok(kernel::forward::<E, O>(&s, input, &weight, bias.as_deref(), residual.as_deref()))
            })?
        };
        let out = tensor(out, dims.to_vec())?;
        let mut inputs = self.input.values();
        inputs.push(self.weight.clone());
        inputs.extend(self.bias.clone());
        inputs.extend(residual);
        let inputs: Vec<&Value> = inputs.iter().collect();
        Ok(tape.record(out, &inputs, move |gradient| self.backward(&statistics, gradient)))
    }

    /// The gradients of the parts, of the norm's values, of weight, bias and residual.
    fn backward(self, statistics: &[f32], gradient: Tensor) -> Result<InputGradients> {
        let norm = self.input.norm.as_ref();
        let of_norm = norm.is_some_and(|n| {
            [Some(&n.gamma), Some(&n.beta), n.scale_shift.as_ref()].into_iter().flatten().any(Value::needs_gradient)
        });
        let wanted = of_norm || self.input.parts.iter().any(Value::needs_gradient);
        let found = {
            let (gradient, weight) = (Values::<O>::of(&gradient)?, Floats::of(self.weight.tensor())?);
            self.with_input(|input| {
                Ok(kernel::backward::<E, O>(&self.shape, input, &weight, statistics, &gradient, wanted))
            })?
        };
        let mut out = self.input.gradients(found.parts, found.norm)?;
        out.push(Some(tensor(found.weight, self.weight.dims())?));
        if self.bias.is_some() {
            out.push(Some(tensor(found.bias, self.shape.out_channels)?));
        }
        if let Some(dtype) = self.residual_type {
            out.push(Some(like(dtype, gradient)?));
        }
        Ok(out)
    }
}

/// A gradient in the type of what it is the gradient of.
pub(super) fn like(dtype: DType, gradient: Tensor) -> Result<Tensor> {
    match dtype {
        DType::BF16 => cast::<bf16>(&gradient),
        _ => cast::<f32>(&gradient),
    }
}
