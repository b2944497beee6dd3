//! A run that was stopped goes on to the same bytes as one that was not.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::{Place, tiny};

const LONG: &str = "--set train.unet.steps=60 --set train.checkpoint_every=7";

#[test]
fn interrupted_and_killed_runs_end_as_the_unbroken_one() {
    let place = Place::new();
    place.ok(&format!("train {} {LONG} --name unbroken", tiny()));
    let args = format!("train {} {LONG} --name broken", tiny());

    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let child = started(&place, &args, "runs/broken/unet", 1);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("unet: saved step"), "{stderr}");
    }

    let mut child = started(&place, &args, "runs/broken/unet", 2);
    signal(&child, "KILL");
    assert!(!child.wait().unwrap().success());

    place.ok(&args);
    for file in ["vae/final.safetensors", "unet/final.safetensors"] {
        let read = |run: &str| fs::read(place.path("runs").join(run).join(file)).unwrap();
        assert!(read("unbroken") == read("broken"), "{file} differs");
    }
    let metrics = |run: &str| fs::read_to_string(place.path("runs").join(run).join("unet/metrics.jsonl")).unwrap();
    assert_eq!(metrics("unbroken"), metrics("broken"));
}

#[test]
fn a_second_signal_ends_the_process_at_once_and_harms_nothing() {
    let place = Place::new();
    let args = format!("train {} --set train.vae.steps=100000 --name busy", tiny());
    let mut child = started(&place, &args, "runs/busy/vae", 1);
    // While it is stopped, both arrive; different ones, as equal ones would be merged.
    signal(&child, "STOP");
    ["TERM", "INT", "CONT"].iter().for_each(|name| signal(&child, name));
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    let child = started(&place, &args, "runs/busy/vae", 1);
    signal(&child, "INT");
    let stderr = child.wait_with_output().unwrap().stderr;
    assert!(String::from_utf8_lossy(&stderr).contains("vae: goes on from step"), "goes on after it");
}

#[test]
fn a_vae_that_is_reused_is_what_training_gives() {
    let place = Place::new();
    place.ok(&format!("train {} --name first -q", tiny()));
    let other = "--set train.unet.steps=7 --set train.log_every=3";
    place.ok(&format!("train {} {other} --name reused --vae runs/first -q", tiny()));
    place.ok(&format!("train {} {other} --name trained -q", tiny()));
    for file in ["vae/final.safetensors", "unet/final.safetensors"] {
        let read = |run: &str| fs::read(place.path("runs").join(run).join(file)).unwrap();
        let same = read("reused") == read("trained");
        // The card of a copied VAE names the settings of the run that it was trained in.
        assert!(same || file.starts_with("vae") && read("reused") == read("first"), "{file} differs");
    }
    for (change, key) in [("train.vae.steps=9", "train.vae.steps"), ("train.kl_weight=1e-3", "train.kl_weight")] {
        let error = place.fails(2, &format!("train {} --set {change} --name no --vae runs/first", tiny()));
        assert!(error.contains(key), "{error}");
    }
    let error = place.fails(2, &format!("train {} --name first --overwrite --vae runs/../runs/first", tiny()));
    assert!(error.contains("is the run that is to be trained"), "{error}");
    assert!(place.path("runs/first/vae/final.safetensors").is_file());
    let meta = place.path("runs/first/meta.json");
    let changed = fs::read_to_string(&meta).unwrap().replace("\"data_sha256\": \"", "\"data_sha256\": \"0");
    fs::write(&meta, changed).unwrap();
    let error = place.fails(2, &format!("train {} --name no --vae runs/first", tiny()));
    assert!(error.contains("other images"), "{error}");
    // A run that has taken it goes on without the other one.
    fs::remove_file(place.path("runs/reused/unet/final.safetensors")).unwrap();
    place.ok(&format!("train {} {other} --name reused --vae runs/none -q", tiny()));
    let error = place.fails(2, &format!("train {} --name no --vae runs/none", tiny()));
    assert!(error.contains("no finished VAE"), "{error}");
    assert!(!place.path("runs/no").exists());
}

