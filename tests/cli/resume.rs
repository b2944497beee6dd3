//! A run that was stopped goes on to the same bytes as one that was not.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Place, tiny};

const LONG: &str = "--set train.unet.steps=60 --set train.checkpoint_every=7";

#[test]
fn interrupted_and_killed_runs_end_as_the_unbroken_one() {
    let place = Place::new();
    place.ok(&format!("train {} {LONG} --name unbroken", tiny()));
    let args = format!("train {} {LONG} --name broken", tiny());

    let child = started(&place, &args, "runs/broken/unet", 1);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));

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
fn a_second_process_on_the_same_run_is_refused() {
    let place = Place::new();
    let args = format!("train {} --set train.vae.steps=100000 --name busy", tiny());
    let mut child = started(&place, &args, "runs/busy/vae", 1);
    let error = place.fails(1, &args);
    assert!(error.contains("another process"), "{error}");
    signal(&child, "KILL");
    child.wait().unwrap();
}

/// Starts a command and waits until `folder` holds a checkpoint that was not there before.
fn started(place: &Place, args: &str, folder: &str, at_least: usize) -> Child {
    let mut command = place.command(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let steps = |folder: &str| {
        let entries = fs::read_dir(place.path(folder)).into_iter().flatten().flatten();
        let names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.iter().filter_map(|n| n.strip_prefix("step-")?.parse::<usize>().ok()).max().unwrap_or(0)
    };
    let (start, before) = (Instant::now(), steps(folder));
    while steps(folder) <= before.max(at_least - 1) {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint in {folder}");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended before it could be stopped: {status}");
        }
        sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}
