//! The classifiers that judge a distilled set.

mod convnet;

pub use convnet::{ConvNet, ConvNetConfig};
