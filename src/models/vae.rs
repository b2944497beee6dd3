//! KL autoencoder (Kingma and Welling 2014; the convolutional form of Rombach et al. 2022), fully convolutional.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::nn::{Conv2d, ConvConfig, GroupNorm, ResBlock, ResBlockConfig};
use crate::ops::{Activation, Input, Tape, Value};
use crate::usage;

/// The sizes of the autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Channels at full resolution, half of it, a quarter, ...: one entry more than the number of down-samplings.
    pub channels: Vec<usize>,
    /// Residual blocks at each resolution, in the encoder and in the decoder.
    pub blocks: usize,
    /// Groups of the group normalizations; divides every entry of `channels`.
    pub groups: usize,
    /// Channels of a latent pixel, which stands for `2^(entries of channels - 1)` pixels of a side.
    pub latent_channels: usize,
}

impl VaeConfig {
    /// Pixels of one side that become one latent pixel.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len().max(1) - 1)
    }

    /// Refuses a configuration that no network can have, for images of `size` x `size` pixels.
    pub fn check(&self, size: usize) -> Result<()> {
        if self.channels.is_empty() || self.blocks == 0 || self.latent_channels == 0 {
            usage!("vae.channels, vae.blocks and vae.latent_channels must not be empty or 0");
        }
        if let Some(c) = self.channels.iter().find(|&&c| self.groups == 0 || c == 0 || c % self.groups != 0) {
            usage!(
                "vae.groups is {}, which does not divide the {c} of vae.channels {:?}; change one of them",
                self.groups,
                self.channels
            );
        }
        if !size.is_multiple_of(self.factor()) {
            usage!(
                "vae.channels {:?} divides the side by {}, but images are {size} pixels wide; remove an entry",
                self.channels,
                self.factor()
            );
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Level {
    blocks: Vec<ResBlock>,
    /// Leads to the next level: a strided convolution in the encoder, one after up-sampling in the decoder.
    resample: Option<Conv2d>,
}

impl Level {
    fn new(
        config: &VaeConfig,
        inputs: usize,
        outputs: usize,
        resample: Option<ConvConfig>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let block = |i| {
            let in_channels = if i == 0 { inputs } else { outputs };
            let sizes = ResBlockConfig { in_channels, out_channels: outputs, groups: config.groups, embedding: None };
            ResBlock::new(sizes, vb.pp(format!("block{i}")))
        };
        Ok(Level {
            blocks: (0..config.blocks).map(block).collect::<Result<_>>()?,
            resample: match resample {
                Some(conv) => Some(Conv2d::new(outputs, outputs, conv, vb.pp("resample"))?),
                None => None,
            },
        })
    }

    fn blocks(&self, tape: &Tape, mut h: Value) -> Result<Value> {
        for block in &self.blocks {
            h = block.forward(tape, &[&h], None)?;
        }
        Ok(h)
    }
}

#[derive(Clone, Debug)]
struct Half {
    conv_in: Conv2d,
    levels: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Images (B, H, W, 3) in [-1, 1] to latents (B, H/f, W/f, latent_channels) and back.
#[derive(Clone, Debug)]
pub struct Vae {
    encoder: Half,
    decoder: Half,
    latent_channels: usize,
}

impl Vae {
    pub fn new(config: &VaeConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Vae {
            encoder: encoder(config, vb.pp("encoder"))?,
            decoder: decoder(config, vb.pp("decoder"))?,
            latent_channels: config.latent_channels,
        })
    }

    /// Images to the moments of their latents' distribution: means, then log-variances, (B, h, w, 2 latent_channels).
    pub fn encode(&self, tape: &Tape, images: &Value) -> Result<Value> {
        let mut h = self.encoder.conv_in.forward(tape, &Input::of(images))?;
        for level in &self.encoder.levels {
            h = level.blocks(tape, h)?;
            if let Some(down) = &level.resample {
                h = down.forward(tape, &Input::of(&h))?;
            }
        }
        self.encoder.finish(tape, &h)
    }

    /// The means of the latents' distribution: (B, h, w, latent_channels), without a tape.
    pub fn encode_mean(&self, images: &Tensor) -> Result<Tensor> {
        let moments = self.encode(&Tape::inference(), &Value::constant(images.clone()))?;
        Ok(moments.tensor().narrow(3, 0, self.latent_channels)?.contiguous()?)
    }

    /// Latents to images.
    pub fn decode(&self, tape: &Tape, latents: &Value) -> Result<Value> {
        let mut h = self.decoder.conv_in.forward(tape, &Input::of(latents))?;
        for level in &self.decoder.levels {
            h = level.blocks(tape, h)?;
            if let Some(up) = &level.resample {
                h = up.forward(tape, &Input::of(&h).upsampled())?;
            }
        }
        self.decoder.finish(tape, &h)
    }
}

impl Half {
    fn finish(&self, tape: &Tape, h: &Value) -> Result<Value> {
        let norm = self.norm_out.before(tape, None, Activation::Silu);
        self.conv_out.forward_f32(tape, &Input::of(h).normalized(norm))
    }
}

fn encoder(config: &VaeConfig, vb: VarBuilder) -> Result<Half> {
    let (channels, last) = (&config.channels, config.channels.len() - 1);
    let down = ConvConfig { stride: 2, ..Default::default() };
    let level = |i: usize| {
        let inputs = channels[i.saturating_sub(1)];
        let resample = (i < last).then_some(down);
        Level::new(config, inputs, channels[i], resample, vb.pp(format!("level{i}")))
    };
    Ok(Half {
        conv_in: Conv2d::new(3, channels[0], ConvConfig::default(), vb.pp("conv_in"))?,
        levels: (0..=last).map(level).collect::<Result<_>>()?,
        norm_out: GroupNorm::new(config.groups, channels[last], vb.pp("norm_out"))?,
        conv_out: Conv2d::new(channels[last], 2 * config.latent_channels, ConvConfig::default(), vb.pp("conv_out"))?,
    })
}

fn decoder(config: &VaeConfig, vb: VarBuilder) -> Result<Half> {
    let (channels, last) = (&config.channels, config.channels.len() - 1);
    let level = |i: usize| {
        let inputs = channels[(i + 1).min(last)];
        let resample = (i > 0).then_some(ConvConfig::default());
        Level::new(config, inputs, channels[i], resample, vb.pp(format!("level{i}")))
    };
    Ok(Half {
        conv_in: Conv2d::new(config.latent_channels, channels[last], ConvConfig::default(), vb.pp("conv_in"))?,
        levels: (0..=last).rev().map(level).collect::<Result<_>>()?,
        norm_out: GroupNorm::new(config.groups, channels[0], vb.pp("norm_out"))?,
        conv_out: Conv2d::new(channels[0], 3, ConvConfig::default(), vb.pp("conv_out"))?,
    })
}
