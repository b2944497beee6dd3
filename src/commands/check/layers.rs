//! Convolutions, with all that may stand before and after them: at small and odd sizes beside the plain version, at the
//! networks' sizes beside the CPU's portable kernels in f32.

use candle_core::{Device, Tensor};

use super::ops::{normals, shapes};
use super::{Check, OF_OPS, on_portable_cpu};
use crate::error::Result;
use crate::ops::check::{Op, Outcome, Plain, seen};
use crate::ops::cpu::conv::ConvShape;
use crate::ops::reference::{self, NormShape};
use crate::ops::{self, Activation, Convolution, Input, Norm, Value};

pub fn checks() -> Result<Vec<Check>> {
    Ok([convolutions()?, linear()?, norms()?, inputs()?, blocks()?, network_sizes()?].into_iter().flatten().collect())
}

/// Every kernel, stride and padding; few channels and more than a vector has; images as small as the kernel.
fn convolutions() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (kernel, stride, padding) in
        [(1, 1, 0), (1, 2, 0), (2, 2, 0), (3, 1, 0), (3, 1, 1), (3, 2, 1), (4, 2, 1), (4, 4, 0), (5, 1, 2)]
    {
        for (batch, height, width, in_channels, out_channels) in [(1, 5, 7, 3, 5), (3, 8, 4, 5, 1), (2, 6, 5, 33, 16)] {
            let s = ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding };
            all.push(convolution(s)?);
        }
    }
    for (height, width, kernel, stride, padding) in [(1, 1, 3, 1, 1), (3, 3, 3, 1, 0), (7, 4, 2, 3, 0), (2, 1, 4, 2, 3)]
    {
        let (batch, in_channels, out_channels) = (2, 2, 3);
        all.push(convolution(ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding })?);
    }
    Ok(all)
}

/// With bias and residual.
fn convolution(s: ConvShape) -> Result<Check> {
    let out = [s.batch, s.out_height(), s.out_width(), s.out_channels];
    let (x, weight) =
        ([s.batch, s.height, s.width, s.in_channels], [s.out_channels, s.kernel, s.kernel, s.in_channels]);
    let op: Box<Op> = Box::new(move |t, v| {
        let (bias, residual) = (Some(&v[2]), Some(&v[3]));
        let options = Convolution { stride: s.stride, padding: s.padding, bias, residual, f32_output: s.batch == 1 };
        ops::conv2d(t, &Input::of(&v[0]), &v[1], options)
    });
    let plain: Box<Plain> = Box::new(move |v| reference::conv2d(&s, &v[0], &v[1], Some(&v[2]), Some(&v[3])));
    let name = format!("conv2d, stride {} padding {}", s.stride, s.padding);
    Ok(Check::plain(&name, normals("conv", &[&x, &weight, &[s.out_channels], &out])?, op, plain))
}

fn linear() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (rows, inputs, outputs) in [(1, 1, 3), (15, 16, 33), (18, 33, 5), (2001, 3, 2)] {
        let plain: Box<Plain> = Box::new(move |v| reference::linear(inputs, &v[0], &v[1], Some(&v[2]), None));
        let tensors = normals("linear", &[&[rows, inputs], &[outputs, inputs], &[outputs]])?;
        all.push(Check::plain("linear", tensors, Box::new(|t, v| ops::linear(t, &v[0], &v[1], Some(&v[2]))), plain));
    }
    Ok(all)
}

/// gamma and beta are values 1 and 2.
fn norm_of(v: &[Value], scale_shift: Option<&Value>, groups: usize, act: Activation) -> Norm {
    Norm { gamma: v[1].clone(), beta: v[2].clone(), scale_shift: scale_shift.cloned(), groups, act, eps: 1e-5 }
}

/// Norms alone, seen through a convolution that changes nothing.
fn norms() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for act in [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Gelu] {
        for (dims @ [batch, h, w, channels], groups, scaled) in [
            ([3, 5, 3, 12], 4, true),
            ([3, 5, 3, 12], 12, false),
            ([2, 7, 7, 6], 0, false),
            ([1, 9, 1, 33], 3, true),
            ([7, 1, 1, 16], 4, false),
        ] {
            let s = NormShape { batch, channels, groups, pixels: h * w };
            let mut inputs = normals("norm", &[&dims, &[channels], &[channels], &[batch, 2 * channels]])?;
            inputs.truncate(if scaled { 4 } else { 3 });
            let op: Box<Op> = Box::new(move |t, v| {
                seen(t, &Input::of(&v[0]).normalized(norm_of(v, v.get(3), groups, act)), channels)
            });
            let plain: Box<Plain> = Box::new(move |v| {
                reference::group_norm(&s, &v[0], &v[1], &v[2], v.get(3).map(|s| &s[..]), act, f64::from(1e-5f32))
            });
            let name = format!("norm, {groups} groups, {act:?}").to_lowercase();
            all.push(Check::plain(&name, inputs, op, plain));
        }
    }
    Ok(all)
}

