//! `distill presets` and `distill runs`.

use std::fs;

use serde_json::Value;

use crate::{Place, tiny};

#[test]
fn presets_are_listed_and_printed() {
    let place = Place::new();
    let table = place.ok("presets");
    let list = place.json("presets");
    for preset in list.as_array().unwrap() {
        let name = preset["name"].as_str().unwrap();
        let file = fs::read_to_string(format!("{}/configs/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert_eq!(place.ok(&format!("presets {name}")), file, "{name}");
        let first = file.lines().next().unwrap().trim_start_matches("# ");
        assert_eq!(preset["about"], first);
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        assert!(line.ends_with(first) && line.contains(preset["dataset"].as_str().unwrap()), "{line}");
    }
    let device = |name: &str| list.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["device"].clone();
    assert_eq!([device("shapes"), device("cifar100"), device("cifar100-cpu")], ["any", "gpu", "cpu"]);
    assert_eq!(place.json("presets shapes")["config"]["dataset"], "shapes");
    assert!(place.fails(2, "presets shape").contains("'shapes'"));
}

#[test]
fn runs_are_listed_with_their_state_and_best_figures() {
    let place = Place::new();
    assert!(place.ok("runs").contains("distill train"));
    assert_eq!(place.json("runs"), Value::Array(vec![]));

    place.ok(&format!("train {} --name done -q", tiny()));
    place.ok(&format!("train {} --name half --stage vae -q", tiny()));
    place.ok("sample --run runs/done --ipc 1 --name set -q");
    let first = place.json("eval --run runs/done --epochs 1");
    let second = place.json("eval --run runs/done --epochs 1 --seed 1");
    fs::create_dir_all(place.path("runs/torn/unet")).unwrap();
    fs::create_dir_all(place.path("runs/other")).unwrap();
    fs::create_dir_all(place.path("runs/garbled/vae")).unwrap();
    fs::write(place.path("runs/garbled/config.toml"), "[train\n").unwrap();

    let runs = place.json("runs");
    let named = |name: &str| {
        let path = format!("runs/{name}");
        runs.as_array().unwrap().iter().find(|run| run["run"] == *path).unwrap_or_else(|| panic!("{name}: {runs}"))
    };
    assert_eq!(runs.as_array().unwrap().len(), 4, "{runs}");
    let done = named("done");
    assert_eq!(
        (&done["state"], &done["stage"], &done["dataset"]),
        (&"finished".into(), &Value::Null, &"shapes".into())
    );
    let accuracy = |result: &Value| result["accuracy_mean"].as_f64().unwrap();
    assert_eq!(done["best"][0]["accuracy"], accuracy(&first).max(accuracy(&second)));
    assert_eq!(done["best"][0]["protocol"], first["protocol"]);
    assert_eq!(done["bytes"].as_u64().unwrap(), bytes(&place.path("runs/done")));
    assert_eq!(done["validation"], validation(&place, "runs/done"));
    let half = named("half");
    assert_eq!((&half["state"], &half["stage"], &half["steps"]), (&"interrupted".into(), &"unet".into(), &20.into()));
    for (name, problem) in [("torn", "config.toml"), ("garbled", "not valid TOML")] {
        assert_eq!(named(name)["state"], "damaged");
        assert!(named(name)["problems"][0].as_str().unwrap().contains(problem), "{}", named(name));
    }
    let table = place.ok("runs");
    assert!(table.contains("runs/done") && table.contains("interrupted, unet 0/20"), "{table}");
    assert!(
        table.contains(&format!("{:.2} % (quick (changed: epochs=1), IPC 1)", accuracy(&first).max(accuracy(&second))))
    );
}

#[test]
fn teachers_are_listed_with_the_runs() {
    let place = Place::new();
    let recipe = "--dataset shapes --arch convnet-d2-w8 --set warmup=5 --set checkpoint_every=10";
    let report = place.json(&format!("teacher {recipe} --epochs 1 --hold-out --name whole -q"));
    fs::create_dir_all(place.path("runs/teachers/half/step-00000010")).unwrap();
    fs::copy(place.path("runs/teachers/whole/config.toml"), place.path("runs/teachers/half/config.toml")).unwrap();
    let state = r#"{"step": 10, "total": 40}"#;
    fs::write(place.path("runs/teachers/half/step-00000010/state.json"), state).unwrap();

    let listed = place.json("runs");
    let named = |name: &str| listed.as_array().unwrap().iter().find(|run| run["run"] == *name).unwrap();
    let whole = named("runs/teachers/whole");
    assert_eq!((&whole["state"], &whole["dataset"]), (&"finished".into(), &"shapes".into()));
    assert_eq!(whole["validation"]["teacher"]["accuracy"], report["held_out_accuracy"]);
    let half = named("runs/teachers/half");
    assert_eq!((&half["state"], &half["stage"], &half["step"]), (&"interrupted".into(), &"teacher".into(), &10.into()));
    assert_eq!((&half["kind"], &whole["best"][0]["split"]), (&"teacher".into(), &"heldout".into()));
    assert_eq!(whole["best"][0]["accuracy"], report["held_out_accuracy"]);
    let table = place.ok("runs");
    let accuracy = format!("{:.2} % (teacher, heldout)", report["held_out_accuracy"].as_f64().unwrap());
    assert!(table.contains(&accuracy) && table.contains("interrupted, teacher 10/40"), "{table}");
    assert_eq!(place.json("inspect runs/teachers/whole")["kind"], "teacher");

    fs::remove_file(place.path("runs/teachers/whole/config.toml")).unwrap();
    let listed = place.json("runs");
    let torn = listed.as_array().unwrap().iter().find(|run| run["run"] == "runs/teachers/whole").unwrap();
    assert!(torn["state"] == "damaged" && torn["problems"][0].as_str().unwrap().contains("config.toml"), "{torn}");
}

/// Real images are no set of a run, however they were chosen.
#[test]
fn a_baseline_is_not_the_best_set_of_a_run() {
    let place = Place::new();
    let run = place.path("runs/one");
    fs::create_dir_all(run.join("vae")).unwrap();
    fs::write(run.join("config.toml"), place.ok("presets shapes")).unwrap();
    let result = |on: &str, accuracy: f64| {
        fs::create_dir_all(run.join("eval").join(on)).unwrap();
        let text = serde_json::json!({
            "on": on, "protocol": "quick", "split": "test", "student": "convnet", "ipc": 1, "accuracy_mean": accuracy
        });
        fs::write(run.join("eval").join(on).join("eval.json"), text.to_string()).unwrap();
    };
    result("set", 20.0);
    for baseline in ["real", "random-real", "k-center", "herding", "mix", "reconstructed"] {
        result(baseline, 30.0);
    }
    assert_eq!(place.json("runs")[0]["best"][0]["accuracy"], 20.0);
}

#[test]
fn newer_runs_come_first_and_damaged_results_are_named() {
    let place = Place::new();
    let config = place.ok("presets shapes");
    for (name, age) in [("old", 3000), ("older", 6000), ("new", 10)] {
        let folder = place.path("runs").join(name);
        fs::create_dir_all(folder.join("eval/x")).unwrap();
        fs::write(folder.join("config.toml"), &config).unwrap();
        let file = fs::File::options().append(true).open(folder.join("config.toml")).unwrap();
        let written = file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(age);
        file.set_modified(written).unwrap();
    }
    let names = |runs: Value| runs.as_array().unwrap().iter().map(|run| run["run"].clone()).collect::<Vec<_>>();
    assert_eq!(names(place.json("runs")), ["runs/new", "runs/old", "runs/older"]);
    let place_of = place.path("runs/old/eval/x/eval.json");
    fs::write(&place_of, "{}").unwrap();
    let runs = place.json("runs");
    assert_eq!(runs[0]["run"], "runs/old", "written last");
    assert_eq!(runs[0]["state"], "damaged");
    assert!(runs[0]["problems"][0].as_str().unwrap().contains("eval.json"));
}

/// Sizes of all files, added up.
fn bytes(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes(&path) } else { fs::read(&path).unwrap().len() as u64 }).sum()
}

/// The last figures of both stages, read from metrics.jsonl another way.
fn validation(place: &Place, run: &str) -> Value {
    let last = |stage: &str, names: &[&str]| {
        let text = fs::read_to_string(place.path(run).join(stage).join("metrics.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let figure = |name: &&str| {
            let value = lines.iter().filter_map(|line| line.get(format!("validation_{name}"))).next_back().unwrap();
            (name.to_string(), value.clone())
        };
        Value::Object(names.iter().map(figure).collect())
    };
    serde_json::json!({ "unet": last("unet", &["loss"]), "vae": last("vae", &["mse", "psnr"]) })
}
