//! The ConvNet's depth: one number, or one that depends on the images' size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Blocks of the ConvNet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of blocks, or one for each image size, as { 32 = 3, 64 = 4 }")]
pub enum Depth {
    /// For images of every size.
    Fixed(usize),
    /// By the smallest side in pixels that it is meant for.
    BySize(BTreeMap<String, usize>),
}

impl From<usize> for Depth {
    fn from(depth: usize) -> Self {
        Depth::Fixed(depth)
    }
}

impl Depth {
    /// The depth for images of `size` x `size` pixels: that of the largest listed size which they reach. Errors are
    /// sentences.
    pub fn at(&self, size: usize) -> Result<usize, String> {
        let by_size = match self {
            Depth::Fixed(depth) => return Ok(*depth),
            Depth::BySize(by_size) => by_size,
        };
        let sizes = by_size.iter().filter_map(|(listed, &depth)| Some((listed.parse::<usize>().ok()?, depth)));
        let sizes: BTreeMap<usize, usize> = sizes.collect();
        match (sizes.range(..=size).next_back(), sizes.keys().next()) {
            (Some((_, &depth)), _) => Ok(depth),
            (None, Some(least)) => Err(format!(
                "convnet.depth is for images of at least {least} x {least} pixels, but these are {size} x {size}; add a \
                 depth for that size"
            )),
            (None, None) => Err("convnet.depth lists no size; expected { 32 = 3, 64 = 4 }".into()),
        }
    }

    /// The depths, if each stands for a whole number of pixels. Errors are sentences.
    pub(super) fn all(&self) -> Result<Vec<usize>, String> {
        match self {
            Depth::Fixed(depth) => Ok(vec![*depth]),
            Depth::BySize(by_size) => {
                if let Some(strange) = by_size.keys().find(|key| key.parse::<u16>().map_or(true, |size| size == 0)) {
                    return Err(format!("convnet.depth has a key {strange:?}, expected an image size in pixels"));
                }
                self.at(usize::MAX)?;
                Ok(by_size.values().copied().collect())
            }
        }
    }
}
