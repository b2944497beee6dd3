//! `distill quality`, `distill label` and the protocol `soft`, with a teacher of a minute.

use std::fs;

use serde_json::Value;

use crate::{Place, tiny};

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
    assert_eq!(place.json("quality --run runs/one"), found);
    assert!(place.fails(1, "quality --run runs/one --teacher nothing").contains("distill teacher"));
    assert!(place.fails(1, "quality --run runs/one --neighbours 500").contains("more than 500"));
}

#[test]
fn a_teachers_labels_serve_the_protocol_soft() {
    let place = ready();
    let soft = "eval --protocol soft --epochs 2 --runs 1";
    assert!(place.fails(2, &format!("{soft} --on runs/one/distilled/ten")).contains("distill label"));
    let summary = place.json("label runs/one/distilled/ten --views 3");
    assert_eq!(summary["distilled"], "runs/one/distilled/ten-soft");
    let found = place.json(&format!("{soft} --on runs/one/distilled/ten-soft"));
    assert_eq!((found["labels"].as_str(), found["images"].as_u64()), (Some("soft"), Some(100)));

    // The images are those of the set, and a protocol with hard labels finds the same students.
    let hard =
        |set: &str| place.json(&format!("eval --on runs/one/distilled/{set} --epochs 1"))["train_sha256"].clone();
    assert_eq!(hard("ten"), hard("ten-soft"));

    // Real images beside it get labels of the same teacher, and another teacher is refused.
    let compare = "eval --compare --ipc 10 --rows random-real,distilled --protocol soft --epochs 1 --runs 1";
    let both = place.json(compare);
    let labels: Vec<_> = both["rows"].as_array().unwrap().iter().map(|row| row["result"]["labels"].clone()).collect();
    assert_eq!(labels, ["soft", "soft"]);
    place.ok("teacher --dataset shapes --arch convnet-d2-w8 --epochs 1 --set warmup=5 --name other -q");
    assert!(place.fails(2, compare).contains("--teacher"));
    place.ok(&format!("{compare} --teacher runs/teachers/small"));

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
