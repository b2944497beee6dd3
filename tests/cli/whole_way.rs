//! Train, sample, eval, inspect: what they write and print.

use std::fs;

use candle_core::{Device, Tensor};
use distill::train::{load_weights, read_metadata};

use crate::{Place, tiny};

#[test]
fn the_three_commands_and_their_artefacts() {
    let place = Place::new();
    place.ok(&format!("train --dataset shapes {} --name tiny", tiny()));
    for file in
        ["config.toml", "meta.json", "log.txt", "vae/final.safetensors", "vae/metrics.jsonl", "unet/final.safetensors"]
    {
        assert!(place.path("runs/tiny").join(file).is_file(), "{file}");
    }
    for picture in ["vae-0000020.png", "unet-0000020.png"] {
        assert!(image::open(place.path("runs/tiny/samples").join(picture)).is_ok(), "{picture}");
    }

    let sampled = place.json("sample --ipc 2 --guidance 2 --seed 5");
    let set = place.path(sampled["distilled"].as_str().unwrap());
    assert_eq!(sampled["images"], 20);
    assert_eq!(fs::read_dir(set.join("train")).unwrap().count(), 10);

    let result = place.json("eval --student convnet --protocol quick --epochs 1");
    assert_eq!(
        (&result["student"], &result["dataset"], &result["ipc"]),
        (&"convnet".into(), &"shapes".into(), &2.into())
    );
    assert_eq!(result["protocol"], "quick (changed: epochs=1)");
    let meta: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("runs/tiny/meta.json")).unwrap()).unwrap();
    assert_eq!(meta["environment"], result["environment"], "one machine, one environment");
    assert_eq!(meta["environment"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(result["accuracy_mean"], result["runs"][0]);
    assert!(result["accuracy_std"].is_null());
    let accuracy = result["accuracy_mean"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&accuracy));

    let log = fs::read_to_string(place.path("runs/tiny/log.txt")).unwrap();
    let ended: Vec<&str> = log.lines().filter(|line| line.contains("Z ends: done")).collect();
    let begun: Vec<&str> = log.lines().filter(|line| line.contains("Z version ")).collect();
    assert_eq!((begun.len(), ended.len()), (3, 3), "{log}");
    for (line, command) in begun.iter().zip(["train", "sample", "eval"]) {
        assert!(line.contains(&format!(" begins: {} {command} ", env!("CARGO_BIN_EXE_distill"))), "{line}");
    }

    let run = place.json("inspect runs/tiny");
    assert_eq!((&run["finished"], &run["unet"]["steps"]), (&true.into(), &20.into()));
    assert_eq!(run["distilled"].as_array().unwrap().len(), 1);
    let weights = place.json("inspect runs/tiny/unet/final.safetensors");
    assert_eq!(weights["metadata"]["latents"]["mean"].as_array().unwrap().len(), 2);
    assert_eq!(place.json(&format!("inspect {}", set.display()))["images"], 20);
}

#[test]
fn run_does_it_all_and_can_be_repeated() {
    let place = Place::new();
    let args = format!("run {} --ipc 1 --epochs 1 --set sampler.steps=2", tiny());
    let first = place.json(&args);
    let names: Vec<_> = first["evaluations"].as_array().unwrap().iter().map(|e| e["on"].clone()).collect();
    assert_eq!(names, [first["distilled"].clone(), "random-real".into()]);
    assert_eq!(first["chance"], 10.0);
    let set = place.path(first["distilled"].as_str().unwrap()).join("distilled.safetensors");
    let bytes = fs::read(&set).unwrap();
    let second = place.json(&args);
    assert_eq!(fs::read(&set).unwrap(), bytes, "the same command makes the same images");
    assert_eq!(first["evaluations"][0]["runs"], second["evaluations"][0]["runs"]);
}

#[test]
fn an_image_depends_on_seed_class_and_index_alone() {
    let place = Place::new();
    place.ok(&format!("train {} --name tiny -q", tiny()));
    let pixels = |args: &str, file: &str| {
        let made = place.json(&format!("sample {args}"));
        let path = place.path(made["distilled"].as_str().unwrap()).join("train").join(file);
        image::open(path).unwrap().into_rgb8().into_raw()
    };
    let classes: Vec<_> = fs::read_dir({
        place.json("sample --ipc 1 --name all");
        place.path("runs/tiny/distilled/all/train")
    })
    .unwrap()
    .map(|e| e.unwrap().file_name().into_string().unwrap())
    .collect();
    let third = classes.iter().find(|c| c.starts_with("003_")).unwrap();
    let one = pixels("--ipc 3 --name many --set sampler.batch_size=30", &format!("{third}/0001.png"));
    let alone = pixels("--ipc 2 --name few --classes 3", &format!("{third}/0001.png"));
    let off = one.iter().zip(&alone).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert_eq!(off, 0, "another batch size changes pixels by more than rounding");
    assert_ne!(one, pixels("--ipc 2 --name other --classes 3 --seed 1", &format!("{third}/0001.png")));
}

#[test]
fn dry_run_touches_nothing() {
    let place = Place::new();
    for dataset in ["shapes", "cifar10", "cifar100", "tinyimagenet"] {
        let plan = place.json(&format!("train --dry-run --dataset {dataset}"));
        assert!(plan["unet_parameters"].as_u64().unwrap() > 100_000);
        assert!(plan["unet_forward_flops_per_image"].as_u64().unwrap() > 10_000_000);
        assert_eq!(plan["config"]["dataset"], dataset);
    }
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn data_info_and_bench_print_json() {
    let place = Place::new();
    let info = place.json("data info --dataset shapes");
    assert_eq!(info["classes"].as_array().unwrap().len(), 10);
    let bench = place.json(&format!("bench {} --only unet-forward --seconds 0.1", tiny()));
    for key in ["work", "batch", "seconds_per_step", "images_per_second", "peak_bytes", "environment"] {
        assert!(bench[0].get(key).is_some(), "{key}");
    }
}

/// What scripts/bench_peer.py reads.
#[test]
fn bench_saves_what_it_computes() {
    let place = Place::new();
    let paths = place.json(&format!("bench {} --only train --batch 2 --save saved", tiny()));
    assert_eq!(paths, serde_json::json!(["saved/vae-train.safetensors", "saved/unet-train.safetensors"]));
    for path in ["saved/vae-train.safetensors", "saved/unet-train.safetensors"] {
        let path = place.path(path);
        let metadata: serde_json::Value = read_metadata(&path).unwrap();
        assert_eq!(metadata["batch"], 2);
        assert_eq!(metadata["config"]["image_size"], 32);
        let tensors = load_weights(&path, &Device::Cpu).unwrap();
        let [weights, gradients] = ["weights.", "gradients."].map(|prefix| {
            let named = tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?, t.dims())));
            named.collect::<Vec<_>>()
        });
        assert!(weights.len() > 10 && weights == gradients);
        assert_eq!(tensors["output"].dims()[0], 2);
        let zero = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() == 0.0;
        let dead: Vec<_> = tensors.iter().filter(|(_, t)| zero(t)).map(|(name, _)| name).collect();
        assert!(dead.is_empty(), "{dead:?}");
    }
}
