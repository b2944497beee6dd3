//! `distill eval` on sets from anywhere, under protocols of one's own, and beside baselines.

use std::fs;

use serde_json::Value;

use super::{Place, tiny};

/// A place with a tiny run and a set of ten images a class, `mine`, and of one, `few`.
fn sampled() -> Place {
    let place = Place::new();
    place.ok(&format!("train {} --name tiny -q", tiny()));
    place.ok("sample --ipc 10 --name mine -q");
    place.ok("sample --ipc 1 --name few -q");
    place
}

/// The folders of students that were trained so far.
fn students(place: &Place) -> usize {
    fs::read_dir(place.path("runs/eval/students")).unwrap().count()
}

#[test]
fn the_same_images_are_judged_alike_from_every_kind_of_file() {
    let place = sampled();
    let own = place.json("eval --on runs/tiny/distilled/mine --epochs 1");
    assert_eq!((own["images"].as_u64(), students(&place)), (Some(100), 1));
    for (format, file, how) in [
        ("challenge", "shapes.pt", "--format challenge"),
        ("pt", "distilled.pt", ""),
        ("npz", "distilled.npz", ""),
        ("parquet", "train.parquet", ""),
        ("webdataset", "webdataset", ""),
        ("imagefolder", "imagefolder", "--format imagefolder"),
    ] {
        place.ok(&format!("export runs/tiny/distilled/mine --format {format}"));
        let path = format!("runs/exports/mine/{file}");
        let found = place.json(&format!("eval --on {path} --dataset shapes {how} --epochs 1"));
        for key in ["runs", "train_sha256", "test_sha256", "protocol_sha256", "per_class", "ipc"] {
            assert_eq!(found[key], own[key], "{format}: {key}");
        }
        assert_eq!(found["on"], path);
        assert_eq!(students(&place), 1, "{format}: the student that there was is used again");
    }
    // A set's own file, read as another program's.
    let copy =
        "eval --on runs/tiny/distilled/mine/distilled.safetensors --format safetensors --dataset shapes --epochs 1";
    assert_eq!(place.json(copy)["train_sha256"], own["train_sha256"]);
    let unsaid = place.fails(1, "eval --on runs/exports/mine/shapes.pt --dataset shapes");
    assert!(unsaid.contains("--pixels"), "{unsaid}");
    let untrue = place.fails(1, "eval --on runs/exports/mine/shapes.pt --dataset shapes --pixels unit");
    assert!(untrue.contains("cannot be --pixels unit"), "{untrue}");
    let needless = place.fails(2, "eval --on runs/tiny/distilled/mine --pixels unit");
    assert!(needless.contains("other programs' files"), "{needless}");
    let soft = place.fails(2, "eval --on runs/tiny/distilled/mine --protocol soft");
    assert!(soft.contains("distill label"), "{soft}");
}

#[test]
fn a_protocol_of_ones_own() {
    let place = sampled();
    let text = "name = \"mine\"\nlength = { updates = 3 }\nschedule = \"cosine\"\nbatch_size = 8\nlr = 0.01\n\
                weight_decay = 0.0\naugment = false\nruns = 2\n[convnet]\ndepth = { 32 = 2, 64 = 3 }\nwidth = 8\n";
    fs::write(place.path("mine.toml"), text).unwrap();
    let found = place.json("eval --on runs/tiny/distilled/few --protocol mine.toml");
    assert_eq!((&found["protocol"], &found["runs"].as_array().unwrap().len()), (&"mine".into(), &2));
    assert_eq!(found["protocol_settings"]["convnet"]["depth"], 2);
    let more = place.json("eval --on runs/tiny/distilled/few --protocol ./mine.toml --runs 3");
    assert_eq!(more["runs"].as_array().unwrap()[..2], found["runs"].as_array().unwrap()[..]);
    assert_eq!(students(&place), 1);
    let results = || {
        let folders = fs::read_dir(place.path("runs/tiny/eval")).unwrap();
        folders.filter(|folder| folder.as_ref().unwrap().file_name().to_string_lossy().contains("-mine-")).count()
    };
    assert_eq!(results(), 1);
    fs::write(place.path("mine.toml"), text.replace("0.01", "0.02")).unwrap();
    place.ok("eval --on runs/tiny/distilled/few --protocol mine.toml");
    assert_eq!(results(), 2, "a changed protocol replaces nothing, though its name is the same");
    fs::write(place.path("mine.toml"), text.replace("augment", "augmented")).unwrap();
    let error = place.fails(2, "eval --on runs/tiny/distilled/few --protocol mine.toml");
    assert!(error.contains("mine.toml") && error.contains("unknown field `augmented`"), "{error}");
}

