//! Every student gives PyTorch's logits, gradients and losses from the same weights (fixture from
//! scripts/make_eval_fixtures.py), and has a name that leads back to it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use distill::eval::{Optimizer, PixelTable, Protocol, StudentKind, Targets, train_step};
use distill::models::students::Classifier;
use distill::models::students::ConvNetSize;
use distill::nn::{Params, count};
use distill::ops::cpu::tensor;
use distill::ops::{Tape, Value, cross_entropy};
use distill::rng::Rng;

use super::pytorch::{assert_close, bytes, fixture, image_set};
use super::{CIFAR100, floats};

const NAMES: [&str; 12] = [
    "convnet-d2-w8-none",
    "convnet-d4-w8-group",
    "convnet-d3-w8-batch",
    "convnet-d5-w8-layer",
    "resnet18-w4",
    "resnet18-w8-group",
    "resnet18-w4-batch",
    "vgg11-w4",
    "alexnet-w8",
    "lenet",
    "mlp-w16",
    "vit-d2-w64",
];
const CONVNET: ConvNetSize = ConvNetSize { depth: 3, width: 128 };

/// The values of `hashed` in the script.
pub fn hashed(n: usize, salt: u64) -> Vec<f32> {
    let value = |i: u64| {
        let x = (i * 2_654_435_761 + salt * 40_503 + 12_345) as u32;
        let x = (x ^ x >> 15).wrapping_mul(2_246_822_519);
        let x = (x ^ x >> 13).wrapping_mul(3_266_489_917);
        (f64::from((x ^ x >> 16) >> 8) / f64::from(1 << 23) - 1.0) as f32
    };
    (0..n as u64).map(value).collect()
}

fn set_hashed(params: &Params) {
    let values = |salt: usize, name: &str, tensor: &Tensor| {
        let (norm, factor) = (
            name.contains("norm") && name.ends_with("weight"),
            match tensor.dims() {
                [_] => 0.2,
                _ if name == "positions" => 0.2,
                dims => (3.0 / dims[1..].iter().product::<usize>() as f32).sqrt(),
            },
        );
        let values = hashed(tensor.elem_count(), salt as u64).into_iter();
        let values = values.map(|v| factor * v + f32::from(u8::from(norm))).collect();
        Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap()
    };
    let mut tensors = copies(params);
    for (i, (name, tensor)) in params.trainable().into_iter().enumerate() {
        tensors.insert(name.clone(), values(i, &name, &tensor));
    }
    params.assign(&tensors, "hashes").unwrap();
}

fn copies(params: &Params) -> BTreeMap<String, Tensor> {
    params.named().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect()
}

fn build(name: &str, size: usize, classes: usize) -> (Box<dyn Classifier>, Params) {
    let params = Params::new(0, &Device::Cpu);
    let kind: StudentKind = name.parse().unwrap();
    let network = kind.build(CONVNET, size, classes, params.builder()).unwrap();
    (network, params)
}

#[test]
fn students_match_pytorch() {
    let fixture = fixture("students");
    let set = image_set(&fixture["images"]);
    let labels: Vec<u16> = bytes(&fixture["labels"]).into_iter().map(u16::from).collect();
    let images = PixelTable::new(CIFAR100).batch(&set, &[0, 1, 2, 3]);
    for name in NAMES {
        let (network, params) = build(name, 32, 5);
        set_hashed(&params);
        let fresh = copies(&params);
        let tape = Tape::recording();
        let x = Value::constant(tensor(images.clone(), (4, 32, 32, 3)).unwrap());
        let logits = network.forward(&tape, &x).unwrap();
        assert_close(
            &format!("{name}: logits"),
            &floats(logits.tensor()),
            &floats(&fixture[&format!("{name}.logits")]),
            1e-4,
        );
        let tested = network.forward(&Tape::inference(), &x).unwrap();
        let expected = floats(&fixture[&format!("{name}.tested")]);
        assert_close(&format!("{name}: tested"), &floats(tested.tensor()), &expected, 1e-4);
        let loss = cross_entropy(&tape, &logits, &labels).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        let expected = floats(&fixture[&format!("{name}.gradients")]);
        assert_eq!(expected.len(), 2 * params.trainable().len(), "{name}");
        for (i, ((param, value), expected)) in params.trainable().iter().zip(expected.chunks(2)).enumerate() {
            let gradient = floats(gradients.get(value).unwrap());
            let hashes = hashed(gradient.len(), 1000 + i as u64);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let found = [dot(&gradient, &gradient).sqrt() as f32, dot(&gradient, &hashes) as f32];
            let tolerance = 1e-4 * (1.0 + expected[0]);
            assert_close(&format!("{name}: gradient of {param}"), &found, expected, tolerance);
        }
        params.assign(&fresh, "the start").unwrap(); // running statistics have seen a batch
        let protocol = Protocol { lr: 0.02, ..Protocol::named("challenge").unwrap() };
        let mut optimizer = Optimizer::new(&params, &params, &protocol).unwrap();
        let targets = Targets::Hard(labels.clone());
        let images = tensor(images.clone(), (4, 32, 32, 3)).unwrap();
        let step = |_| train_step(network.as_ref(), &mut optimizer, images.clone(), &targets).unwrap();
        let losses: Vec<f32> = (0..4).map(step).map(|loss| loss.to_scalar().unwrap()).collect();
        assert_close(&format!("{name}: losses"), &losses, &floats(&fixture[&format!("{name}.losses")]), 5e-4);
    }
}

