//! Fetching archives: from a server that breaks in every way, by two at once, and from hostile archives.

mod binary;
mod broken;
mod hostile;
mod server;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use distill::data::fetch::{Archive, Patience, fetch};
use distill::error::Result;
use distill::progress::{Console, Verbosity};
use distill::rng::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};
use rand::RngCore;

/// The name of the small archive that the tests serve, and of the folder that it holds.
const FILE: &str = "small.tar.gz";
const FOLDER: &str = "small";

/// Fetches `content` under the name [`FILE`] from `url` to `root`, in four tries without a pause.
fn fetch_from(url: &str, content: &[u8], root: &Path) -> Result<bool> {
    fetch_with(url, content, root, Duration::from_secs(30), 3)
}

/// The same, taking half a second of silence for a stall. A busy machine may be as slow, so there are many tries.
fn fetch_impatiently(url: &str, content: &[u8], root: &Path) -> Result<bool> {
    fetch_with(url, content, root, Duration::from_millis(500), 100)
}

fn fetch_with(url: &str, content: &[u8], root: &Path, stall: Duration, tries: usize) -> Result<bool> {
    let md5 = md5(content);
    let archive = Archive { file: FILE, site: "", bytes: content.len() as u64, md5: &md5, folder: FOLDER };
    let patience = Patience { connect: Duration::from_secs(30), stall, pauses: vec![Duration::ZERO; tries] };
    fetch(&archive, url, root, &patience, &Console::new(Verbosity::Quiet))
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Some 70 kB that do not compress: a `.tar.gz` of `small/one.bin` and `small/deep/two.txt`, and the first's content.
fn small_archive() -> (Vec<u8>, Vec<u8>) {
    let mut content = vec![0; 70_000];
    Rng::stream(0, "fetch-test", 0, 0).fill_bytes(&mut content);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [("small/one.bin", content.as_slice()), ("small/deep/two.txt", b"two")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    (gz(&tar.into_inner().unwrap()), content)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

/// The names of what `folder` holds, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that the small archive stands unpacked in `root` with nothing beside it.
fn assert_unpacked(root: &Path, content: &[u8]) {
    assert_eq!(names(root), [FOLDER]);
    assert_eq!(names(&root.join(FOLDER)), ["deep", "one.bin"]);
    assert_eq!(fs::read(root.join("small/one.bin")).unwrap(), content);
    assert_eq!(fs::read(root.join("small/deep/two.txt")).unwrap(), b"two");
}