#[test]
fn a_comparison_is_one_table() {
    let place = sampled();
    let compare = "eval --compare --ipc 1 --epochs 1 --runs 2";
    let found = place.json(compare);
    let row = |found: &Value, name: &str| {
        let rows = found["rows"].as_array().unwrap();
        rows.iter().find(|line| line["row"] == name).unwrap_or_else(|| panic!("{name} is not in {found}")).clone()
    };
    let names: Vec<_> = found["rows"].as_array().unwrap().iter().map(|line| line["row"].clone()).collect();
    assert_eq!(names, ["random-real", "reconstructed", "distilled"], "no teacher is there");
    assert_eq!(row(&found, "distilled")["result"]["on"], "runs/tiny/distilled/few", "the newest of one image a class");
    let mean = |line: &Value| line["result"]["accuracy_mean"].as_f64().unwrap();
    let (ours, random) = (row(&found, "distilled"), row(&found, "random-real"));
    assert_eq!(ours["gain"].as_f64().unwrap(), mean(&ours) - mean(&random));
    assert!(ours["gap"].is_null());
    let alone = place.json("eval --on random-real --dataset shapes --ipc 1 --epochs 1 --runs 2");
    assert_eq!(alone["runs"], random["result"]["runs"], "a row is what `eval` gives");

    let trained = students(&place);
    let table = place.ok(compare);
    assert_eq!(students(&place), trained);
    assert!(table.contains("gain over random-real") && table.lines().count() == 5, "{table}");
    let name = "runs/tiny/eval/compare-shapes-ipc1-quick--changed--epochs-1-seed0";
    let markdown = fs::read_to_string(place.path(&format!("{name}.md"))).unwrap();
    assert!(
        markdown.starts_with("| trained on | images | runs |") && markdown.contains("\n| distilled | 10 | 2 |"),
        "{markdown}"
    );
    let kept: Value = serde_json::from_slice(&fs::read(place.path(&format!("{name}.json"))).unwrap()).unwrap();
    assert_eq!(kept["rows"][0]["result"]["runs"], found["rows"][0]["result"]["runs"]);

    let real = place.json(&format!("{compare} --rows distilled,real"));
    assert_eq!(row(&real, "real")["result"]["protocol"], "steps (changed: runs=2, epochs=1)");
    let gap = mean(&row(&real, "real")) - mean(&row(&real, "distilled"));
    assert_eq!(row(&real, "distilled")["gap"].as_f64().unwrap(), gap);
    // What full data reached is in later tables without being asked for.
    assert_eq!(row(&place.json(compare), "distilled")["gap"].as_f64().unwrap(), gap);

    let once = place.json("eval --compare --ipc 1 --epochs 1 --runs 1");
    assert_eq!(row(&once, "real")["result"]["runs"].as_array().unwrap().len(), 2, "so also with other numbers of runs");
    let kept: Value = serde_json::from_slice(
        &fs::read(row(&once, "distilled")["file"].as_str().map(|f| place.path(f)).unwrap()).unwrap(),
    )
    .unwrap();
    assert_eq!(kept["runs"].as_array().unwrap().len(), 2, "fewer students do not replace more");

    let plan = place.json(&format!("{compare} --dry-run"));
    assert_eq!((plan["ipc"].as_u64(), plan["outputs"].as_array().unwrap().len()), (Some(1), 3));
    assert_eq!(plan["table"], format!("{name}.json"));
    for (args, words) in [
        ("eval --compare --ipc 7 --rows distilled", "with 7 images a class"),
        ("eval --compare --on random-real", "choose it by --rows"),
        ("eval --rows real", "--compare"),
    ] {
        let error = place.fails(2, args);
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }

    let choosing = format!("{compare} --rows k-center,herding,mix");
    assert!(place.fails(1, &choosing).contains("distill teacher"));
    place.ok("teacher --dataset shapes --arch convnet-d2-w8 --epochs 1 --set warmup=5 --name tiny");
    let chosen = place.json(&choosing);
    let hash = |name: &str| row(&chosen, name)["result"]["train_sha256"].clone();
    assert_eq!(hash("k-center"), hash("herding"), "both begin with the image nearest to the class's mean");
    assert_ne!(hash("herding"), row(&found, "random-real")["result"]["train_sha256"]);
    assert_ne!(hash("herding"), hash("mix"), "the most central image and the one that shows its class most plainly");
    for way in ["herding", "mix"] {
        assert_eq!(row(&chosen, way)["result"]["images"], 10);
    }
}
