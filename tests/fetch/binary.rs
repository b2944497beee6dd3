//! The binary: at first use, offline, interrupted. It knows the official sizes and sums, so no small archive passes.

use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::server::{Answer, Server};

const OFFICIAL: &str = "cifar-100-binary.tar.gz";

/// `distill ARGS` in an empty folder, with the folder `data` for data sets and `mirror` for downloads.
fn distill(place: &TempDir, mirror: &str, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.args(args.split_whitespace()).current_dir(place.path()).env_remove("DISTILL_OFFLINE");
    command.env("DISTILL_DATA", place.path().join("data")).env("DISTILL_MIRROR", mirror);
    command
}

/// (exit code, stderr).
fn end(output: Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_first_use_says_what_it_fetches_and_refuses_another_file() {
    let place = tempdir().unwrap();
    for args in ["train", "run", "eval --on random-real --ipc 1 --out other", "data fetch"] {
        let server = Server::new(b"not the official archive", &[]);
        let output = distill(&place, &server.address, &format!("{args} --dataset cifar100")).output();
        let (code, stderr) = end(output.unwrap());
        assert_eq!(code, 1, "{args}: {stderr}");
        let (data, url) = (place.path().join("data"), server.url(OFFICIAL));
        let said = format!("fetching {OFFICIAL} (168.51 MB) from {url} to {}", data.display());
        assert!(stderr.contains(&said), "{args}: {stderr}");
        assert!(stderr.contains("it has 24 bytes, expected 168513733"), "{args}: {stderr}");
        assert_eq!(super::names(&data), Vec::<String>::new());
    }
}

#[test]
fn offline_nothing_is_asked_for() {
    let place = tempdir().unwrap();
    let server = Server::new(b"", &[]);
    let (code, stderr) = end(distill(&place, &server.address, "train --dataset cifar100 --offline").output().unwrap());
    assert!(code == 1 && stderr.contains("was not found; looked for"), "{stderr}");
    let mut variable = distill(&place, &server.address, "train --dataset tinyimagenet");
    let (code, stderr) = end(variable.env("DISTILL_OFFLINE", "1").output().unwrap());
    assert!(code == 1 && stderr.contains("distill data fetch --dataset tinyimagenet"), "{stderr}");
    let (code, stderr) =
        end(distill(&place, &server.address, "data fetch --dataset cifar100 --offline").output().unwrap());
    assert!(code == 2 && stderr.contains("--offline"), "{stderr}");
    let (code, stderr) = end(distill(&place, &server.address, "data fetch --dataset shapes").output().unwrap());
    assert!(code == 2 && stderr.contains("nothing to fetch"), "{stderr}");
    assert_eq!(server.ranges(), Vec::<String>::new());
}

#[test]
fn a_folder_that_lacks_its_files_is_named_and_not_fetched_over() {
    let place = tempdir().unwrap();
    let server = Server::new(b"", &[]);
    let folder = place.path().join("data/tiny-imagenet-200");
    std::fs::create_dir_all(&folder).unwrap();
    for args in ["data fetch", "train"] {
        let command = distill(&place, &server.address, &format!("{args} --dataset tinyimagenet")).output();
        let (code, stderr) = end(command.unwrap());
        assert!(code == 1 && stderr.contains("tiny-imagenet-200: the folder is there"), "{stderr}");
    }
    assert_eq!(server.ranges(), Vec::<String>::new());
}

/// Starts a fetch from a server that falls silent, and returns once the first bytes are in the part.
#[cfg(unix)]
fn stalled(place: &TempDir, server: &Server, bytes: u64) -> Child {
    let command = &mut distill(place, "", &format!("data fetch --dataset cifar100 --url {}", server.url(OFFICIAL)));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let part = place.path().join("data").join(format!("{OFFICIAL}.part"));
    while part.metadata().map_or(0, |found| found.len()) < bytes {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        sleep(Duration::from_millis(20));
    }
    child
}

#[cfg(unix)]
#[test]
fn an_interrupt_or_a_kill_keeps_the_part_and_the_next_fetch_goes_on_from_it() {
    let place = tempdir().unwrap();
    // Zeros of the official length: what matters is that their head promises the right size.
    let server = Server::new(&vec![0; 168_513_733], &[Answer::Stall(5000), Answer::Stall(5000), Answer::Stall(5000)]);
    for (signal, code, bytes) in [("-INT", Some(130), 5000), ("-KILL", None, 10_000), ("-INT", Some(130), 15_000)] {
        let child = stalled(&place, &server, bytes);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait_with_output().unwrap().status.code(), code);
        let part = place.path().join("data").join(format!("{OFFICIAL}.part"));
        assert_eq!(part.metadata().unwrap().len(), bytes);
    }
    assert_eq!(server.ranges(), ["", "bytes=5000-", "bytes=10000-"]);
}
