//! Convolution and linear layers with an optional bias and residual.

use candle_core::Tensor;

use super::cpu::conv::{self as kernel, ConvShape};
use super::cpu::{Floats, elementwise, tensor};
use super::tape::{InputGradients, Tape, Value};
use crate::error::Result;
use crate::fail;

/// Convolves `x` (B, H, W, I) with `weight` (O, K, K, I): (B, OH, OW, O), plus `bias` (O), plus `residual` (of the
/// output's shape). Zero padding on all sides.
pub fn conv2d(
    tape: &Tape,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    residual: Option<&Value>,
    stride: usize,
    padding: usize,
) -> Result<Value> {
    let (batch, height, width, in_channels) = x.nhwc()?;
    let (out_channels, kernel, kernel_width, weight_in) = weight.nhwc()?;
    if weight_in != in_channels || kernel != kernel_width {
        fail!("conv2d: weight {:?} does not fit input {:?}", weight.dims(), x.dims());
    }
    if stride == 0 || height + 2 * padding < kernel || width + 2 * padding < kernel {
        fail!("conv2d: kernel {kernel}, stride {stride} and padding {padding} do not fit input {:?}", x.dims());
    }
    let shape = ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding };
    let dims = vec![batch, shape.out_height(), shape.out_width(), out_channels];
    product(tape, shape, dims, x, weight, bias, residual)
}

/// `x` (..., I) times the transpose of `weight` (O, I), plus `bias` (O), plus `residual`: (..., O).
pub fn linear(tape: &Tape, x: &Value, weight: &Value, bias: Option<&Value>, residual: Option<&Value>) -> Result<Value> {
    let (out_channels, in_channels) = weight.tensor().dims2()?;
    if x.dims().last() != Some(&in_channels) {
        fail!("linear: weight {:?} does not fit input {:?}", weight.dims(), x.dims());
    }
    let rows = x.tensor().elem_count() / in_channels;
    // A pointwise convolution of one row of pixels.
    let shape =
        ConvShape { batch: rows, height: 1, width: 1, in_channels, out_channels, kernel: 1, stride: 1, padding: 0 };
    let mut dims = x.dims().to_vec();
    dims[x.dims().len() - 1] = out_channels;
    product(tape, shape, dims, x, weight, bias, residual)
}

fn product(
    tape: &Tape,
    shape: ConvShape,
    dims: Vec<usize>,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    residual: Option<&Value>,
) -> Result<Value> {
    if let Some(other) = bias.filter(|b| b.dims() != [shape.out_channels]) {
        fail!("conv2d or linear: bias {:?} does not fit weight {:?}", other.dims(), weight.dims());
    }
    if let Some(other) = residual.filter(|r| r.dims() != dims) {
        fail!("conv2d or linear: residual {:?} is not of the output's shape {dims:?}", other.dims());
    }
    tape.count_flops(2 * dims.iter().product::<usize>() * shape.patch_len());
    let bias_floats = bias.map(|b| Floats::of(b.tensor())).transpose()?;
    let residual_floats = residual.map(|r| Floats::of(r.tensor())).transpose()?;
    let (x_floats, weight_floats) = (Floats::of(x.tensor())?, Floats::of(weight.tensor())?);
    let out = kernel::forward(&shape, &x_floats, &weight_floats, bias_floats.as_deref(), residual_floats.as_deref());
    let out = tensor(out, dims)?;

    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    inputs.extend(residual);
    let wanted = Wanted {
        x: x.needs_gradient(),
        weight: weight.needs_gradient(),
        bias: bias.is_some(),
        residual: residual.is_some(),
    };
    let (saved_x, saved_weight) = (x.tensor().clone(), weight.tensor().clone());
    Ok(tape.record(out, &inputs, move |g| product_backward(&shape, &saved_x, &saved_weight, g, wanted)))
}

#[derive(Clone, Copy)]
struct Wanted {
    x: bool,
    weight: bool,
    bias: bool,
    residual: bool,
}

fn product_backward(
    shape: &ConvShape,
    x: &Tensor,
    weight: &Tensor,
    gradient: Tensor,
    wanted: Wanted,
) -> Result<InputGradients> {
    let mut out = Vec::with_capacity(4);
    {
        let g = Floats::of(&gradient)?;
        out.push(if wanted.x {
            Some(tensor(kernel::input_gradient(shape, &g, &Floats::of(weight)?), x.dims())?)
        } else {
            None
        });
        out.push(if wanted.weight {
            Some(tensor(kernel::weight_gradient(shape, &Floats::of(x)?, &g), weight.dims())?)
        } else {
            None
        });
        if wanted.bias {
            out.push(Some(tensor(elementwise::sum_rows(&g, shape.out_channels), shape.out_channels)?));
        }
    }
    if wanted.residual {
        out.push(Some(gradient)); // moved on: nothing else holds it any more
    }
    Ok(out)
}
