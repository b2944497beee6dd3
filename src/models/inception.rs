//! Inception-v3 (Szegedy et al. 2016) up to its last pooling, with the changes of the network whose features the Frechet
//! inception distance is defined by (Heusel et al. 2017): average poolings leave the padding out, and the last block pools
//! by the maximum.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::fail;
use crate::ops::cpu::isa::{self, Isa, Precision};
use crate::ops::cpu::{Floats, tensor};
use crate::ops::{self, Activation, Convolution, Input, Tape, Value};

/// Height and width of the images that it reads, in pixels.
pub const SIDE: usize = 299;
/// Values of an image's features.
pub const FEATURES: usize = 2048;

/// Of its batch norms.
const EPS: f64 = 1e-3;
/// What a weights file should be.
const EXPECTED: &str = "expected Inception-v3 in PyTorch's names (Conv2d_1a_3x3.conv.weight, ...) as .safetensors; docs/quality.md \
                        says how to make it";

/// The network, with its batch norms multiplied into the convolutions. It computes in f32 on the CPU.
pub struct Inception {
    layers: BTreeMap<String, Layer>,
}

/// A convolution and what its batch norm adds.
struct Layer {
    /// (O, KH, KW, I)
    weight: Tensor,
    /// (O)
    bias: Tensor,
}

/// A 3 x 3 pooling.
#[derive(Clone, Copy, PartialEq)]
enum Pool {
    /// The maximum at stride 2, without padding.
    Halve,
    /// The maximum, of the pixels inside the image.
    Max,
    /// The mean of the pixels inside the image.
    Mean,
}

