//! `distill quality`, `distill label` and the protocol `soft`, with a teacher of a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use distill::data::{Dataset, ImageSet, Split, load};
use distill::distilled::DistilledSet;
use distill::eval::quality::{Gaussian, frechet_distance};
use distill::eval::{Features, Teacher};
use distill::models::inception::{FEATURES, Inception};
use distill::progress::{Console, Verbosity};
use distill::rng::Rng;
use distill::train::save_weights;
use serde_json::Value;

use crate::{Place, folder, tiny};

/// A place with a run, a set of 10 images a class and a teacher.
fn ready() -> Place {
    let place = Place::new();
    place.ok(&format!("train {} --name one -q", tiny()));
    place.ok("sample --ipc 10 --name ten");
    place.ok("teacher --dataset shapes --arch convnet-d2-w16 --epochs 1 --set warmup=5 --name small -q");
    place
}

#[test]
fn images_are_compared_with_real_ones() {
    let place = ready();
    let found = place.json("quality --run runs/one");
    let number = |of: &Value, name: &str| of[name].as_f64().unwrap_or_else(|| panic!("{name} in {of}"));
    // Real test images are nearer to train than those of a model that has hardly been trained.
    for (name, real_is_more) in [("frechet", false), ("precision", true), ("coverage", true), ("label_agreement", true)]
    {
        let (ours, real) = (number(&found, name), number(&found["real"], name));
        assert_eq!(real > ours, real_is_more, "{name}: {ours}, real {real}");
    }
    for name in ["precision", "recall", "coverage", "label_agreement"] {
        assert!((0.0..=1.0).contains(&number(&found, name)), "{name}");
    }
    let folder = place.path("runs/one/eval/ten-quality-train");
    let kept: Value = serde_json::from_slice(&fs::read(folder.join("quality.json")).unwrap()).unwrap();
    assert_eq!(kept, found);
    let picture = image::open(folder.join("nearest.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (10 * 66 + 2, 6 * 66 + 2));

    // Features that were kept give the same; damaged ones are made again.
    let text = place.ok("quality --run runs/one");
    assert!(text.contains("Frechet distance") && text.contains("label agreement"), "{text}");
    let kept: Vec<_> = fs::read_dir(place.path("runs/teachers/small")).unwrap().map(|e| e.unwrap().path()).collect();
    let features =
        kept.iter().find(|p| p.to_string_lossy().contains("features") && p.extension().unwrap() == "safetensors");
    let mut bytes = fs::read(features.unwrap()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 64;
    fs::write(features.unwrap(), bytes).unwrap();
    assert_eq!(untimed(place.json("quality --run runs/one")), untimed(found));
    assert!(place.fails(1, "quality --run runs/one --teacher nothing").contains("distill teacher"));
    assert!(place.fails(1, "quality --run runs/one --neighbours 500").contains("more than 500"));
}

/// What quality.json says, but for how long it took.
fn untimed(mut quality: Value) -> Value {
    assert!(quality["seconds"].take().as_f64().unwrap() > 0.0);
    quality
}

#[test]
fn a_teachers_labels_serve_the_protocol_soft() {
    let place = ready();
    let soft = "eval --protocol soft --epochs 2 --runs 1";
    assert!(place.fails(2, &format!("{soft} --on runs/one/distilled/ten")).contains("distill label"));
    let inside = "label distilled/ten --views 1 --name inside --out ..";
    assert!(place.command(inside).current_dir(place.path("runs/one")).status().unwrap().success());
    assert!(place.path("runs/one/distilled/inside").is_dir());
    let summary = place.json("label runs/one/distilled/ten --views 3");
    assert_eq!(summary["distilled"], "runs/one/distilled/ten-soft");
    let found = place.json(&format!("{soft} --on runs/one/distilled/ten-soft"));
    assert_eq!((found["labels"].as_str(), found["images"].as_u64()), (Some("soft"), Some(100)));

    // The images are those of the set, and a protocol with hard labels finds the same students.
    let hard =
        |set: &str| place.json(&format!("eval --on runs/one/distilled/{set} --epochs 1"))["train_sha256"].clone();
    assert_eq!(hard("ten"), hard("ten-soft"));

    // Real images beside it get labels of the same teacher, and another teacher is refused.
    assert_eq!(found["labelled_by"]["views"], 3);
    let compare = "eval --compare --ipc 10 --rows random-real,distilled --protocol soft --epochs 1 --runs 1";
    let both = place.json(compare);
    let labels: Vec<_> = both["rows"].as_array().unwrap().iter().map(|row| row["result"]["labels"].clone()).collect();
    assert_eq!(labels, ["soft", "soft"]);
    place.ok("teacher --dataset shapes --arch convnet-d2-w8 --epochs 1 --set warmup=5 --name other -q");
    place.ok(&format!("{compare} --teacher runs/teachers/small"));
    assert!(
        place.fails(2, &format!("{compare} --teacher runs/teachers/other")).contains("or not the one that was named")
    );
    let labellers: Vec<_> = place.json(compare)["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["result"]["labelled_by"].clone())
        .collect();
    assert_eq!(labellers[0], labellers[1], "the set's own teacher is found, though another is newer");
    assert_eq!(labellers[1], found["labelled_by"]);

    // A labelled copy of a set that is no run's is the newest too, and a taken place is refused.
    place.ok("export runs/one/distilled/ten --format npz");
    place.ok("import runs/exports/ten/distilled.npz --dataset shapes --name theirs");
    place.ok("label runs/distilled/theirs --views 1");
    assert!(place.fails(2, "label runs/distilled/theirs --views 1").contains("--overwrite"));
    assert_eq!(place.json("eval --epochs 1 --runs 1")["on"], "runs/distilled/theirs-soft");
}

#[test]
fn training_measures_the_samples_that_sampling_would_draw() {
    let place = Place::new();
    place.ok("teacher --dataset shapes --arch convnet-d2-w16 --epochs 1 --set warmup=5 --name small -q");
    place.ok(&format!("train {} --name one --teacher runs/teachers --fd-images 100 -q", tiny()));
    let text = fs::read_to_string(place.path("runs/one/unet/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let measured: Vec<Value> = lines.filter(|line| line["fd"].is_f64()).collect();
    assert_eq!(measured.len(), 1, "{text}");

    place.ok("sample --run runs/one --sampler dpm-solver --steps 10 --guidance 1 --ipc 10 --name ten");
    let found = place.json("quality --run runs/one --against heldout");
    let number = |of: &Value| of.as_f64().unwrap();
    let (ours, theirs) = (number(&measured[0]["fd"]), number(&found["frechet"]));
    assert!((ours - theirs).abs() < 1e-3 * theirs, "{ours} while training, {theirs} afterwards");
    assert!((number(&measured[0]["label_agreement"]) - number(&found["label_agreement"])).abs() < 0.011);

    // With --keep-best it is fd that decides.
    let command = format!("train {} --name best --teacher runs/teachers/small --fd-images 20", tiny());
    place.ok(&format!("{command} --keep-best --set train.sample_every=5 -q"));
    let summary = fs::read(place.path("runs/best/unet/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["best"]["name"], "fd", "{summary}");
    let error = place.fails(1, &format!("{} --overwrite", command.replace("/small", "/none")));
    assert!(error.contains("no finished teacher"), "{error}");
}

#[test]
fn the_best_of_a_pool_are_kept() {
    let place = Place::new();
    place.ok(&format!("train {} --name one -q", tiny()));
    assert!(place.fails(1, "sample --ipc 3 --pool 8").contains("distill teacher"));
    place.ok("teacher --dataset shapes --arch convnet-d2-w16 --epochs 1 --set warmup=5 --name small -q");
    assert!(place.fails(2, "sample --ipc 3 --pool 2").contains("less than the 3 images"));
    assert!(place.fails(2, "sample --ipc 3 --select mix").contains("--pool"));

    place.ok("sample --ipc 8 --name all");
    let read = |name: &str| DistilledSet::read(&place.path(&format!("runs/one/distilled/{name}"))).unwrap();
    let all = read("all").images;
    let teacher = Teacher::open(&place.path("runs/teachers/small"), &Device::Cpu).unwrap();
    let logits = teacher.logits(&all, &Console::new(Verbosity::Quiet)).unwrap();
    // log p(class) but for what all classes share, and the places of the three most certain images of class 4.
    let log_p = |i: usize| {
        let row = &logits[i * 10..][..10];
        f64::from(row[i / 8]) - row.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln()
    };
    let mut certain: Vec<usize> = (4 * 8..5 * 8).collect();
    certain.sort_by(|&a, &b| log_p(b).total_cmp(&log_p(a)));

    for way in ["first", "confident", "clusters", "herding", "mix"] {
        place.ok(&format!("sample --ipc 3 --pool 8 --select {way}"));
        let set = read(&format!("ipc3-guidance1.5-steps4-pool8-{way}-seed0"));
        assert_eq!(set.images.labels, (0..30).map(|i| i / 3).collect::<Vec<u16>>(), "{way}");
        for (i, &index) in set.indices.iter().enumerate() {
            assert_eq!(set.images.image(i), all.image(i / 3 * 8 + index as usize), "{way}: image {i}");
        }
        let of_class_4: Vec<usize> = set.indices[12..15].iter().map(|&index| 32 + index as usize).collect();
        match way {
            "first" => assert_eq!(of_class_4, [32, 33, 34]),
            // The binary may compute in bf16, and then two may change places.
            "confident" => {
                assert!(of_class_4.iter().all(|i| certain[..4].contains(i)), "{of_class_4:?} of {certain:?}")
            }
            _ => assert!(of_class_4.iter().collect::<BTreeSet<_>>().len() == 3, "{way}: {of_class_4:?}"),
        }
        let pool = &set.provenance.details["pool"];
        assert_eq!((pool["images_per_class"].as_u64(), pool["selection"].as_str()), (Some(8), Some(way)));
    }
    let again = place.ok("sample --ipc 3 --pool 8 --select mix --classes 4,7 --name two");
    assert!(again.contains("6 images"), "{again}");
    assert_eq!(read("two").images.labels, [4, 4, 4, 7, 7, 7]);

    // The configuration's pool: for sets that are smaller, where a teacher is there, unless it is not wanted.
    let pooled = "--set sampler.pool=8";
    place.ok(&format!("sample --ipc 3 {pooled} --classes 4,7 --overwrite --name three"));
    assert_eq!(read("three").images.pixels, read("two").images.pixels);
    for (options, pool) in [("--ipc 2", true), ("--ipc 2 --select first", false), ("--ipc 8", false)] {
        let plan = place.json(&format!("sample {options} {pooled} --dry-run"));
        let folder = plan["outputs"][0].as_str().unwrap();
        assert_eq!(folder.contains("pool8-mix"), pool, "{options}: {folder}");
    }
    assert!(place.fails(2, &format!("sample --ipc 8 --select mix {pooled}")).contains("--pool"));

    // A run of before there was a pool, whose model has not seen the held-out images: the teacher that has is not taken
    // unless it is asked for.
    let file = place.path("runs/one/config.toml");
    let written = fs::read_to_string(&file).unwrap();
    let held = written.replace("hold_out = false", "hold_out = true").replace("pool = 0\n", "");
    assert_eq!(held.len(), written.len() - 10, "{written}");
    fs::write(&file, held).unwrap();
    let words = |options: &str| {
        let output = place.run(&format!("sample --ipc 3 {pooled} --classes 4 --overwrite --name held {options}"));
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(words("").contains("has seen the held-out images"));
    assert!(!words("--teacher runs/teachers").contains("has seen the held-out images"));
    assert_eq!(read("held").provenance.details["pool"]["teacher_hold_out"], false);
    fs::write(&file, written).unwrap();
    fs::rename(place.path("runs/teachers"), place.path("runs/elsewhere")).unwrap();
    let plain = place.run(&format!("sample --ipc 3 {pooled} --classes 4 --name four"));
    let words = String::from_utf8(plain.stderr).unwrap();
    assert!(
        plain.status.success() && words.contains("not the best 3 of 8") && words.contains("distill teacher"),
        "{words}"
    );
    assert_eq!(read("four").indices, [0, 1, 2]);
}

#[test]
fn no_pool_is_drawn_for_the_teacher_of_another_data_set() {
    let place = folder::place(&["a", "b"]);
    place.ok("train --config tiny.toml --name one -q");
    place.ok("teacher --dataset shapes --arch convnet-d2-w8 --epochs 1 --set warmup=5 -q");
    let error = place.fails(1, "sample --ipc 1 --pool 2 --name set");
    assert!(error.contains("no finished teacher of folder:") && error.contains("16 x 16"), "{error}");
    assert!(!place.path("runs/one/distilled").exists());
    place.ok("sample --ipc 1 --set sampler.pool=2 --name set");
}

/// Random weights of Inception-v3 in PyTorch's names, whose shapes a fixture knows.
fn random_inception(path: &Path) {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval_inception.safetensors");
    let mut weights = Vec::new();
    let shapes: BTreeMap<_, _> = candle_core::safetensors::load(shapes, &Device::Cpu).unwrap().into_iter().collect();
    for (name, shape) in shapes {
        if name == "images" || name == "features" {
            continue;
        }
        let shape: Vec<usize> = shape.to_vec1::<i64>().unwrap().into_iter().map(|n| n as usize).collect();
        let mut add = |part: &str, shape: &[usize], mean: f32, spread: f32| {
            let values = Rng::stream(5, &name, 0, 0).normal(shape.iter().product());
            let values: Vec<f32> = values.into_iter().map(|v| mean + spread * v).collect();
            weights.push((format!("{name}.{part}"), Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
        };
        add("conv.weight", &shape, 0.0, (2.0 / shape[1..].iter().product::<usize>() as f32).sqrt());
        for (part, mean) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            add(&format!("bn.{part}"), &shape[..1], mean, 0.0);
        }
    }
    save_weights(path, &weights, &"weights of a test").unwrap();
}

#[test]
fn inceptions_features_are_compared_where_its_weights_are_named() {
    let place = folder::place(&["a", "b", "c", "d", "e"]);
    place.ok("train --config tiny.toml --name one -q");
    place.ok("sample --ipc 2 --name two");
    place.ok("teacher --dataset folder:pictures --image-size 16 --arch convnet-d2-w16 --epochs 1 --set warmup=2 -q");
    random_inception(&place.path("weights.safetensors"));
    let command = "quality --run runs/one --neighbours 1 --inception weights.safetensors";
    let found = place.json(command);
    // The same distance from the library's parts.
    let network = Inception::open(&place.path("weights.safetensors")).unwrap();
    let of = |images: &ImageSet| {
        let values = network.features(&images.pixels, images.size).unwrap();
        Gaussian::fit(&Features { values, dims: FEATURES }).unwrap()
    };
    let set = DistilledSet::read(&place.path("runs/one/distilled/two")).unwrap().images;
    let dataset = Dataset::Folder(place.path("pictures"));
    let train = load(&dataset, Split::Train, 16, None).unwrap();
    let expected = frechet_distance(&of(&set), &of(&train)).unwrap();
    let distance = found["inception"]["generated"]["frechet"].as_f64().unwrap();
    assert!((distance - expected).abs() < 1e-6 * expected, "{distance}, by its parts {expected}");
    assert_eq!(found["inception"]["real_images"], train.len());
    assert_eq!(untimed(place.json(command)), untimed(found), "with the features that were kept");
    let none = place.fails(1, "quality --run runs/one --inception tiny.toml");
    assert!(none.contains("tiny.toml") && none.contains("docs/quality.md"), "{none}");
}
