//! Students learn what can be learned, every seed gives its own bits, and sets that do not fit are refused.

use std::sync::Arc;

use candle_core::Device;
use distill::data::ImageSet;
use distill::distilled::SoftLabels;
use distill::eval::{
    ConvNetSizes, EpochMetrics, Evaluation, Length, Origin, PixelTable, Protocol, StudentKind, TrainingSet, Trial,
    evaluate, mean_and_std, view,
};
use distill::models::students::{Classifier, ConvNet, ConvNetConfig, NormKind};
use distill::nn::Params;
use distill::ops::cpu::tensor;
use distill::ops::{Tape, Value, cross_entropy};
use distill::progress::{Console, Verbosity};
use distill::rng::Rng;

use super::{CIFAR100, classes, floats};

#[test]
fn convnet_has_the_known_size() {
    // 320,010 is the number that the benchmark's code prints for CIFAR-10.
    for (classes, size, count) in [(10, 32, 320_010), (100, 32, 504_420), (200, 64, 1_938_120)] {
        let params = Params::new(0, &Device::Cpu);
        ConvNet::new(ConvNetConfig { depth: 3, width: 128, norm: NormKind::Instance, size, classes }, params.builder())
            .unwrap();
        assert_eq!(params.count(), count, "{classes} classes at {size}");
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let params = Params::new(1, &Device::Cpu);
    let network = ConvNet::new(
        ConvNetConfig { depth: 3, width: 128, norm: NormKind::Instance, size: 32, classes: 10 },
        params.builder(),
    )
    .unwrap();
    let images = Rng::stream(0, "test", 0, 0).normal(4 * 32 * 32 * 3);
    let tape = Tape::recording();
    let x = Value::constant(tensor(images, (4, 32, 32, 3)).unwrap());
    let loss = cross_entropy(&tape, &network.forward(&tape, &x).unwrap(), &[0, 3, 6, 9]).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    for (name, param) in params.named() {
        let gradient = floats(gradients.get(&param).unwrap());
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        let largest = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        // Instance norm takes a channel's mean away, so the bias before it has no effect: its gradient is rounding.
        assert_eq!(largest > 1e-5, !name.ends_with("conv.bias"), "{name}: largest gradient {largest}");
    }
}

/// Noisy textures that convolutions tell apart: stripes down, stripes across, a chequered board, plain ground.
pub fn textures(per_class: usize, seed: u64) -> ImageSet {
    let mut rng = Rng::stream(seed, "textures", 0, 0);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..4 * per_class {
        let (class, phase) = (i % 4, rng.below(4));
        for place in 0..16 * 16 {
            let (x, y) = ((place % 16 + phase) / 2 % 2, (place / 16 + phase) / 2 % 2);
            let bright = [x, y, x ^ y, 0][class] * 120;
            pixels.extend((0..3).map(|_| (50 + bright + rng.below(40)) as u8));
        }
        labels.push(class as u16);
    }
    ImageSet { pixels, labels, size: 16, classes: classes(4) }
}

pub fn small_protocol(epochs: u32, runs: u32) -> Protocol {
    let quick = Protocol::named("quick").unwrap().with_epochs(epochs).unwrap().with_runs(runs).unwrap();
    Protocol { batch_size: 16, convnet: ConvNetSizes { depth: 3.into(), width: 16 }, ..quick }
}

fn judge(protocol: &Protocol, train: &ImageSet, test: &ImageSet, seed: u64) -> (Evaluation, Vec<EpochMetrics>) {
    let train = &TrainingSet::from(train.clone());
    let trial = Trial {
        student: StudentKind::CONVNET,
        protocol,
        train,
        test,
        normalization: CIFAR100,
        seed,
        device: &Device::Cpu,
    };
    let origin = Origin { dataset: "textures".into(), on: "real".into(), split: "test".into(), labelled_by: None };
    let mut epochs = Vec::new();
    let console = Console::new(Verbosity::Quiet);
    let mut metrics = |m: &EpochMetrics| {
        epochs.push(m.clone());
        Ok(())
    };
    let found = evaluate(&trial, &origin, None, &console, &mut metrics).unwrap();
    (found, epochs)
}

#[test]
fn a_student_learns_what_can_be_learned_and_nothing_else() {
    let (train, test) = (textures(10, 0), textures(25, 1));
    let (found, epochs) = judge(&small_protocol(20, 2), &train, &test, 0);
    assert_eq!(found.runs, [100.0, 100.0]);
    assert_eq!((found.accuracy_mean, found.accuracy_std), (100.0, Some(0.0)));
    assert_eq!((found.ipc, found.images, found.test_images), (Some(10), 40, 100));
    assert!(found.per_class.iter().all(|c| c.accuracy == Some(100.0)));
    assert_eq!(epochs.len(), 40);
    assert!(epochs[19].loss < 0.5 * epochs[0].loss);
    assert_eq!((epochs[9].lr, epochs[9].update), (0.01, 30));
    assert!((epochs[10].lr - 0.001).abs() < 1e-9);

    let shuffled = |set: &ImageSet| {
        let order = Rng::stream(2, "shuffled", 0, 0).permutation(set.len());
        ImageSet { labels: order.iter().map(|&i| set.labels[i as usize]).collect(), ..set.clone() }
    };
    let (found, _) = judge(&small_protocol(20, 1), &shuffled(&train), &shuffled(&test), 0);
    assert!((10.0..40.0).contains(&found.accuracy_mean), "{} % on shuffled labels", found.accuracy_mean);
    assert_eq!(found.accuracy_std, None);
}

#[test]
fn the_drop_forgets_the_momentum() {
    // One update an epoch, and a drop after the first that changes nothing else. A first step with momentum is a plain one,
    // so the losses of three epochs are those of plain steps.
    let (train, test) = (textures(5, 0), textures(1, 1));
    let losses = |momentum, drop_after| -> Vec<u32> {
        let small = small_protocol(3, 1);
        let protocol = Protocol { batch_size: 20, momentum, drop_after, drop_factor: 1.0, augment: false, ..small };
        judge(&protocol, &train, &test, 0).1.iter().map(|m| m.loss.to_bits()).collect()
    };
    let plain = losses(0.0, 1);
    assert_eq!(losses(0.9, 1), plain);
    let kept = losses(0.9, 3);
    assert_eq!((&kept[..2], kept[2] == plain[2]), (&plain[..2], false));
}

#[test]
fn the_seed_decides_every_bit() {
    let (train, test) = (textures(5, 0), textures(5, 1));
    let losses = |seed| -> Vec<u32> {
        judge(&small_protocol(4, 2), &train, &test, seed).1.iter().map(|m| m.loss.to_bits()).collect()
    };
    let first = losses(3);
    assert_eq!(first, losses(3));
    assert_ne!(first, losses(4));
    assert_ne!(first[..4], first[4..], "two runs of one seed must differ");
}

#[test]
fn sets_that_do_not_fit_are_refused() {
    let (train, test) = (textures(1, 0), textures(1, 1));
    let refusal = |train: &ImageSet, test: &ImageSet| {
        let protocol = small_protocol(1, 1);
        let (student, normalization) = (StudentKind::CONVNET, CIFAR100);
        let train = &TrainingSet::from(train.clone());
        let trial = Trial { student, protocol: &protocol, train, test, normalization, seed: 0, device: &Device::Cpu };
        let origin = Origin { dataset: "textures".into(), on: "real".into(), split: "test".into(), labelled_by: None };
        evaluate(&trial, &origin, None, &Console::new(Verbosity::Quiet), &mut |_| Ok(())).unwrap_err().to_string()
    };
    let mut other_order = (*train.classes).clone();
    other_order.swap(1, 2);
    let renamed = ImageSet { classes: Arc::new(other_order), ..train.clone() };
    assert!(refusal(&renamed, &test).contains("class 1 is class 2 (2) in the training set"));
    assert!(refusal(&train.subset(&[]), &test).contains("training set of this evaluation is empty"));
    assert!(refusal(&ImageSet { classes: classes(5), ..train.clone() }, &test).contains("lists 5 classes"));
    assert!(refusal(&ImageSet { labels: vec![9; 4], ..train.clone() }, &test).contains("label 9"));
    let tiny = |set: &ImageSet| ImageSet { pixels: vec![0; 4 * 4 * 4 * 3], size: 4, ..set.clone() };
    assert!(refusal(&tiny(&train), &test).contains("4 x 4 pixels"));
    assert!(refusal(&tiny(&train), &tiny(&test)).contains("at least 8 pixels"));
}

#[test]
fn the_steps_protocol_ends_inside_an_epoch() {
    let (train, test) = (textures(5, 0), textures(2, 1)); // 20 images: two updates an epoch
    let protocol = Protocol { length: Length::Updates(5), drop_after: 3, ..small_protocol(1, 1) };
    let (_, epochs) = judge(&protocol, &train, &test, 0);
    assert_eq!(epochs.iter().map(|m| m.update).collect::<Vec<_>>(), [2, 4, 5]);
}

#[test]
fn mean_and_std_follow_the_formula() {
    assert_eq!(mean_and_std(&[12.5]), (12.5, None));
    let (mean, std) = mean_and_std(&[10.0, 12.0, 17.0]);
    assert_eq!(mean, 13.0);
    assert!((std.unwrap() - 13.0f64.sqrt()).abs() < 1e-12); // (9 + 1 + 16) / 2 = 13
}

#[test]
fn eval_json_has_the_promised_names() {
    let (found, _) = judge(&small_protocol(1, 1), &textures(1, 0), &textures(1, 1), 0);
    let json = serde_json::to_value(&found).unwrap();
    for key in ["student", "protocol", "dataset", "ipc", "accuracy_mean", "accuracy_std", "runs", "on", "split"]
        .into_iter()
        .chain([
            "per_class",
            "seed",
            "seconds",
            "environment",
            "protocol_sha256",
            "train_sha256",
            "test_sha256",
            "labels",
        ])
    {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["student"], "convnet");
    assert_eq!(json["protocol"], "quick (changed: epochs=1)");
    assert!(json["accuracy_std"].is_null());
    assert_eq!(json["protocol_settings"]["length"]["epochs"], 1);
}

#[test]
fn exact_values_take_the_place_of_pixels_only_where_they_differ() {
    let images = textures(2, 0);
    let all: Vec<u32> = (0..8).collect();
    let table = PixelTable::new(CIFAR100);
    let values = table.batch(&images, &all);
    let same = TrainingSet::new(images.clone(), Some(values.clone()), None, CIFAR100);
    assert!(!same.is_exact());
    assert_eq!(same.sha256(false), images.sha256());

    let mut other = values.clone();
    let last = other.len() - 1;
    other[last] += 0.001;
    let exact = TrainingSet::new(images.clone(), Some(other.clone()), None, CIFAR100);
    assert!(exact.is_exact() && exact.sha256(false) != images.sha256());
    let len = images.image_len();
    assert_eq!(exact.batch(&table, &[7, 2]), [&other[7 * len..], &other[2 * len..3 * len]].concat());
}

#[test]
fn the_views_of_an_image_are_always_the_same() {
    let image = PixelTable::new(CIFAR100).batch(&textures(1, 0), &[2]);
    let seen = |index, number| {
        let mut copy = image.clone();
        view(16, index, number).into_iter().for_each(|change| change.apply(&mut copy, 16));
        copy
    };
    assert_eq!(seen(3, 0), image, "view 0 is the image itself");
    assert_eq!(seen(3, 1), seen(3, 1));
    // Of six kinds, one may leave an image as it is; all of eight views of two images don't.
    let views: Vec<_> = (1..9).flat_map(|number| [seen(3, number), seen(4, number)]).collect();
    let distinct = (0..16).filter(|&i| !views[..i].contains(&views[i])).count();
    assert!(distinct >= 10, "{distinct} of 16 views differ");
}

#[test]
fn students_learn_soft_labels_of_several_views() {
    let (images, test) = (textures(10, 0), textures(25, 1));
    // The teacher calls class 0 class 1 and the other way round: what it says counts, not the class.
    let named = |label: u16| [1, 0, 2, 3][usize::from(label)];
    let row = |label: u16| (0..4).map(move |c| if c == named(label) { 0.91 } else { 0.03 });
    let values = images.labels.iter().flat_map(|&label| row(label).chain(row(label)).chain(row(label))).collect();
    let soft_labels = Some(SoftLabels { values: Arc::new(values), views: 3 });
    let train = TrainingSet::new(images.clone(), None, soft_labels, CIFAR100);
    let soft = Protocol::named("soft").unwrap().with_epochs(30).unwrap().with_runs(1).unwrap();
    let protocol = Protocol { batch_size: 16, convnet: ConvNetSizes { depth: 3.into(), width: 16 }, ..soft };
    let judged = |train: &TrainingSet| {
        let (student, normalization) = (StudentKind::CONVNET, CIFAR100);
        let trial =
            Trial { student, protocol: &protocol, train, test: &test, normalization, seed: 0, device: &Device::Cpu };
        let origin = Origin { dataset: "textures".into(), on: "real".into(), split: "test".into(), labelled_by: None };
        evaluate(&trial, &origin, None, &Console::new(Verbosity::Quiet), &mut |_| Ok(()))
    };
    let found = judged(&train).unwrap();
    let accuracies: Vec<f64> = found.per_class.iter().map(|class| class.accuracy.unwrap()).collect();
    assert!(accuracies[..2].iter().all(|&a| a < 10.0) && accuracies[2..].iter().all(|&a| a > 90.0), "{accuracies:?}");
    assert_eq!(found.labels, "soft");
    assert_ne!(found.train_sha256, images.sha256());

    let refused = judged(&images.into()).unwrap_err();
    assert!(refused.to_string().contains("distill label") && refused.exit_code() == 2, "{refused}");
}