/// Joined, normalized, up-sampled and pooled inputs of convolutions.
fn inputs() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 1, 0), (4, 4, 0)] {
        all.push(joined([3, 9, 6, 4], 8, (kernel, stride, padding))?);
        all.push(joined([2, 6, 8, 20], 16, (kernel, stride, padding))?);
        all.push(upsampled([2, 3, 4, 5], (kernel, stride, padding))?);
        all.push(pooled([2, 9, 11, 12], (kernel, stride, padding))?);
    }
    Ok(all)
}

/// A kernel's size, stride and padding.
type Steps = (usize, usize, usize);

fn joined(dims: [usize; 4], extra: usize, (kernel, stride, padding): Steps) -> Result<Check> {
    let [batch, height, width, c] = dims;
    let channels = c + extra;
    let s = ConvShape { batch, height, width, in_channels: channels, out_channels: 7, kernel, stride, padding };
    let norm = NormShape { batch, pixels: height * width, channels, groups: 4 };
    let (more, weight) = ([batch, height, width, extra], [7, kernel, kernel, channels]);
    let inputs = normals("joined", &[&dims, &[channels], &[channels], &weight, &more, &[batch, 2 * channels]])?;
    let op: Box<Op> = Box::new(move |t, v| {
        let input = Input::of(&v[0]).join(&v[4]).normalized(norm_of(v, Some(&v[5]), 4, Activation::Silu));
        ops::conv2d(t, &input, &v[3], Convolution { stride, padding, ..Default::default() })
    });
    let plain: Box<Plain> = Box::new(move |v| {
        let x = reference::concat(&v[0], &v[4], c, extra);
        let x = reference::group_norm(&norm, &x, &v[1], &v[2], Some(&v[5]), Activation::Silu, f64::from(1e-5f32));
        reference::conv2d(&s, &x, &v[3], None, None)
    });
    Ok(Check::plain(&format!("conv2d {kernel}/{stride}, joined and normalized"), inputs, op, plain))
}

fn upsampled(dims: [usize; 4], (kernel, stride, padding): Steps) -> Result<Check> {
    let [batch, h, w, in_channels] = dims;
    let s = ConvShape { batch, height: 2 * h, width: 2 * w, in_channels, out_channels: 7, kernel, stride, padding };
    let op: Box<Op> = Box::new(move |t, v| {
        let options = Convolution { stride, padding, ..Default::default() };
        ops::conv2d(t, &Input::of(&v[0]).upsampled(), &v[1], options)
    });
    let plain: Box<Plain> =
        Box::new(move |v| reference::conv2d(&s, &reference::upsample2x(&v[0], dims.into()), &v[1], None, None));
    let inputs = normals("upsampled", &[&dims, &[7, kernel, kernel, in_channels]])?;
    Ok(Check::plain(&format!("conv2d {kernel}/{stride}, up-sampled"), inputs, op, plain))
}

fn pooled(dims: [usize; 4], (kernel, stride, padding): Steps) -> Result<Check> {
    let [batch, h, w, c] = dims;
    let (height, width) = (h / 2, w / 2);
    let s = ConvShape { batch, height, width, in_channels: c, out_channels: 7, kernel, stride, padding };
    let norm = NormShape { batch, pixels: h * w, channels: c, groups: c };
    let op: Box<Op> = Box::new(move |t, v| {
        let input = Input::of(&v[0]).normalized(norm_of(v, None, c, Activation::Relu)).pooled();
        ops::conv2d(t, &input, &v[3], Convolution { stride, padding, ..Default::default() })
    });
    let plain: Box<Plain> = Box::new(move |v| {
        let x = reference::group_norm(&norm, &v[0], &v[1], &v[2], None, Activation::Relu, f64::from(1e-5f32));
        reference::conv2d(&s, &reference::avg_pool2x(&x, dims.into()), &v[3], None, None)
    });
    let inputs = normals("pooled", &[&dims, &[c], &[c], &[7, kernel, kernel, c]])?;
    Ok(Check::plain(&format!("conv2d {kernel}/{stride}, normalized and pooled"), inputs, op, plain))
}