impl Inception {
    /// Reads a file of PyTorch's tensors; those of its classifier are left aside.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let tensors = candle_core::safetensors::load(path, &Device::Cpu);
        let tensors: BTreeMap<String, Tensor> = tensors
            .map_err(|e| Error::Failed(format!("{name}: cannot be read ({e}); {EXPECTED}")))?
            .into_iter()
            .collect();
        let mut layers = BTreeMap::new();
        for key in tensors.keys().filter_map(|key| key.strip_suffix(".conv.weight")) {
            let get = |part: &str| {
                let found = tensors.get(&format!("{key}.{part}")).map(|t| t.to_dtype(DType::F32)).transpose()?;
                found.ok_or_else(|| Error::Failed(format!("{name}: tensor {key}.{part} is missing; {EXPECTED}")))
            };
            let statistics = [get("bn.weight")?, get("bn.bias")?, get("bn.running_mean")?, get("bn.running_var")?];
            let layer = Layer::folded(&get("conv.weight")?, &statistics);
            layers.insert(key.into(), layer.map_err(|e| Error::Failed(format!("{name}: {key}: {e}; {EXPECTED}")))?);
        }
        let network = Inception { layers };
        // A small image meets every layer, so that a wrong file is told now.
        let smallest = tensor(vec![0.0; 75 * 75 * 3], (1, 75, 75, 3))?;
        network.features_of(smallest).map_err(|e| Error::Failed(format!("{name}: {e}; {EXPECTED}")))?;
        Ok(network)
    }

    /// The features (B, 2048) of images (B, H, W, 3) of bytes, which are resized to 299 x 299 bilinearly, without filtering,
    /// as the distance's PyTorch version does.
    pub fn features(&self, pixels: &[u8], size: usize) -> Result<Vec<f32>> {
        let images = pixels.len() / (size * size * 3);
        let mut resized = vec![0.0; images * SIDE * SIDE * 3];
        resized
            .par_chunks_mut(SIDE * SIDE * 3)
            .zip(pixels.par_chunks(size * size * 3))
            .for_each(|(out, image)| resize(image, size, out));
        self.features_of(tensor(resized, (images, SIDE, SIDE, 3))?)
    }

    fn features_of(&self, images: Tensor) -> Result<Vec<f32>> {
        let Some(exact) = Isa::best(Precision::F32) else { fail!("this processor has no kernels in f32") };
        isa::with(exact, || self.forward(&Value::constant(images)))
    }

    fn forward(&self, x: &Value) -> Result<Vec<f32>> {
        let x = self.conv("Conv2d_1a_3x3", x, 2, 0)?;
        let x = self.conv("Conv2d_2a_3x3", &x, 1, 0)?;
        let x = pool(&self.conv("Conv2d_2b_3x3", &x, 1, 1)?, Pool::Halve)?;
        let x = self.conv("Conv2d_3b_1x1", &x, 1, 0)?;
        let mut x = pool(&self.conv("Conv2d_4a_3x3", &x, 1, 0)?, Pool::Halve)?;
        for block in ["Mixed_5b", "Mixed_5c", "Mixed_5d"] {
            x = self.block_a(block, &x)?;
        }
        x = self.block_b("Mixed_6a", &x)?;
        for block in ["Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"] {
            x = self.block_c(block, &x)?;
        }
        x = self.block_d("Mixed_7a", &x)?;
        x = self.block_e("Mixed_7b", &x, Pool::Mean)?;
        x = self.block_e("Mixed_7c", &x, Pool::Max)?;
        Ok(Floats::of(ops::mean_pixels(&Tape::inference(), &x)?.tensor())?.to_vec())
    }

    /// Of 35 x 35 pixels.
    fn block_a(&self, block: &str, x: &Value) -> Result<Value> {
        let a = self.chain(block, x, &["branch1x1"])?;
        let b = self.chain(block, x, &["branch5x5_1", "branch5x5_2"])?;
        let c = self.chain(block, x, &["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"])?;
        let d = self.chain(block, &pool(x, Pool::Mean)?, &["branch_pool"])?;
        join(&[a, b, c, d])
    }

    /// From 35 x 35 to 17 x 17 pixels.
    fn block_b(&self, block: &str, x: &Value) -> Result<Value> {
        let a = self.conv(&format!("{block}.branch3x3"), x, 2, 0)?;
        let b = self.chain(block, x, &["branch3x3dbl_1", "branch3x3dbl_2"])?;
        let b = self.conv(&format!("{block}.branch3x3dbl_3"), &b, 2, 0)?;
        join(&[a, b, pool(x, Pool::Halve)?])
    }

    /// Of 17 x 17 pixels, with kernels of 1 x 7 and 7 x 1.
    fn block_c(&self, block: &str, x: &Value) -> Result<Value> {
        let a = self.chain(block, x, &["branch1x1"])?;
        let b = self.chain(block, x, &["branch7x7_1", "branch7x7_2", "branch7x7_3"])?;
        let c = ["branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"];
        let c = self.chain(block, x, &c)?;
        let d = self.chain(block, &pool(x, Pool::Mean)?, &["branch_pool"])?;
        join(&[a, b, c, d])
    }

    /// From 17 x 17 to 8 x 8 pixels.
    fn block_d(&self, block: &str, x: &Value) -> Result<Value> {
        let a = self.chain(block, x, &["branch3x3_1"])?;
        let a = self.conv(&format!("{block}.branch3x3_2"), &a, 2, 0)?;
        let b = self.chain(block, x, &["branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3"])?;
        let b = self.conv(&format!("{block}.branch7x7x3_4"), &b, 2, 0)?;
        join(&[a, b, pool(x, Pool::Halve)?])
    }

    /// Of 8 x 8 pixels, with kernels of 1 x 3 and 3 x 1 side by side.
    fn block_e(&self, block: &str, x: &Value, pooling: Pool) -> Result<Value> {
        let a = self.chain(block, x, &["branch1x1"])?;
        let b = self.chain(block, x, &["branch3x3_1"])?;
        let c = self.chain(block, x, &["branch3x3dbl_1", "branch3x3dbl_2"])?;
        let d = self.chain(block, &pool(x, pooling)?, &["branch_pool"])?;
        let both = |x: &Value, branch: &str| {
            let side = |part| self.chain(block, x, &[&format!("{branch}{part}")]);
            join(&[side("a")?, side("b")?])
        };
        join(&[a, both(&b, "branch3x3_2")?, both(&c, "branch3x3dbl_3")?, d])
    }

    /// Convolutions one after the other that keep the image's size.
    fn chain(&self, block: &str, x: &Value, branches: &[&str]) -> Result<Value> {
        branches.iter().try_fold(x.clone(), |x, branch| {
            let name = format!("{block}.{branch}");
            let padding = self.layer(&name)?.weight.dims()[1] / 2; // of a kernel that is not square it is not asked for
            self.conv(&name, &x, 1, padding)
        })
    }

    fn layer(&self, name: &str) -> Result<&Layer> {
        self.layers.get(name).ok_or_else(|| Error::Failed(format!("layer {name} is missing")))
    }

    /// relu(norm(conv(x))). A kernel that is not square keeps the image's size.
    fn conv(&self, name: &str, x: &Value, stride: usize, padding: usize) -> Result<Value> {
        let (tape, layer) = (Tape::inference(), self.layer(name)?);
        let (outputs, high, wide, inputs) = layer.weight.dims4()?;
        let bias = Value::constant(layer.bias.clone());
        let out = if high == wide {
            let options = Convolution { stride, padding, bias: Some(&bias), ..Default::default() };
            ops::conv2d(&tape, &Input::of(x), &Value::constant(layer.weight.clone()), options)?
        } else {
            // Each pixel's neighbours side by side, which a pointwise convolution reads.
            let weight = Value::constant(layer.weight.reshape((outputs, 1, 1, high * wide * inputs))?);
            let options = Convolution { bias: Some(&bias), ..Default::default() };
            ops::conv2d(&tape, &Input::of(&neighbours(x, high, wide)?), &weight, options)?
        };
        ops::activate(&tape, &Input::of(&out), None, Activation::Relu)
    }
}

