//! Augmentations, ConvNet and SGD give PyTorch's numbers (fixtures from scripts/make_eval_fixtures.py).

use std::collections::{BTreeMap, HashMap};
use std::slice;

use candle_core::{Device, Tensor};
use distill::data::ImageSet;
use distill::eval::{
    Augmentation, BatchSource, Color, Length, Optimizer, OptimizerKind, PixelTable, Protocol, Schedule, SoftTargets,
    Targets, TrainingSet, train_step,
};
use distill::models::students::{Classifier, ConvNet, ConvNetConfig, NormKind};
use distill::nn::Params;
use distill::ops::cpu::tensor;
use distill::ops::{Tape, Value};

use super::{CIFAR100, classes, floats};

pub fn fixture(name: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/fixtures/eval_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

pub fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Images (N, H, W, 3) of label 0.
pub fn image_set(images: &Tensor) -> ImageSet {
    let (n, size, _, _) = images.dims4().unwrap();
    ImageSet { pixels: bytes(images), labels: vec![0; n], size, classes: classes(5) }
}

fn source(set: ImageSet) -> BatchSource<TrainingSet> {
    BatchSource::new(TrainingSet::from(set), CIFAR100, &Device::Cpu).unwrap()
}

fn loss(step: distill::error::Result<Tensor>) -> f32 {
    step.unwrap().to_scalar().unwrap()
}

pub fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: off by {worst}, allowed {tolerance}");
}

#[test]
fn augmentations_match_pytorch() {
    let fixture = fixture("augment");
    // Row k of a parameter tensor (K, N) holds the k-th parameter of each image.
    let rows = |name: &str| -> Vec<Vec<f32>> { floats(&fixture[name]).chunks(3).map(<[f32]>::to_vec).collect() };
    let pairs = |name: &str| -> Vec<[f32; 2]> {
        let rows = rows(name);
        rows[0].iter().zip(&rows[1]).map(|(a, b)| [*a, *b]).collect()
    };
    let color = rows("color");
    let color = |i: usize| Color { brightness: color[0][i], saturation: color[1][i], contrast: color[2][i] };
    let cases = [
        ("color", Augmentation::Color((0..3).map(color).collect())),
        ("crop", Augmentation::Crop(pairs("crop").iter().map(|p| p.map(|v| v as i32)).collect())),
        ("cutout", Augmentation::Cutout(pairs("cutout").iter().map(|p| p.map(|v| v as usize)).collect())),
        ("flip", Augmentation::Flip(bytes(&fixture["flip"]).iter().map(|&f| f == 1).collect())),
        ("scale", Augmentation::Scale(pairs("scale"))),
        ("rotate", Augmentation::Rotate(floats(&fixture["rotate"]))),
        ("rotate64", Augmentation::Rotate(floats(&fixture["rotate64"]))),
    ];
    for (name, augmentation) in cases {
        let set = image_set(&fixture[if name == "rotate64" { "images64" } else { "images" }]);
        let all: Vec<u32> = (0..set.len() as u32).collect();
        let images = source(set).batch(&all, &[augmentation]).unwrap();
        assert_close(name, &floats(&images), &floats(&fixture[&format!("out.{name}")]), 1e-5);
    }
}

/// The fixture's network with its first weights.
fn fixture_network(fixture: &HashMap<String, Tensor>) -> (ConvNet, Params) {
    let params = Params::new(0, &Device::Cpu);
    let network = ConvNet::new(
        ConvNetConfig { depth: 3, width: 8, norm: NormKind::Instance, size: 32, classes: 5 },
        params.builder(),
    )
    .unwrap();
    params.assign(&prefixed(fixture, "weights."), "fixture").unwrap();
    (network, params)
}

fn prefixed(fixture: &HashMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let sorted: BTreeMap<_, _> = fixture.clone().into_iter().collect();
    sorted.into_iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t))).collect()
}

#[test]
fn convnet_matches_pytorch() {
    let fixture = fixture("convnet");
    let (network, _) = fixture_network(&fixture);
    let set = image_set(&fixture["images"]);
    let all: Vec<u32> = (0..set.len() as u32).collect();
    let x = tensor(PixelTable::new(CIFAR100).batch(&set, &all), (set.len(), 32, 32, 3)).unwrap();
    let (tape, x) = (Tape::inference(), Value::constant(x));
    let logits = network.forward(&tape, &x).unwrap();
    assert_close("logits", &floats(logits.tensor()), &floats(&fixture["logits"]), 1e-4);
    let features = network.features(&tape, &x).unwrap();
    assert_eq!(features.dims(), [set.len(), 4 * 4 * 8]);
    let logits = network.head().forward(&tape, &features).unwrap();
    assert_close("logits from features", &floats(logits.tensor()), &floats(&fixture["logits"]), 1e-4);
}

