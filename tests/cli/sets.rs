//! Sampling and evaluation that were stopped go on to the same bytes; odd names and places work.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Place, tiny};

/// A place with a trained run, runs/one.
fn trained() -> Place {
    let place = Place::new();
    place.ok(&format!("train {} --name one -q", tiny()));
    place
}

/// Every file below `folder` with its bytes, by relative path.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                found.push((entry.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&entry).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Starts a command and waits until `folder` holds `count` files whose names start with `prefix`.
fn started(place: &Place, args: &str, folder: &str, prefix: &str, count: usize) -> Child {
    let mut child = place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let found = || {
        let entries = fs::read_dir(place.path(folder)).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).count()
    };
    while found() < count {
        assert!(start.elapsed() < Duration::from_secs(120), "{count} of {prefix} never came");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended before it could be stopped: {status}");
        }
        sleep(Duration::from_millis(2));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Like [`Place::ok`], with arguments that may hold spaces.
fn ok(place: &Place, args: &[&OsStr]) -> String {
    let output = place.command("").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn stopped_sampling_goes_on_to_the_bytes_of_an_unbroken_one() {
    let place = trained();
    place.ok("sample --ipc 40 --name unbroken");
    let (args, partial) = ("sample --ipc 40 --name broken", "runs/one/distilled/.partial-broken");
    let child = started(&place, args, partial, "batch-", 3);
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let before = fs::metadata(place.path(partial).join("batch-00001.bin")).unwrap().modified().unwrap();

    let mut child = started(&place, args, partial, "batch-", 8);
    let error = place.fails(1, args);
    assert!(error.contains("another process"), "{error}");
    signal(&child, "KILL");
    child.wait().unwrap();
    assert_eq!(fs::metadata(place.path(partial).join("batch-00001.bin")).unwrap().modified().unwrap(), before);

    let damaged = place.path(partial).join("batch-00002.bin");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let output = place.run(args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("batch 2 is damaged") && stderr(&output).contains("drawn before"));
    let set = |name: &str| contents(&place.path("runs/one/distilled").join(name));
    assert!(set("unbroken") == set("broken"), "an interrupted set differs");
    assert!(!place.path(partial).exists());
}

#[test]
fn batches_of_another_plan_are_not_used() {
    let place = trained();
    place.ok("sample --ipc 30 --seed 1 --name expected");
    let partial = "runs/one/distilled/.partial-set";
    let mut child = started(&place, "sample --ipc 30 --name set", partial, "batch-", 3);
    signal(&child, "KILL");
    child.wait().unwrap();
    let output = place.run("sample --ipc 30 --seed 1 --name set");
    assert!(stderr(&output).contains("another seed"), "{}", stderr(&output));
    let set = |name: &str| contents(&place.path("runs/one/distilled").join(name));
    assert!(set("expected") == set("set"));
}

/// The number of images is fixed once: a stopped set goes on with it, to the same bytes.
#[test]
fn a_time_limit_sets_the_number_of_images() {
    let place = trained();
    let error = place.fails(2, "sample --budget 1ms");
    assert!(error.contains("--budget") && error.contains("10 classes"), "{error}");
    let partial = "runs/one/distilled/.partial-timed";
    let mut child = started(&place, "sample --budget 3s --name timed", partial, "batch-", 2);
    signal(&child, "KILL");
    child.wait().unwrap();
    let plan: Value = serde_json::from_slice(&fs::read(place.path(partial).join("plan.json")).unwrap()).unwrap();
    let images = place.json("sample --budget 3s --name timed")["images"].as_u64().unwrap();
    assert_eq!(Some(images), plan["images"].as_u64());
    assert!(images > 0 && images.is_multiple_of(10), "{images}");
    place.ok(&format!("sample --ipc {} --name counted", images / 10));
    let set = |name: &str| contents(&place.path("runs/one/distilled").join(name));
    assert!(set("timed") == set("counted"));
}

#[test]
fn a_set_is_replaced_only_by_a_whole_one() {
    let place = trained();
    place.ok("sample --ipc 1 --name set");
    let folder = place.path("runs/one/distilled/set");
    let before = contents(&folder);
    let args = "sample --ipc 40 --name set --overwrite";
    let mut child = started(&place, args, "runs/one/distilled/.partial-set", "batch-", 3);
    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(contents(&folder) == before);
    // As if the power had gone between moving the old set aside and the new one into place.
    fs::rename(&folder, place.path("runs/one/distilled/.partial-set/old")).unwrap();
    let error = place.fails(2, "sample --ipc 40 --name set");
    assert!(error.contains("--overwrite"), "{error}");
    assert!(contents(&folder) == before);
    place.ok(args);
    assert_eq!(fs::read_dir(folder.join("train/000_disc")).unwrap().count(), 40);
    assert_eq!(fs::read_dir(place.path("runs/one/distilled")).unwrap().count(), 1);
}

#[test]
fn a_stopped_evaluation_uses_its_finished_students() {
    let place = trained();
    place.ok("sample --ipc 2 --name set");
    let eval =
        |runs: usize, out: &str| format!("eval --on runs/one/distilled/set --runs {runs} --epochs 2 --out {out}");
    // A set outside a run is judged into --out; two copies give two folders.
    for copy in ["a", "b"] {
        let from = place.path("runs/one/distilled/set");
        fs::create_dir_all(place.path(copy)).unwrap();
        for (file, bytes) in contents(&from) {
            let file = place.path(copy).join("set").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
    }
    let eval = |copy: &str, runs: usize| {
        let text = eval(runs, copy);
        text.replace("runs/one/distilled/set", &format!("{copy}/set"))
    };
    place.ok(&eval("a", 3));
    // Eight digits behind the set's name tell equally named sets of other folders apart.
    let folder = |copy: &str| {
        let mut results = fs::read_dir(place.path(copy).join("eval")).unwrap().map(|entry| entry.unwrap().path());
        results.find(|path| path.to_str().unwrap().ends_with("-convnet-quick--changed--epochs-2-seed0")).unwrap()
    };
    // The copies are the same, and so are the names of their students' folders.
    let students = fs::read_dir(place.path("a/eval/students")).unwrap().next().unwrap().unwrap().file_name();
    let students = format!("b/eval/students/{}", students.to_str().unwrap());
    let mut child = started(&place, &eval("b", 3), &students, "run-", 1);
    let error = place.fails(1, &eval("b", 3));
    assert!(error.contains("another process"), "{error}");
    signal(&child, "KILL");
    child.wait().unwrap();
    let first = fs::read(place.path(&students).join("run-00.json")).unwrap();
    place.ok(&eval("b", 1));
    place.ok(&eval("b", 3));
    assert_eq!(
        fs::read(place.path(&students).join("run-00.json")).unwrap(),
        first,
        "the first student was trained twice"
    );

    let metrics = |copy: &str| fs::read_to_string(folder(copy).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics("a"), metrics("b"));
    assert_eq!(metrics("a").lines().count(), 6);
    let result = |copy: &str| {
        let mut value: Value = serde_json::from_slice(&fs::read(folder(copy).join("eval.json")).unwrap()).unwrap();
        value["seconds"] = 0.into();
        value["on"] = "set".into();
        value
    };
    assert_eq!(result("a"), result("b"));
}

#[test]
fn names_with_spaces_and_unicode_and_links_to_runs_work() {
    let place = trained();
    let run = place.path("elsewhere/naïve run 模型");
    fs::create_dir_all(run.parent().unwrap()).unwrap();
    fs::rename(place.path("runs/one"), &run).unwrap();
    std::os::unix::fs::symlink(&run, place.path("runs/a link")).unwrap();
    let name = "été à la mer, n° 1";
    ok(&place, &["sample", "--ipc", "1", "--run", "runs/a link", "--name", name].map(OsStr::new));
    assert!(run.join("distilled").join(name).join("train/000_disc/0000.png").is_file());
    let found = ok(&place, &["eval", "--epochs", "1", "--out", "runs", "--json"].map(OsStr::new));
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["on"], format!("runs/a link/distilled/{name}"));
    assert!(fs::read_dir(run.join("eval")).unwrap().count() == 1);

    // A folder's name may have 255 bytes; the name of its results is made of it.
    let renamed = place.path("é".repeat(127).as_str());
    fs::rename(run.join("distilled").join(name), &renamed).unwrap();
    ok(&place, &[OsStr::new("eval"), "--epochs".as_ref(), "1".as_ref(), "--on".as_ref(), renamed.as_ref()]);

    let long = "x".repeat(300);
    for args in [format!("sample --ipc 1 --name {long}"), "sample --ipc 1 --name ..".into()] {
        let error = place.fails(2, &args);
        assert!(error.contains("--name"), "{error}");
    }
}

#[test]
fn a_run_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = trained();
    let run = place.path("runs/one");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(run.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write anywhere");
        return;
    }
    let error = place.fails(1, "sample --ipc 1");
    assert!(error.contains("runs/one") && error.contains("--to"), "{error}");
    place.ok("sample --ipc 1 --to sets --name mine");
    assert!(place.path("sets/mine/distilled.safetensors").is_file());
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The run's guidance is that of the number of images, unless the command names one.
#[test]
fn guidance_goes_by_images_a_class() {
    let place = Place::new();
    place.ok(&format!("train {} --name one --set sampler.guidance=[[1,4.0],[3,2.5]] -q", tiny()));
    let guidance = |options: &str| {
        let set = place.json(&format!("sample {options} --classes 0 --name set --overwrite"));
        let manifest = place.json(&format!("inspect {}", set["distilled"].as_str().unwrap()));
        manifest["provenance"]["details"]["guidance"].as_f64().unwrap_or_else(|| panic!("{manifest}"))
    };
    assert_eq!(["--ipc 2", "--ipc 3", "--ipc 3 --guidance 1"].map(guidance), [4.0, 2.5, 1.0]);
    let many = place.ok("sample --budget 1h --dry-run");
    assert!(many.contains("budget3600s-guidance2.5-"), "{many}");
    let card = fs::read_to_string(place.path("runs/one/README.md")).unwrap();
    assert!(card.contains("guidance 4 from 1, 2.5 from 3 images a class on"), "{card}");
    let error = place.fails(2, "sample --set sampler.guidance=[[2,4.0]]");
    assert!(error.contains("sampler.guidance") && error.contains("rise from 1 on"), "{error}");
}
