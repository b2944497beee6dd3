//! What stands behind a student's convolutions: a norm, or none.

use std::fmt;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use crate::error::Result;
use crate::nn::GroupNorm;
use crate::ops::{Activation, Input, Norm, Tape, Value};

/// Groups of [`NormKind::Group`], as in the dataset-condensation benchmark.
const GROUPS: usize = 4;

/// The norms of the dataset-condensation benchmark, but for batch norm, each with a factor and an offset a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    None,
    /// Each channel of an image by itself.
    Instance,
    /// A quarter of an image's channels together.
    Group,
    /// A whole image. The benchmark has a factor a value here, not a channel.
    Layer,
}

impl NormKind {
    pub const ALL: [NormKind; 4] = [NormKind::None, NormKind::Instance, NormKind::Group, NormKind::Layer];

    pub fn as_str(self) -> &'static str {
        match self {
            NormKind::None => "none",
            NormKind::Instance => "instance",
            NormKind::Group => "group",
            NormKind::Layer => "layer",
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
pub struct ChannelNorm {
    norm: Option<GroupNorm>,
    channels: usize,
}

impl ChannelNorm {
    /// `channels` must be a multiple of 4 for [`NormKind::Group`].
    pub fn new(kind: NormKind, channels: usize, vb: VarBuilder) -> Result<Self> {
        let groups = match kind {
            NormKind::None => return Ok(ChannelNorm { norm: None, channels }),
            NormKind::Instance => channels,
            NormKind::Group => GROUPS,
            NormKind::Layer => 1,
        };
        Ok(ChannelNorm { norm: Some(GroupNorm::new(groups, channels, vb)?), channels })
    }

    /// act(norm(`x`)), as the next layer reads it.
    pub fn of(&self, tape: &Tape, x: &Value, act: Activation) -> Result<Input> {
        let norm = match &self.norm {
            Some(norm) => norm.before(tape, None, act),
            None => {
                let constant = |value: f32| {
                    Result::Ok(Value::constant(Tensor::from_vec(
                        vec![value; self.channels],
                        self.channels,
                        &Device::Cpu,
                    )?))
                };
                let (gamma, beta) = (constant(1.0)?, constant(0.0)?);
                Norm { gamma, beta, scale_shift: None, groups: 0, act, eps: 0.0 }
            }
        };
        Ok(Input::of(x).normalized(norm))
    }
}
