//! Every parameter of every network earns a gradient: candle loses some without an error, and a layer that is built but
//! never called looks like a trained one.

use candle_core::{Device, Tensor};
use distill::error::Result;
use distill::models::students::{Classifier, ConvNet, ConvNetConfig, NormKind};
use distill::models::unet::{LatentShape, UNet, UNetConfig};
use distill::models::vae::{Vae, VaeConfig};
use distill::nn::Params;
use distill::ops::{Tape, Value, cross_entropy, gaussian_kl, gaussian_sample, squared_error, weighted_sum};
use distill::rng::Rng;

/// A gradient whose largest element is a smaller part than this of the network's largest is taken for rounding.
const ROUNDING: f32 = 1e-6;

fn normal(name: &str, dims: &[usize]) -> Tensor {
    let values = Rng::stream(3, name, 0, 0).normal(dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.flatten_all().unwrap().abs().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// Builds a network, runs one backward pass and checks the gradient of each parameter: its shape, that it is finite, and
/// that it is not zero, or, for the names that `cancels` picks, that it is.
fn check<N>(
    build: impl Fn(&Params) -> Result<N>,
    loss: impl Fn(&N, &Tape) -> Result<Value>,
    cancels: impl Fn(&str) -> bool,
) {
    let params = Params::new(7, &Device::Cpu);
    let network = build(&params).unwrap();
    // The last layer of a residual branch starts from zero and hides everything before it from the first backward pass,
    // so look at a place near the start instead.
    let near = |(name, p): (String, Tensor)| {
        let noise = (normal(&name, p.dims()) * 0.1).unwrap();
        (name, (p + noise).unwrap())
    };
    params.assign(&params.named().into_iter().map(near).collect(), "noise").unwrap();

    let tape = Tape::recording();
    let value = loss(&network, &tape).unwrap();
    assert!(value.scalar().unwrap().is_finite());
    let gradients = tape.backward(&value).unwrap();
    let gradient = |(name, p): (String, Tensor)| {
        let found = gradients.get(&p).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(found.dims(), p.dims(), "{name}: shape of the gradient");
        assert!(
            found.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()),
            "{name}: {found}"
        );
        (name, largest(found))
    };
    let found: Vec<(String, f32)> = params.named().into_iter().map(gradient).collect();
    let bound = ROUNDING * found.iter().fold(0.0, |m: f32, (_, size)| m.max(*size));
    for (name, size) in &found {
        assert_eq!(*size < bound, cancels(name), "{name}: its gradient's largest element is {size}");
    }
}

#[test]
fn of_the_vae() {
    for (channels, blocks) in [(vec![8], 1), (vec![8, 16, 24], 2)] {
        let config = VaeConfig { channels, blocks, groups: 4, latent_channels: 3 };
        let side = 8 / config.factor();
        let build = |params: &Params| Vae::new(&config, params.builder());
        let loss = |vae: &Vae, tape: &Tape| {
            let images = normal("images", &[3, 8, 8, 3]);
            let moments = vae.encode(tape, &Value::constant(images.clone()))?;
            let latents = gaussian_sample(tape, &moments, &normal("noise", &[3, side, side, 3]))?;
            let error = squared_error(tape, &vae.decode(tape, &latents)?, &images, None)?;
            weighted_sum(tape, &[(&error, 1.0), (&gaussian_kl(tape, &moments)?, 0.1)])
        };
        check(build, loss, |_| false);
    }
}

#[test]
fn of_the_unet() {
    for (channel_mult, blocks, attention_at) in [(vec![1], 1, vec![]), (vec![1, 2, 2], 2, vec![8, 2])] {
        let config = UNetConfig { channels: 16, channel_mult, blocks, attention_at, head_dim: 8, groups: 4 };
        let shape = LatentShape { size: 8, channels: 3, classes: 2 };
        let build = |params: &Params| UNet::new(&config, shape, params.builder());
        let loss = |unet: &UNet, tape: &Tape| {
            let noisy = Value::constant(normal("noisy", &[3, 8, 8, 3]));
            let prediction = unet.forward(tape, &noisy, &[0.0, 300.0, 999.0], &[0, 1, 2])?;
            squared_error(tape, &prediction, &normal("target", &[3, 8, 8, 3]), None)
        };
        check(build, loss, |_| false);
    }
}

#[test]
fn of_the_convnet() {
    let config = ConvNetConfig { depth: 3, width: 8, norm: NormKind::Instance, size: 16, classes: 4 };
    let build = |params: &Params| ConvNet::new(config, params.builder());
    let loss = |net: &ConvNet, tape: &Tape| {
        let logits = net.forward(tape, &Value::constant(normal("images", &[3, 16, 16, 3])))?;
        cross_entropy(tape, &logits, &[0, 3, 1])
    };
    // The instance norm after each convolution takes its bias away again, in the published network too.
    check(build, loss, |name| name.ends_with("conv.bias"));
}
