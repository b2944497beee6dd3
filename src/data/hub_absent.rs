//! The hub's sets in a build without the feature `hub`: a word on how to get it.

use super::{Class, ImageSet, Split};
use crate::error::{Error, Result};

pub fn fetch(name: &str) -> Result<()> {
    Err(absent(name))
}

pub fn is_offline() -> bool {
    false
}

pub fn load(name: &str, _split: Split, _size: usize) -> Result<ImageSet> {
    Err(absent(name))
}

pub fn describe(name: &str) -> Result<(String, Vec<Class>, [usize; 2], String)> {
    Err(absent(name))
}

fn absent(name: &str) -> Error {
    Error::Usage(format!(
        "hf:{name}: this program was built without the hub's reader; build it with `cargo install --locked --path . \
         --features hub`"
    ))
}
