//! The classifiers that judge a distilled set.

mod alexnet;
mod convnet;
mod kind;
mod lenet;
mod mlp;
mod norm;
mod resnet;
mod vgg;
mod vit;

pub use alexnet::{AlexNet, AlexNetConfig};
pub use convnet::{ConvNet, ConvNetConfig, ConvNetSize};
pub use kind::StudentKind;
pub use lenet::LeNet;
pub use mlp::{Mlp, MlpConfig};
pub use norm::NormKind;
pub use resnet::{ResNet, ResNetConfig};
pub use vgg::{Vgg, VggConfig};
pub use vit::{Vit, VitConfig};

use crate::error::Result;
use crate::fail;
use crate::nn::Linear;
use crate::ops::{self, Activation, Input, Tape, Value};

/// A network that tells classes apart. Images come normalized, (B, H, W, 3).
pub trait Classifier {
    /// What the last layer reads: (B, F) in f32.
    fn features(&self, tape: &Tape, x: &Value) -> Result<Value>;

    /// The last layer, F features to logits.
    fn head(&self) -> &Linear;

    /// Logits (B, classes) in f32.
    fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        self.head().forward(tape, &self.features(tape, x)?)
    }
}

/// Refuses images of fewer than `least` pixels along a side.
fn at_least(student: &str, size: usize, least: usize) -> Result<()> {
    if size < least {
        fail!(
            "student {student}: images are {size} x {size} pixels, of which its poolings leave nothing; use images of at \
             least {least} pixels"
        );
    }
    Ok(())
}

/// relu(x) of (B, H, W, C).
fn relu(tape: &Tape, x: &Value) -> Result<Value> {
    ops::activate(tape, &Input::of(x), None, Activation::Relu)
}

/// relu(x) of (B, H, W, C), then the largest of every 2 x 2 pixels.
fn relu_and_pool(tape: &Tape, x: &Value) -> Result<Value> {
    ops::max_pool(tape, &relu(tape, x)?)
}

/// relu(x) of a hidden layer's values (B, F), in f32.
fn hidden(tape: &Tape, x: &Value) -> Result<Value> {
    let (batch, width) = x.tensor().dims2()?;
    let x = ops::reshape(tape, x, &[batch, 1, 1, width])?;
    ops::flatten(tape, &relu(tape, &x)?)
}