#[test]
fn ten_updates_follow_pytorch() {
    let fixture = fixture("convnet");
    let (network, params) = fixture_network(&fixture);
    let source = source(image_set(&fixture["images"]));
    let labels = bytes(&fixture["labels"]);
    let protocol = Protocol { lr: 0.05, ..Protocol::named("challenge").unwrap() };
    let fresh = || Optimizer::new(&params, &params, &protocol).unwrap();
    let mut optimizer = fresh();
    let mut losses = Vec::new();
    for (step, batch) in bytes(&fixture["batches"]).chunks(8).enumerate() {
        if step == 5 {
            optimizer = fresh();
            optimizer.set_lr(protocol.lr * 0.1);
        }
        let indices: Vec<u32> = batch.iter().map(|&i| u32::from(i)).collect();
        let labels = Targets::Hard(batch.iter().map(|&i| u16::from(labels[usize::from(i)])).collect());
        losses.push(loss(train_step(&network, &mut optimizer, source.batch(&indices, &[]).unwrap(), &labels)));
    }
    assert_close("losses", &losses, &floats(&fixture["losses"]), 1e-4);
    let trained = prefixed(&fixture, "trained.");
    for (name, found) in params.named() {
        assert_close(&name, &floats(&found), &floats(&trained[&name]), 1e-4);
    }
}

/// The per-step losses of the whole recipe: batches, each kind of augmentation, network, loss and SGD.
#[test]
fn augmented_updates_follow_pytorch() {
    let fixture = fixture("convnet");
    let (network, params) = fixture_network(&fixture);
    let source = source(image_set(&fixture["images"]));
    let labels = bytes(&fixture["labels"]);
    let rows = |name: &str| -> Vec<Vec<f32>> {
        floats(&fixture[&format!("augmented.{name}")]).chunks(8).map(<[f32]>::to_vec).collect()
    };
    let pairs = |name: &str| -> Vec<[f32; 2]> {
        let rows = rows(name);
        rows[0].iter().zip(&rows[1]).map(|(a, b)| [*a, *b]).collect()
    };
    let color = rows("color");
    let color = |i: usize| Color { brightness: color[0][i], saturation: color[1][i], contrast: color[2][i] };
    let kinds = [
        Augmentation::Color((0..8).map(color).collect()),
        Augmentation::Crop(pairs("crop").iter().map(|p| p.map(|v| v as i32)).collect()),
        Augmentation::Cutout(pairs("cutout").iter().map(|p| p.map(|v| v as usize)).collect()),
        Augmentation::Flip(rows("flip")[0].iter().map(|&f| f == 1.0).collect()),
        Augmentation::Scale(pairs("scale")),
        Augmentation::Rotate(rows("rotate")[0].clone()),
    ];
    let protocol = Protocol { lr: 0.05, ..Protocol::named("challenge").unwrap() };
    let mut optimizer = Optimizer::new(&params, &params, &protocol).unwrap();
    let mut losses = Vec::new();
    for (batch, kind) in bytes(&fixture["augmented.batches"]).chunks(8).zip(&kinds) {
        let indices: Vec<u32> = batch.iter().map(|&i| u32::from(i)).collect();
        let images = source.batch(&indices, slice::from_ref(kind)).unwrap();
        let labels = Targets::Hard(batch.iter().map(|&i| u16::from(labels[usize::from(i)])).collect());
        losses.push(loss(train_step(&network, &mut optimizer, images, &labels)));
    }
    assert_close("losses", &losses, &floats(&fixture["augmented.losses"]), 1e-4);
}

#[test]
fn soft_updates_follow_pytorch() {
    let fixture = fixture("convnet");
    let ((network, params), (_, average)) = (fixture_network(&fixture), fixture_network(&fixture));
    let source = source(image_set(&fixture["images"]));
    let labels = floats(&fixture["soft.labels"]);
    let soft = SoftTargets { temperature: 4.0 };
    let protocol = Protocol {
        length: Length::Updates(8),
        schedule: Schedule::Cosine,
        optimizer: OptimizerKind::Adamw,
        lr: 0.01,
        weight_decay: 0.05,
        soft_labels: Some(soft),
        ..Protocol::named("soft").unwrap()
    };
    let mut optimizer = Optimizer::new(&params, &average, &protocol).unwrap();
    let mut losses = Vec::new();
    for (update, batch) in (0..).zip(bytes(&fixture["soft.batches"]).chunks(8)) {
        let indices: Vec<u32> = batch.iter().map(|&i| u32::from(i)).collect();
        let rows = batch.iter().flat_map(|&i| &labels[usize::from(i) * 5..][..5]).copied().collect();
        optimizer.set_lr(protocol.lr_at(update, 8).unwrap());
        let images = source.batch(&indices, &[]).unwrap();
        losses.push(loss(train_step(&network, &mut optimizer, images, &Targets::Soft(rows, soft))));
    }
    let expected = floats(&fixture["soft.losses"]);
    assert!(expected[7] < 0.7 * expected[0], "the updates show in the losses: {expected:?}");
    assert_close("losses", &losses, &expected, 2e-4);
}
