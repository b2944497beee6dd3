//! A small vision transformer (Dosovitskiy et al. 2021) with the norms before the branches. An image is 8 x 8 patches
//! whatever its size, of 4 x 4 pixels at 32 x 32 and of 8 x 8 at 64 x 64; the head reads the mean over them.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::Classifier;
use crate::error::Result;
use crate::fail;
use crate::nn::{Conv2d, ConvConfig, GroupNorm, Linear, LinearConfig};
use crate::ops::{self, Activation, Input, Tape, Value};

/// Patches along each side of an image.
const PATCHES: usize = 8;
/// Values of a block's hidden layer over its width.
const MLP_FACTOR: usize = 2;
/// Standard deviation of the first positions.
const POSITION_STD: f64 = 0.02;

/// The sizes of a vision transformer.
#[derive(Clone, Copy, Debug)]
pub struct VitConfig {
    pub depth: usize,
    /// Values of a token.
    pub width: usize,
    /// Heads of each attention; they share the width evenly.
    pub heads: usize,
    /// Height and width of the images in pixels, a multiple of 8.
    pub size: usize,
    pub classes: usize,
}

#[derive(Clone, Debug)]
pub struct Vit {
    patches: Conv2d,
    /// (tokens, width)
    positions: Tensor,
    blocks: Vec<Block>,
    norm: GroupNorm,
    head: Linear,
}

impl Vit {
    pub fn new(config: VitConfig, vb: VarBuilder) -> Result<Self> {
        let VitConfig { depth, width, heads, size, classes } = config;
        if size == 0 || size % PATCHES != 0 {
            fail!(
                "student vit: images of {size} x {size} pixels are not {PATCHES} x {PATCHES} patches; use images whose side \
                 is a multiple of {PATCHES} pixels"
            );
        }
        if heads == 0 || width % heads != 0 {
            fail!("student vit: a width of {width} is not a multiple of its {heads} heads");
        }
        let patch = ConvConfig { kernel: size / PATCHES, stride: size / PATCHES, padding: 0, ..Default::default() };
        let init = Init::Randn { mean: 0.0, stdev: POSITION_STD };
        let blocks = (0..depth).map(|i| Block::new(width, heads, vb.pp(format!("block{i}"))));
        Ok(Vit {
            patches: Conv2d::new(3, width, patch, vb.pp("patches"))?,
            positions: vb.get_with_hints((PATCHES * PATCHES, width), "positions", init)?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: GroupNorm::new(1, width, vb.pp("norm"))?,
            head: Linear::new(LinearConfig { inputs: width, outputs: classes, zero: false }, vb.pp("head"))?,
        })
    }
}

impl Classifier for Vit {
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let (batch, _, _, _) = x.nhwc()?;
        let (tokens, width) = self.positions.dims2()?;
        let image = [batch, PATCHES, PATCHES, width];
        let all: Vec<u32> = (0..batch * tokens).map(|i| (i % tokens) as u32).collect();
        let positions = ops::embedding(tape, &tape.param(&self.positions), &all)?;
        let positions = ops::reshape(tape, &positions, &image)?;
        let x = self.patches.forward_add(tape, &Input::of(x), &positions)?;
        // The norms see each token as an image of one pixel.
        let mut x = ops::reshape(tape, &x, &[batch * tokens, 1, 1, width])?;
        for block in &self.blocks {
            x = block.forward(tape, &x, tokens)?;
        }
        let x = Input::of(&x).normalized(self.norm.before(tape, None, Activation::Identity));
        let x = ops::activate(tape, &x, None, Activation::Identity)?;
        ops::mean_pixels(tape, &ops::reshape(tape, &x, &image)?)
    }

    fn head(&self) -> &Linear {
        &self.head
    }
}

/// h = x + proj(attention(qkv(norm1(x)))), then h + fc2(gelu(fc1(norm2(h)))).
#[derive(Clone, Debug)]
struct Block {
    norm1: GroupNorm,
    qkv: Linear,
    proj: Linear,
    norm2: GroupNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl Block {
    fn new(width: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let linear = |inputs, outputs, name| Linear::new(LinearConfig { inputs, outputs, zero: false }, vb.pp(name));
        Ok(Block {
            norm1: GroupNorm::new(1, width, vb.pp("norm1"))?,
            qkv: linear(width, 3 * width, "qkv")?,
            proj: linear(width, width, "proj")?,
            norm2: GroupNorm::new(1, width, vb.pp("norm2"))?,
            fc1: linear(width, MLP_FACTOR * width, "fc1")?,
            fc2: linear(MLP_FACTOR * width, width, "fc2")?,
            heads,
        })
    }

    /// (B tokens, 1, 1, width), an image's tokens one after the other.
    fn forward(&self, tape: &Tape, x: &Value, tokens: usize) -> Result<Value> {
        let (rows, _, _, width) = x.nhwc()?;
        let normalized =
            |x: &Value, norm: &GroupNorm| Input::of(x).normalized(norm.before(tape, None, Activation::Identity));
        let qkv = self.qkv.over_pixels(tape, &normalized(x, &self.norm1), None)?;
        let qkv = ops::reshape(tape, &qkv, &[rows / tokens, tokens, 3 * width])?;
        let mixed = ops::attention(tape, &qkv, self.heads)?;
        let mixed = ops::reshape(tape, &mixed, &[rows, 1, 1, width])?;
        let h = self.proj.over_pixels(tape, &Input::of(&mixed), Some(x))?;
        let hidden = self.fc1.over_pixels(tape, &normalized(&h, &self.norm2), None)?;
        let hidden = ops::activate(tape, &Input::of(&hidden), None, Activation::Gelu)?;
        self.fc2.over_pixels(tape, &Input::of(&hidden), Some(&h))
    }
}
