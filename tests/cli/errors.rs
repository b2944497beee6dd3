//! Bad input: one clear sentence, the right exit code, and nothing that existed is damaged.

use std::fs;

use crate::{Place, tiny};

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let place = Place::new();
    for (args, expected) in [
        ("train --dataset cifar", "cifar100"),
        ("train --preset fast", "shapes, cifar10, cifar10-cpu, cifar100"),
        ("train --set unet.chanels=64", "unet.channels"),
        ("train --set unet.channels=many", "unet.channels"),
        ("train --set unet.channels", "KEY=VALUE"),
        ("train --set unet.attention_at=[6]", "unet.attention_at has 6"),
        ("train --set unet.groups=7", "--set unet.groups=7: unet.groups is 7"),
        ("train --set train.unet.accumulate=5", "does not divide train.unet.batch_size, 64"),
        ("train --set train.vae.accumulate=0", "train.vae.accumulate is 0"),
        ("train --set unet=3", "`unet` is a section"),
        ("train --set vae.groups=5", "vae.groups is 5"),
        ("train --set unet.head_dim=48", "unet.head_dim"),
        ("train --set unet.channel_mult=[1,1,1,1,1,1]", "unet.channel_mult"),
        ("train --set vae.channels=[8,8,8,8,8,8,8]", "vae.channels"),
        ("train --set image_size=16", "32 pixels"),
        ("train --set image_size=0", "image_size is 0"),
        ("train --set sampler.steps=0", "sampler.steps is 0"),
        ("train --set diffusion.prediction=x", "diffusion.prediction"),
        ("train --set train.unet.learning_rate=-1", "train.unet.learning_rate"),
        ("train --device cuda:0", "built without CUDA"),
        ("train --device gpu", "--device"),
        ("train --max-time soon", "--max-time"),
        ("train --max-time 0s", "--max-time"),
        ("train --name a/b", "--name"),
        ("train --preset shapes --dataset cifar100", "--dataset cifar100"),
        ("train --stage unet", "--stage vae"),
        ("sample --ipc 0", "--ipc"),
        ("eval --on random-real --dataset shapes --protocol best", "challenge, dc, steps, quick, soft"),
        ("eval --on random-real --dataset shapes --student resnet", "convnet"),
        ("bench --only unet-back", "unet-train"),
        ("bench --batch 0", "--batch"),
        ("eval --on random-real --dataset shapes --epochs 0", "--epochs 0"),
        ("eval --on random-real --dataset shapes --ipc 501 --epochs 1", "--ipc 501"),
        ("eval --on random-real", "--dataset"),
    ] {
        let error = place.fails(2, args);
        assert!(error.contains(expected), "{args}: {error}");
    }
}

/// Every set of kernels can be forced, and one that cannot be is an error before any work.
#[test]
fn kernels_can_be_forced() {
    let place = Place::new();
    let bench = format!("bench --only unet-forward --seconds 0.01 --batch 2 --json {}", tiny());
    for (isa, dtype) in [("portable", "f32"), ("avx512", "f32"), ("avx512-bf16", "bf16"), ("amx", "bf16")] {
        let output = place.command(&bench).env("DISTILL_ISA", isa).output().unwrap();
        if output.status.success() {
            let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(found[0]["environment"]["kernels"], isa);
            assert_eq!(found[0]["environment"]["dtype"], dtype);
        } else {
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(isa != "portable" && error.contains("this processor does not have it"), "{error}");
        }
    }
    for (isa, dtype, expected) in [("sse", "auto", "portable, avx512"), ("portable", "bf16", "remove --dtype")] {
        let args = format!("{bench} --dtype {dtype}");
        let output = place.command(&args).env("DISTILL_ISA", isa).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains(expected), "{isa}: {error}");
    }
}

#[test]
fn a_mistyped_word_gets_a_suggestion() {
    let place = Place::new();
    for (args, meant) in [
        ("trian", "'train'"),
        ("train --sead 1", "'--seed'"),
        ("train --dataset cifar-100", "did you mean cifar100?"),
        ("train --preset cifar10-cup", "'cifar10-cpu'"),
        ("train --set sampler.step=3", "did you mean `sampler.steps`?"),
        ("eval --protocol chalenge", "did you mean challenge"),
        ("eval --student convet", "did you mean convnet?"),
        ("eval --on randomreal --ipc 2", "did you mean random-real?"),
        ("presets shape", "'shapes'"),
        ("completions bsh", "'bash'"),
    ] {
        let error = place.fails(2, args);
        assert!(error.contains(meant), "{args}: {error}");
    }
}