/// Values that are used several times, so that gradients are added to.
fn blocks() -> Result<Vec<Check>> {
    let (batch, height, width, in_channels, out_channels) = (3, 4, 5, 6, 6);
    let s = ConvShape { batch, height, width, in_channels, out_channels, kernel: 3, stride: 1, padding: 1 };
    let op: Box<Op> = Box::new(|t, v| {
        let conv = |x: &Value, residual: &Value| {
            let options =
                Convolution { stride: 1, padding: 1, bias: Some(&v[2]), residual: Some(residual), f32_output: true };
            ops::conv2d(t, &Input::of(x), &v[1], options)
        };
        let once = conv(&v[0], &v[0])?;
        let twice = conv(&ops::silu(t, &once)?, &once)?;
        ops::add(t, &ops::add(t, &twice, &once)?, &v[0])
    });
    let plain: Box<Plain> = Box::new(move |v| {
        let once = reference::conv2d(&s, &v[0], &v[1], Some(&v[2]), Some(&v[0]));
        let twice = reference::conv2d(&s, &reference::silu(&once), &v[1], Some(&v[2]), Some(&once));
        reference::add(&reference::add(&twice, &once), &v[0])
    });
    Ok(vec![Check::plain("residual block", normals("uses", &[&[3, 4, 5, 6], &[6, 3, 3, 6], &[6]])?, op, plain)])
}

/// `op` beside itself on the CPU.
fn beside_cpu(name: &str, inputs: Vec<Tensor>, op: Box<Op<'static>>) -> Check {
    let shapes = shapes(&inputs);
    let run = Box::new(move |device: &Device| {
        let found = Outcome::of(device, &inputs, |_| true, &op)?;
        found.compared(&on_portable_cpu(|cpu| Outcome::of(cpu, &inputs, |_| true, &op))?)
    });
    Check { name: format!("{name}, as in a network"), shapes, allowed: OF_OPS, run }
}

/// Of usual size, as those of a trained layer: sums of hundreds of products stay near 1.
fn weights(outputs: usize, kernel: usize, inputs: usize) -> Result<Tensor> {
    let tensor = normals("weights", &[&[outputs, kernel, kernel, inputs]])?.remove(0);
    Ok(tensor.affine(1.0 / ((kernel * kernel * inputs) as f64).sqrt(), 0.0)?)
}

fn network_sizes() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (dims @ [batch, _, _, c], outputs) in [([8, 16, 16, 128], 128), ([8, 8, 8, 384], 256), ([8, 4, 4, 256], 256)] {
        let mut inputs = normals("residual", &[&dims, &[c], &[c], &[batch, 2 * c]])?;
        inputs.push(weights(outputs, 3, c)?);
        let op: Box<Op> = Box::new(|t, v| {
            let input = Input::of(&v[0]).normalized(norm_of(v, Some(&v[3]), 32, Activation::Silu));
            ops::conv2d(t, &input, &v[4], Convolution { padding: 1, ..Default::default() })
        });
        all.push(beside_cpu("conv2d, normalized", inputs, op));
    }
    for (name, dims, stride, up) in
        [("conv2d, down", [8, 16, 16, 128], 2, false), ("conv2d, up", [8, 8, 8, 256], 1, true)]
    {
        let inputs = vec![normals("resampled", &[&dims])?.remove(0), weights(dims[3], 3, dims[3])?];
        let op: Box<Op> = Box::new(move |t, v| {
            let input = if up { Input::of(&v[0]).upsampled() } else { Input::of(&v[0]) };
            ops::conv2d(t, &input, &v[1], Convolution { stride, padding: 1, ..Default::default() })
        });
        all.push(beside_cpu(name, inputs, op));
    }
    for (side, heads, head_dim) in [(16, 4, 32), (8, 4, 64), (4, 8, 32)] {
        let inputs = normals("attention", &[&[8, side, side, 3 * heads * head_dim]])?;
        all.push(beside_cpu("attention", inputs, Box::new(move |t, v| ops::attention(t, &v[0], heads))));
    }
    // A ConvNet's second block and its head.
    for (dims @ [.., c], kernel, padding, outputs) in [([8, 32, 32, 128], 3, 1, 128), ([64, 8, 8, 128], 4, 0, 100)] {
        let mut inputs = normals("student", &[&dims, &[c], &[c]])?;
        inputs.push(weights(outputs, kernel, c)?);
        let op: Box<Op> = Box::new(move |t, v| {
            let input = Input::of(&v[0]).normalized(norm_of(v, None, c, Activation::Relu)).pooled();
            ops::conv2d(t, &input, &v[3], Convolution { padding, f32_output: padding == 0, ..Default::default() })
        });
        all.push(beside_cpu("conv2d, pooled", inputs, op));
    }
    let inputs = vec![normals("linear", &[&[64, 512]])?.remove(0), weights(1024, 1, 512)?.reshape((1024, 512))?];
    all.push(beside_cpu("linear", inputs, Box::new(|t, v| ops::linear(t, &v[0], &v[1], None))));
    Ok(all)
}
