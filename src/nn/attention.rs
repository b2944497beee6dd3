//! Multi-head self-attention over the pixels of an image, with its norm and residual.

use candle_nn::VarBuilder;

use super::{GroupNorm, Linear, LinearConfig};
use crate::error::Result;
use crate::ops::{self, Activation, Input, Tape, Value};

/// x + proj(attention(qkv(norm(x)))).
#[derive(Clone, Debug)]
pub struct AttentionBlock {
    norm: GroupNorm,
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl AttentionBlock {
    pub fn new(channels: usize, heads: usize, groups: usize, vb: VarBuilder) -> Result<Self> {
        let qkv = LinearConfig { inputs: channels, outputs: 3 * channels, zero: false };
        let proj = LinearConfig { inputs: channels, outputs: channels, zero: true };
        Ok(AttentionBlock {
            norm: GroupNorm::new(groups, channels, vb.pp("norm"))?,
            qkv: Linear::new(qkv, vb.pp("qkv"))?,
            proj: Linear::new(proj, vb.pp("proj"))?,
            heads,
        })
    }

    /// (B, H, W, C) to (B, H, W, C).
    pub fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let normalized = Input::of(x).normalized(self.norm.before(tape, None, Activation::Identity));
        let qkv = self.qkv.over_pixels(tape, &normalized, None)?;
        let mixed = ops::attention(tape, &qkv, self.heads)?;
        self.proj.over_pixels(tape, &Input::of(&mixed), Some(x))
    }
}
