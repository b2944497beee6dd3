//! The class-conditional denoiser: the UNet of Dhariwal and Nichol (2021), section 3, with multi-head self-attention.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::nn::{
    AttentionBlock, Conv2d, ConvConfig, GroupNorm, Linear, LinearConfig, ResBlock, ResBlockConfig, timestep_embedding,
};
use crate::ops::{self, Activation, Input, Tape, Value};
use crate::usage;

/// The sizes of the UNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels at the latents' resolution before `channel_mult`.
    pub channels: usize,
    /// Factor of the channels at each resolution, each half the one before.
    pub channel_mult: Vec<usize>,
    /// Residual blocks at each resolution on the way down (one more on the way up).
    pub blocks: usize,
    /// Resolutions with self-attention, in latent pixels.
    pub attention_at: Vec<usize>,
    /// Channels of one attention head.
    pub head_dim: usize,
    /// Groups of the group normalizations; divides `channels`.
    pub groups: usize,
}

/// What the data decides.
#[derive(Clone, Copy, Debug)]
pub struct LatentShape {
    /// Height and width in latent pixels.
    pub size: usize,
    pub channels: usize,
    /// Classes of the data set; the network gets one more, the null class of guidance.
    pub classes: usize,
}

impl UNetConfig {
    /// The resolutions from first to last level.
    fn resolutions(&self, size: usize) -> Vec<usize> {
        (0..self.channel_mult.len()).map(|i| size >> i).collect()
    }

    /// Refuses a configuration that no network can have, for latents of `size` x `size` pixels.
    pub fn check(&self, size: usize) -> Result<()> {
        if self.channels == 0 || self.blocks == 0 || self.channel_mult.is_empty() || self.channel_mult.contains(&0) {
            usage!("unet.channels, unet.blocks and unet.channel_mult must not be empty or 0");
        }
        if !self.channels.is_multiple_of(2) || self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            usage!(
                "unet.groups is {}, which must divide unet.channels ({}, an even number); change one of them",
                self.groups,
                self.channels
            );
        }
        let halvings = self.channel_mult.len() - 1;
        if !size.is_multiple_of(1 << halvings) {
            usage!(
                "unet.channel_mult has {} entries, but latents of {size} x {size} pixels cannot be halved {halvings} \
                 times; remove an entry",
                self.channel_mult.len()
            );
        }
        let resolutions = self.resolutions(size);
        if let Some(at) = self.attention_at.iter().find(|at| !resolutions.contains(at)) {
            usage!("unet.attention_at has {at}, but the resolutions are {resolutions:?}; choose among them");
        }
        for (mult, resolution) in self.channel_mult.iter().zip(&resolutions) {
            let width = self.channels * mult;
            let attends = self.attention_at.contains(resolution) || Some(resolution) == resolutions.last();
            if attends && (self.head_dim == 0 || !width.is_multiple_of(self.head_dim)) {
                usage!(
                    "unet.head_dim is {}, which does not divide the {width} channels at {resolution} x {resolution}; \
                     choose a divisor",
                    self.head_dim
                );
            }
        }
        Ok(())
    }
}

/// A residual block and the attention that may follow it.
#[derive(Clone, Debug)]
struct Block {
    res: ResBlock,
    attention: Option<AttentionBlock>,
}

impl Block {
    /// `x`: (B, H, W, in), or two that have so many channels together.
    fn forward(&self, tape: &Tape, x: &[&Value], embedding: &Value) -> Result<Value> {
        let h = self.res.forward(tape, x, Some(embedding))?;
        match &self.attention {
            Some(attention) => attention.forward(tape, &h),
            None => Ok(h),
        }
    }
}

/// One resolution, on the way down or up, and the convolution that leads to the next.
#[derive(Clone, Debug)]
struct Level {
    blocks: Vec<Block>,
    resample: Option<Conv2d>,
}

/// Predicts noise or velocity from noisy latents, times and classes.
#[derive(Clone, Debug)]
pub struct UNet {
    time1: Linear,
    time2: Linear,
    /// (classes + 1, embedding width); the last row is the null class.
    class: Tensor,
    conv_in: Conv2d,
    down: Vec<Level>,
    mid1: Block,
    mid2: Block,
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    channels: usize,
}

impl UNet {
    pub fn new(config: &UNetConfig, latents: LatentShape, vb: VarBuilder) -> Result<Self> {
        let base = config.channels;
        let width = 4 * base;
        let mut builder = Builder { config, width, skips: vec![base], channels: base };
        let down = builder.down(latents.size, &vb)?;
        let last = latents.size >> (config.channel_mult.len() - 1);
        let mid1 = builder.block(
            builder.channels,
            builder.channels,
            true,
            vb.pp("mid").pp(format!("{last}x{last}_block0")),
        )?;
        let mid2 = builder.block(
            builder.channels,
            builder.channels,
            false,
            vb.pp("mid").pp(format!("{last}x{last}_block1")),
        )?;
        let up = builder.up(latents.size, &vb)?;
        Ok(UNet {
            time1: Linear::new(LinearConfig { inputs: base, outputs: width, zero: false }, vb.pp("time1"))?,
            time2: Linear::new(LinearConfig { inputs: width, outputs: width, zero: false }, vb.pp("time2"))?,
            class: vb.get_with_hints((latents.classes + 1, width), "class", Init::Randn { mean: 0.0, stdev: 1.0 })?,
            conv_in: Conv2d::new(latents.channels, base, ConvConfig::default(), vb.pp("conv_in"))?,
            down,
            mid1,
            mid2,
            up,
            norm_out: GroupNorm::new(config.groups, base * config.channel_mult[0], vb.pp("norm_out"))?,
            conv_out: Conv2d::new(
                base * config.channel_mult[0],
                latents.channels,
                ConvConfig { zero: true, ..Default::default() },
                vb.pp("conv_out"),
            )?,
            channels: base,
        })
    }