#[test]
fn students_have_the_sizes_of_the_benchmark() {
    let fixture = fixture("students");
    for kind in StudentKind::ALL {
        let expected = fixture[&format!("{kind}.count")].to_vec1::<i64>().unwrap()[0];
        assert_eq!(count(|vb| kind.build(CONVNET, 32, 10, vb)).unwrap() as i64, expected, "{kind}");
    }
}

#[test]
fn every_parameter_of_every_student_gets_a_gradient_at_either_size() {
    let names = ["convnet", "resnet18-w8", "resnet18-w8-batch", "vgg11-w8", "alexnet-w8", "lenet", "mlp", "vit-d1-w32"];
    for (name, size) in names.into_iter().flat_map(|name| [(name, 32), (name, 64)]) {
        let (network, params) = build(name, size, 10);
        let tape = Tape::recording();
        let images = Rng::stream(0, "test", 0, 0).normal(4 * size * size * 3);
        let x = Value::constant(tensor(images, (4, size, size, 3)).unwrap());
        let features = network.features(&tape, &x).unwrap();
        assert_eq!((features.dims()[0], features.dims().len()), (4, 2), "{name}");
        let logits = network.forward(&tape, &x).unwrap();
        assert_eq!(logits.dims(), [4, 10], "{name}");
        let loss = cross_entropy(&tape, &logits, &[0, 3, 6, 9]).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        for (param, tensor) in params.trainable() {
            let gradient = floats(gradients.get(&tensor).unwrap());
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}: {param}");
            assert!(gradient.iter().any(|&g| g != 0.0), "{name}: {param} has no gradient");
        }
    }
}

#[test]
fn names_lead_back_to_students_and_others_are_refused() {
    for name in NAMES.into_iter().chain(["convnet", "vit", "convnet-d5-w256-instance", "vgg11-none"]) {
        assert_eq!(name.parse::<StudentKind>().unwrap().to_string(), name);
    }
    assert_eq!(StudentKind::ALL[0], StudentKind::CONVNET);
    for name in
        ["", "convnt", "convnet-", "convnet-w8-d4", "convnet-d0", "convnet-d04", "lenet-w8", "resnet18-d4", "mlp-group"]
    {
        let error = name.parse::<StudentKind>().unwrap_err();
        assert_eq!(error.exit_code(), 2, "{name}");
        assert!(error.to_string().contains("expected"), "{error}");
    }
}

#[test]
fn images_that_a_student_cannot_read_are_refused() {
    for (name, size, least) in [
        ("convnet-d5", 16, "at least 32"),
        ("resnet18", 8, "at least 16"),
        ("vgg11", 16, "at least 32"),
        ("alexnet", 4, "at least 8"),
        ("lenet", 12, "at least 16"),
        ("vit", 12, "multiple of 8"),
        ("resnet18-w4096", 32, "at most 536870912"),
    ] {
        let kind: StudentKind = name.parse().unwrap();
        let error = count(|vb| kind.build(CONVNET, size, 10, vb)).unwrap_err().to_string();
        assert!(error.contains(least), "{name}: {error}");
    }
}