impl Layer {
    /// `weight` is (O, I, KH, KW); `statistics` are the norm's weight, bias, mean and variance, (O) each.
    fn folded(weight: &Tensor, statistics: &[Tensor; 4]) -> Result<Self> {
        let outputs = weight.dims4()?.0;
        let [gamma, beta, mean, variance] = statistics;
        let factor = (gamma / variance.affine(1.0, EPS)?.sqrt()?)?;
        let bias = (beta - (mean * &factor)?)?;
        let weight = weight.broadcast_mul(&factor.reshape((outputs, 1, 1, 1))?)?;
        Ok(Layer { weight: weight.permute((0, 2, 3, 1))?.contiguous()?, bias })
    }
}

/// Joined along the channels.
fn join(parts: &[Value]) -> Result<Value> {
    let tape = Tape::inference();
    parts[1..].iter().try_fold(parts[0].clone(), |joined, part| ops::concat(&tape, &joined, part))
}

/// (B, H, W, high x wide x C): what a kernel of `high` x `wide` taps reads around each pixel, zeros outside the image.
fn neighbours(x: &Value, high: usize, wide: usize) -> Result<Value> {
    let (batch, height, width, c) = x.nhwc()?;
    let source = Floats::of(x.tensor())?;
    let mut out = vec![0.0; batch * height * width * high * wide * c];
    let rows = out.par_chunks_mut(width * high * wide * c).enumerate();
    rows.for_each(|(row, out)| {
        let (n, y) = (row / height, row % height);
        for (place, out) in out.chunks_exact_mut(c).enumerate() {
            let (x, tap) = (place / (high * wide), place % (high * wide));
            let (y, x) = (y + tap / wide, x + tap % wide); // counted from the padded corner
            let inside = |v: usize, taps: usize, size: usize| (taps / 2..taps / 2 + size).contains(&v);
            if inside(y, high, height) && inside(x, wide, width) {
                let pixel = (n * height + y - high / 2) * width + x - wide / 2;
                out.copy_from_slice(&source[pixel * c..][..c]);
            }
        }
    });
    Ok(Value::constant(tensor(out, (batch, height, width, high * wide * c))?))
}

/// 3 x 3 pooling of values that are not negative.
fn pool(x: &Value, kind: Pool) -> Result<Value> {
    let (batch, height, width, c) = x.nhwc()?;
    let (stride, padding) = if kind == Pool::Halve { (2, 0) } else { (1, 1) };
    let size = |n: usize| (n + 2 * padding).checked_sub(3).map_or(0, |n| n / stride + 1);
    let (rows, cols) = (size(height), size(width));
    let source = Floats::of(x.tensor())?;
    let mut out = vec![0.0f32; batch * rows * cols * c];
    out.par_chunks_mut(cols * c).enumerate().for_each(|(row, out)| {
        let (n, oy) = (row / rows, row % rows);
        let taps = |o: usize, size: usize| (o * stride).max(padding) - padding..(o * stride + 3 - padding).min(size);
        for (ox, out) in out.chunks_exact_mut(c).enumerate() {
            let (ys, xs) = (taps(oy, height), taps(ox, width));
            let count = (ys.len() * xs.len()) as f32;
            for (y, x) in ys.flat_map(|y| xs.clone().map(move |x| (y, x))) {
                let pixel = &source[((n * height + y) * width + x) * c..][..c];
                out.iter_mut()
                    .zip(pixel)
                    .for_each(|(o, v)| *o = if kind == Pool::Mean { *o + v / count } else { o.max(*v) });
            }
        }
    });
    Ok(Value::constant(tensor(out, (batch, rows, cols, c))?))
}

/// Bytes (size, size, 3) to (299, 299, 3) in [-1, 1], bilinearly between pixels' centres.
fn resize(image: &[u8], size: usize, out: &mut [f32]) {
    let at = |o: usize| {
        let source = ((o as f32 + 0.5) * (size as f32 / SIDE as f32) - 0.5).max(0.0);
        let first = (source as usize).min(size - 1);
        (first, (first + 1).min(size - 1), source - first as f32)
    };
    for (i, out) in out.chunks_exact_mut(3).enumerate() {
        let ((top, bottom, fy), (left, right, fx)) = (at(i / SIDE), at(i % SIDE));
        for (channel, out) in out.iter_mut().enumerate() {
            let value = |y: usize, x: usize| f32::from(image[(y * size + x) * 3 + channel]) / 127.5 - 1.0;
            let of_row = |y: usize| value(y, left) + fx * (value(y, right) - value(y, left));
            *out = of_row(top) + fy * (of_row(bottom) - of_row(top));
        }
    }
}