    /// `x`: (B, H, W, C) noisy latents; `times`: (B), the schedule's step of each; `classes`: (B). Result: as `x`.
    pub fn forward(&self, tape: &Tape, x: &Value, times: &[f32], classes: &[u32]) -> Result<Value> {
        let embedding = self.embed(tape, times, classes, x)?;
        let mut h = self.conv_in.forward(tape, &Input::of(x))?;
        let mut skips = vec![h.clone()];
        for level in &self.down {
            for block in &level.blocks {
                h = block.forward(tape, &[&h], &embedding)?;
                skips.push(h.clone());
            }
            if let Some(down) = &level.resample {
                h = down.forward(tape, &Input::of(&h))?;
                skips.push(h.clone());
            }
        }
        h = self.mid1.forward(tape, &[&h], &embedding)?;
        h = self.mid2.forward(tape, &[&h], &embedding)?;
        for level in &self.up {
            for block in &level.blocks {
                h = match skips.pop() {
                    Some(skip) => block.forward(tape, &[&h, &skip], &embedding)?,
                    None => block.forward(tape, &[&h], &embedding)?,
                };
            }
            if let Some(up) = &level.resample {
                h = up.forward(tape, &Input::of(&h).upsampled())?;
            }
        }
        let norm = self.norm_out.before(tape, None, Activation::Silu);
        self.conv_out.forward_f32(tape, &Input::of(&h).normalized(norm))
    }

    /// silu(time MLP + class embedding): (B, 4 channels).
    fn embed(&self, tape: &Tape, times: &[f32], classes: &[u32], x: &Value) -> Result<Value> {
        let time = Value::constant(timestep_embedding(times, self.channels, x.tensor().device())?);
        let time = ops::silu(tape, &self.time1.forward(tape, &time)?)?;
        let class = ops::embedding(tape, &tape.param(&self.class), classes)?;
        ops::silu(tape, &ops::add(tape, &self.time2.forward(tape, &time)?, &class)?)
    }
}

/// Follows the channel counts while the levels are built.
struct Builder<'a> {
    config: &'a UNetConfig,
    /// Width of the embedding.
    width: usize,
    /// Channels of the skip connections still to be used.
    skips: Vec<usize>,
    channels: usize,
}

impl Builder<'_> {
    fn block(&self, inputs: usize, outputs: usize, attends: bool, vb: VarBuilder) -> Result<Block> {
        let groups = self.config.groups;
        let sizes = ResBlockConfig { in_channels: inputs, out_channels: outputs, groups, embedding: Some(self.width) };
        let attention = match attends {
            true => Some(AttentionBlock::new(outputs, outputs / self.config.head_dim, groups, vb.pp("attention"))?),
            false => None,
        };
        Ok(Block { res: ResBlock::new(sizes, vb.pp("res"))?, attention })
    }

    fn down(&mut self, size: usize, vb: &VarBuilder) -> Result<Vec<Level>> {
        let mut levels = Vec::new();
        let resolutions = self.config.resolutions(size);
        for (i, (&at, mult)) in resolutions.iter().zip(&self.config.channel_mult).enumerate() {
            let (outputs, attends) = (self.config.channels * mult, self.config.attention_at.contains(&at));
            let mut blocks = Vec::new();
            for b in 0..self.config.blocks {
                let vb = vb.pp("down").pp(format!("{at}x{at}_block{b}"));
                blocks.push(self.block(self.channels, outputs, attends, vb)?);
                self.channels = outputs;
                self.skips.push(outputs);
            }
            let mut resample = None;
            if i + 1 < resolutions.len() {
                let conv = ConvConfig { stride: 2, ..Default::default() };
                let vb = vb.pp("down").pp(format!("{at}x{at}_resample"));
                resample = Some(Conv2d::new(outputs, outputs, conv, vb)?);
                self.skips.push(outputs);
            }
            levels.push(Level { blocks, resample });
        }
        Ok(levels)
    }

    fn up(&mut self, size: usize, vb: &VarBuilder) -> Result<Vec<Level>> {
        let mut levels = Vec::new();
        let resolutions = self.config.resolutions(size);
        for (i, (&at, mult)) in resolutions.iter().zip(&self.config.channel_mult).enumerate().rev() {
            let (outputs, attends) = (self.config.channels * mult, self.config.attention_at.contains(&at));
            let mut blocks = Vec::new();
            for b in 0..=self.config.blocks {
                let vb = vb.pp("up").pp(format!("{at}x{at}_block{b}"));
                let skip = self.skips.pop().unwrap_or_default();
                blocks.push(self.block(self.channels + skip, outputs, attends, vb)?);
                self.channels = outputs;
            }
            let mut resample = None;
            if i > 0 {
                let vb = vb.pp("up").pp(format!("{at}x{at}_resample"));
                resample = Some(Conv2d::new(outputs, outputs, ConvConfig::default(), vb)?);
            }
            levels.push(Level { blocks, resample });
        }
        Ok(levels)
    }
}