/// What a validation measures takes long, and only then is the step saved.
#[test]
fn a_signal_during_a_validation_loses_no_step() {
    let place = Place::new();
    place.ok("teacher --dataset shapes --arch convnet-d2-w8 --epochs 1 --set warmup=5 -q");
    let often = "--set train.sample_every=10 --set train.log_every=10 --set train.checkpoint_every=0";
    let args = |name: &str| format!("train {} {often} --teacher runs/teachers --fd-images 3000 --name {name}", tiny());
    place.ok(&args("unbroken"));
    let metrics = |name: &str| fs::read_to_string(place.path("runs").join(name).join("unet/metrics.jsonl"));
    let mut child = place.command(&args("broken")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !metrics("broken").is_ok_and(|text| text.contains("\"step\":10")) {
        assert!(
            start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(),
            "no line of step 10"
        );
        sleep(Duration::from_millis(5));
    }
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && stderr.contains("unet: saved step 10"), "{stderr}");
    place.ok(&args("broken"));
    assert_eq!(metrics("unbroken").unwrap(), metrics("broken").unwrap());
}

#[test]
fn under_nohup_a_closed_terminal_does_not_end_the_training() {
    let place = Place::new();
    let args = format!("train {} --set train.vae.steps=100000 --name busy", tiny());
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_distill")).args(args.split_whitespace()).current_dir(place.path(""));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_step(&place, &mut child, "runs/busy/vae", 1);
    signal(&child, "HUP");
    // One that stops after its step saves once more; this one goes on.
    let step = newest_step(&place, "runs/busy/vae");
    await_step(&place, &mut child, "runs/busy/vae", step + 30);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_second_process_on_the_same_run_is_refused_with_the_number_of_the_first() {
    let place = Place::new();
    let args = format!("train {} --set train.vae.steps=100000 --name busy", tiny());
    let mut child = started(&place, &args, "runs/busy/vae", 1);
    let run = args.replacen("train", "run", 1);
    for command in [args.clone(), format!("{args} --overwrite"), run.clone(), format!("{run} --overwrite")] {
        let error = place.fails(1, &command);
        assert!(error.contains(&format!("another process ({}", child.id())), "{command}: {error}");
        assert!(place.path("runs/busy/vae/metrics.jsonl").is_file());
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    // The lock file is still there, the lock is not.
    let child = started(&place, &args, "runs/busy/vae", 1);
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn damaged_weights_are_refused_by_name_and_damaged_latents_made_again() {
    let place = Place::new();
    let args = format!("train {} --name one", tiny());
    place.ok(&args);
    let flip = |file: &str| {
        let path = place.path("runs/one").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 40; // within the last tensor: still a valid safetensors file
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let unet = fs::read(place.path("runs/one/unet/final.safetensors")).unwrap();
    let latents = fs::read(place.path("runs/one/vae/latents.safetensors")).unwrap();
    for file in ["unet/final.safetensors", "vae/final.safetensors"] {
        flip(file);
        let error = place.fails(1, "sample --ipc 1");
        assert!(error.contains(&format!("{file}: is damaged")) && error.contains("summary.json"), "{error}");
        flip(file);
    }
    place.ok("sample --ipc 1");
    fs::remove_dir_all(place.path("runs/one/unet")).unwrap();
    flip("vae/latents.safetensors");
    let log = String::from_utf8(place.run(&args).stderr).unwrap();
    assert!(log.contains("latents.safetensors: is damaged") && log.contains("encoding again"), "{log}");
    assert!(fs::read(place.path("runs/one/vae/latents.safetensors")).unwrap() == latents);
    assert!(fs::read(place.path("runs/one/unet/final.safetensors")).unwrap() == unet);
}

#[test]
fn the_newest_is_the_last_that_was_made_whatever_the_clock_says() {
    let place = Place::new();
    for name in ["b", "a"] {
        place.ok(&format!("train {} --name {name}", tiny()));
    }
    for (run, set) in [("b", "second"), ("a", "first"), ("b", "last")] {
        place.ok(&format!("sample --run runs/{run} --ipc 1 --name {set}"));
    }
    // The clock was set forward by a day while the older ones were made.
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    let older = ["b/unet/final.safetensors", "b/distilled/second/distilled.safetensors"];
    for file in older.iter().chain(&["a/distilled/first/distilled.safetensors"]) {
        fs::File::options().append(true).open(place.path("runs").join(file)).unwrap().set_modified(tomorrow).unwrap();
    }
    let sampled = place.json("sample --ipc 2");
    assert!(sampled["distilled"].as_str().unwrap().starts_with("runs/a/"), "{sampled}");
    fs::remove_dir_all(place.path(sampled["distilled"].as_str().unwrap())).unwrap();
    let judged = place.json("eval --epochs 1");
    assert_eq!(judged["on"], "runs/b/distilled/last");
    // Without notes, times are all there is.
    fs::remove_file(place.path("runs/.order")).unwrap();
    assert!(place.json("sample --ipc 2")["distilled"].as_str().unwrap().starts_with("runs/b/"));
}

#[test]
fn a_run_goes_on_only_where_its_notes_are_whole_and_a_lost_card_is_written_again() {
    let place = Place::new();
    let args = format!("train {} --name one", tiny());
    place.ok(&args);
    let path = |file: &str| place.path("runs/one").join(file);
    let card = fs::read(path("README.md")).unwrap();
    fs::remove_file(path("README.md")).unwrap();
    place.fails(2, &args);
    assert_eq!(fs::read(path("README.md")).unwrap(), card);

    fs::remove_file(path("unet/final.safetensors")).unwrap();
    for (file, damaged) in [("meta.json", Some("{")), ("meta.json", None), ("config.toml", None)] {
        let whole = fs::read(path(file)).unwrap();
        match damaged {
            Some(text) => fs::write(path(file), text).unwrap(),
            None => fs::remove_file(path(file)).unwrap(),
        }
        let error = place.fails(1, &args);
        assert!(error.contains(file) && error.contains("--overwrite"), "{error}");
        fs::write(path(file), whole).unwrap();
    }
    place.ok(&args);
}

#[test]
fn a_pipe_in_place_of_the_metrics_and_a_network_beyond_memory_are_no_trouble() {
    let place = Place::new();
    fs::create_dir_all(place.path("runs/one/vae")).unwrap();
    fs::write(place.path("runs/one/config.toml"), "").unwrap();
    let fifo = place.path("runs/one/vae/metrics.jsonl");
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    place.ok("runs");
    let huge = "--dry-run --set vae.channels=[4096,4096,4096] --set vae.blocks=16";
    let error = place.fails(2, &format!("train {} {huge}", tiny()));
    assert!(error.contains("parameters") && error.contains("at most"), "{error}");
}

#[test]
fn a_note_that_was_cut_off_does_not_swallow_the_next() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.ok(&format!("train {} --name {name}", tiny()));
    }
    fs::write(place.path("runs/.order"), "a\nb\na/distil").unwrap();
    place.ok("sample --run runs/a --ipc 1 --name last");
    let order = fs::read_to_string(place.path("runs/.order")).unwrap();
    assert_eq!(order.lines().last(), Some("a/distilled/last"), "{order}");
}

/// Starts a command and waits until `folder` holds a checkpoint that was not there before.
pub fn started(place: &Place, args: &str, folder: &str, at_least: usize) -> Child {
    let before = newest_step(place, folder);
    let mut child = place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_step(place, &mut child, folder, before.max(at_least - 1) + 1);
    child
}

/// Waits until `folder` holds a checkpoint of step `at_least` or later, made by `child`.
fn await_step(place: &Place, child: &mut Child, folder: &str, at_least: usize) {
    let start = Instant::now();
    while newest_step(place, folder) < at_least {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint in {folder}");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended before it could be stopped: {status}");
        }
        sleep(Duration::from_millis(5));
    }
}

/// The newest checkpoint's step; 0 where there is none.
fn newest_step(place: &Place, folder: &str) -> usize {
    let entries = fs::read_dir(place.path(folder)).into_iter().flatten().flatten();
    let names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.iter().filter_map(|n| n.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
}

pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn starting_again_puts_aside_what_the_old_weights_made() {
    let place = Place::new();
    let train = format!("train {} --name tiny -q", tiny());
    place.ok(&train);
    place.ok("sample --ipc 1 --name set");
    place.ok(&format!("{train} --overwrite --stage vae"));
    for (file, there) in
        [("old-1/distilled/set", true), ("old-1/README.md", true), ("distilled", false), ("README.md", false)]
    {
        assert_eq!(place.path("runs/tiny").join(file).exists(), there, "{file}");
    }
}
