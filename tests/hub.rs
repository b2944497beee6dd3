//! Sets of the Hugging Face hub, from a hub on this machine that serves one Parquet file (feature `hub`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use distill::data::{Class, ImageSet};
use serde_json::Value;
use tempfile::TempDir;

const COMMIT: &str = "0123456789012345678901234567890123456789";

/// Answers like the hub for the set me/pictures, whose files are all the same fixture; returns the address.
fn hub(files: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap(), files));
        }
    });
    address
}

fn answer(mut stream: TcpStream, files: &[&str]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    let (method, path) = request.split_once(' ').unwrap();
    let path = path.split_whitespace().next().unwrap().replace("%2F", "/");
    let body = if path.starts_with("/api/datasets/me/pictures/revision/refs/convert/parquet") {
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({ "rfilename": file })).collect();
        serde_json::json!({ "id": "me/pictures", "sha": COMMIT, "siblings": siblings }).to_string().into_bytes()
    } else if path.starts_with("/datasets/me/pictures/resolve/") && files.iter().any(|file| path.ends_with(file)) {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images.parquet")).unwrap()
    } else {
        write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        return;
    };
    let etag = body.len(); // the fixture and the list differ in length
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    if method == "GET" {
        stream.write_all(&body).unwrap();
    }
}

/// A folder of its own with a hub's cache in it, and the program started there.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn run(&self, args: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.args(args.split_whitespace()).current_dir(self.0.path());
        command.env("HF_HOME", self.0.path().join("hf")).env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN");
        command.envs(variables.iter().copied()).output().unwrap()
    }

    fn json(&self, args: &str, variables: &[(&str, &str)]) -> Value {
        let output = self.run(args, variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Images `of` the six that scripts/make_parquet_fixture.py draws, from its formula.
fn expected(of: &[u8]) -> ImageSet {
    let pixel = |i: &u8, y: u8, x: u8| [40 * i, 60 * y, 60 * x];
    let image = |i| (0..4).flat_map(move |y| (0..4).flat_map(move |x| pixel(i, y, x)));
    let names = ["apple", "bear", "train"];
    let classes = names.iter().enumerate().map(|(id, name)| Class { name: name.to_string(), id: id.to_string() });
    ImageSet {
        pixels: of.iter().flat_map(image).collect(),
        labels: of.iter().map(|&i| [2, 0, 1][usize::from(i) % 3]).collect(),
        size: 4,
        classes: Arc::new(classes.collect()),
    }
}

const VERIFY: &str = "data verify --dataset hf:me/pictures --image-size 4 --json";

#[test]
fn a_set_is_fetched_once_and_read_without_a_network_after_that() {
    let address = hub(&["default/test/0000.parquet", "default/train/0000.parquet", "default/train/0001.parquet"]);
    let place = Place::new();
    let missing = place.run(VERIFY, &[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", &address)]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("not in the hub's cache"));

    let online = [("HF_ENDPOINT", address.as_str())];
    let fetched = place.json("data fetch --dataset hf:me/pictures --json", &online);
    assert!(fetched["source"].as_str().unwrap().ends_with("default"), "{fetched}");
    let found = place.json(VERIFY, &[("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", "1")]);
    let hashes: Vec<_> = found["reports"].as_array().unwrap().iter().map(|r| r["sha256"].clone()).collect();
    let [train, test] =
        [&[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5][..], &[0, 1, 2, 3, 4, 5]].map(|of| expected(of).sha256());
    assert_eq!(hashes, [train, test], "pixels, labels and classes of both splits");
}

#[test]
fn a_set_without_a_test_split_gives_up_a_tenth_of_each_class() {
    let address = hub(&["pictures/train/0000.parquet"]);
    let place = Place::new();
    let online = [("HF_ENDPOINT", address.as_str())];
    place.json("data fetch --dataset hf:me/pictures --json", &online);
    let found = place.json(VERIFY, &online);
    let counts: Vec<_> = found["reports"].as_array().unwrap().iter().map(|r| r["images_per_class"].clone()).collect();
    assert_eq!(counts, [serde_json::json!([1, 1, 1]), serde_json::json!([1, 1, 1])]);
}

#[test]
fn training_fetches_and_resumes_on_the_same_images() {
    let address = hub(&["default/test/0000.parquet", "default/train/0000.parquet"]);
    let place = Place::new();
    let online = [("HF_ENDPOINT", address.as_str())];
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tiny.toml");
    fs::write(
        place.0.path().join("tiny.toml"),
        fs::read_to_string(tiny)
            .unwrap()
            .replace("dataset = \"shapes\"", "dataset = \"hf:me/pictures\"\nimage_size = 16"),
    )
    .unwrap();
    let trained = place.json("train --config tiny.toml --json", &online);
    assert_eq!(trained["unet"]["steps"], 20);
}

#[test]
fn what_the_hub_does_not_have_is_an_error_that_names_it() {
    let address = hub(&["a/train/0000.parquet", "b/train/0000.parquet"]);
    let place = Place::new();
    let online = [("HF_ENDPOINT", address.as_str())];
    let none = place.run("data fetch --dataset hf:me/nothing", &online);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("hf:me/nothing: cannot be fetched"));
    let several = place.run("data fetch --dataset hf:me/pictures", &online);
    assert_eq!(several.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&several.stderr).contains("found a, b"), "{several:?}");
    let forbidden = place.run("data fetch --dataset hf:me/pictures --offline", &online);
    assert_eq!(forbidden.status.code(), Some(2));
}