#[test]
fn what_is_not_there_is_a_failure() {
    let place = Place::new();
    for (args, expected) in [
        ("sample", "distill train"),
        ("sample --run nowhere", "nowhere"),
        ("eval", "distill sample"),
        ("eval --on nowhere", "nowhere"),
        ("inspect nowhere", "nowhere"),
        ("train --config nowhere.toml", "nowhere.toml"),
        ("train --dataset cifar100", "cifar-100-binary.tar.gz"),
        ("train --dataset tinyimagenet --data-dir .", "tiny-imagenet-200.zip"),
        ("data info --dataset cifar100", "--data-dir"),
    ] {
        let error = place.fails(1, args);
        assert!(error.contains(expected), "{args}: {error}");
    }
}

#[test]
fn a_config_file_is_checked_key_by_key() {
    let place = Place::new();
    for (text, expected) in [
        ("[unet]\nchanels = 64\n", "unet.chanels"),
        ("unet = 3\n", "unet"),
        ("[unet\n", "TOML"),
        ("[train.vae]\nsteps = \"ten\"\n", "my.toml"),
        ("[sampler]\nsteps = 0\n", "my.toml: sampler.steps is 0"),
        ("[eval]\nprotocol = \"quik\"\n", "did you mean quick"),
    ] {
        fs::write(place.path("my.toml"), text).unwrap();
        let error = place.fails(2, "train --config my.toml");
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_run_is_never_damaged_by_a_refusal() {
    let place = Place::new();
    place.ok(&format!("train {} --name one", tiny()));
    let before = fs::read(place.path("runs/one/unet/final.safetensors")).unwrap();
    let config = fs::read(place.path("runs/one/config.toml")).unwrap();
    let error = place.fails(2, &format!("train {} --name one", tiny()));
    assert!(error.contains("--overwrite"), "{error}");

    fs::remove_file(place.path("runs/one/unet/final.safetensors")).unwrap();
    let error = place.fails(2, &format!("train {} --name one --seed 1", tiny()));
    assert!(error.contains("another seed"), "{error}");
    assert_eq!(fs::read(place.path("runs/one/config.toml")).unwrap(), config);
    fs::write(place.path("runs/one/unet/final.safetensors"), &before).unwrap();

    place.ok("sample --ipc 1 --name set");
    let error = place.fails(2, "sample --ipc 1 --name set");
    assert!(error.contains("--overwrite"), "{error}");
    let error = place.fails(2, "sample --classes 3,aple");
    assert!(error.contains("--classes aple"), "{error}");
    let error = place.fails(2, "sample --set unet.channels=8");
    assert!(error.contains("sampler."), "{error}");
}

#[test]
fn damaged_files_are_named() {
    let place = Place::new();
    place.ok(&format!("train {} --name one", tiny()));
    let weights = place.path("runs/one/unet/final.safetensors");
    let whole = fs::read(&weights).unwrap();
    for damaged in [&whole[..whole.len() / 2], &whole[..5], b"", b"not a safetensors file at all"] {
        fs::write(&weights, damaged).unwrap();
        let error = place.fails(1, "sample --ipc 1");
        assert!(error.contains("unet/final.safetensors"), "{error}");
    }
    fs::copy(place.path("runs/one/vae/final.safetensors"), &weights).unwrap();
    place.fails(1, "sample --ipc 1");
    fs::write(&weights, &whole).unwrap();

    place.ok("sample --ipc 1 --name set");
    let tensor = place.path("runs/one/distilled/set/distilled.safetensors");
    let whole = fs::read(&tensor).unwrap();
    fs::write(&tensor, &whole[..whole.len() - 10]).unwrap();
    let error = place.fails(1, "eval --epochs 1");
    assert!(error.contains("distilled.safetensors"), "{error}");
}
