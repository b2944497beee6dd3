//! What stands behind a student's convolutions: a norm, or none.

use std::fmt;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::error::Result;
use crate::nn::{BatchNorm, GroupNorm};
use crate::ops::{Activation, Input, Norm, Tape, Value};

/// Groups of [`NormKind::Group`], as in the dataset-condensation benchmark.
const GROUPS: usize = 4;

/// The norms of the dataset-condensation benchmark, each with a factor and an offset a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    None,
    /// Each channel of an image by itself.
    Instance,
    /// A quarter of an image's channels together.
    Group,
    /// A whole image. The benchmark has a factor a value here, not a channel.
    Layer,
    /// Each channel of all images together; tested with running statistics.
    Batch,
}

impl NormKind {
    pub const ALL: [NormKind; 5] =
        [NormKind::None, NormKind::Instance, NormKind::Group, NormKind::Layer, NormKind::Batch];

    pub fn as_str(self) -> &'static str {
        match self {
            NormKind::None => "none",
            NormKind::Instance => "instance",
            NormKind::Group => "group",
            NormKind::Layer => "layer",
            NormKind::Batch => "batch",
        }
    }
}

impl fmt::Display for NormKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A norm over `channels` channels, or none.
#[derive(Clone, Debug)]
pub enum ChannelNorm {
    /// Of so many channels.
    None(usize),
    Group(GroupNorm),
    Batch(BatchNorm),
}

impl ChannelNorm {
    /// `channels` must be a multiple of 4 for [`NormKind::Group`].
    pub fn new(kind: NormKind, channels: usize, vb: VarBuilder) -> Result<Self> {
        let groups = match kind {
            NormKind::None => return Ok(ChannelNorm::None(channels)),
            NormKind::Batch => return Ok(ChannelNorm::Batch(BatchNorm::new(channels, vb)?)),
            NormKind::Instance => channels,
            NormKind::Group => GROUPS,
            NormKind::Layer => 1,
        };
        Ok(ChannelNorm::Group(GroupNorm::new(groups, channels, vb)?))
    }

    /// act(norm(`x`)), as the next layer reads it.
    pub fn of(&self, tape: &Tape, x: &Value, act: Activation) -> Result<Input> {
        let norm = match self {
            ChannelNorm::Group(norm) => norm.before(tape, None, act),
            ChannelNorm::Batch(norm) => norm.before(tape, x, act)?,
            &ChannelNorm::None(channels) => {
                let device = x.tensor().device();
                let constant = |value: f32| Result::Ok(Value::constant(Tensor::full(value, channels, device)?));
                let (gamma, beta) = (constant(1.0)?, constant(0.0)?);
                Norm { gamma, beta, scale_shift: None, groups: 0, act, eps: 0.0 }
            }
        };
        Ok(Input::of(x).normalized(norm))
    }
}
