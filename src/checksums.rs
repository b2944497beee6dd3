//! SHA-256 of files, kept in a list beside them that `sha256sum -c` reads too: a bit that flips on the disk, in a file or
//! in the list itself, shows when the file is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{AtPath, Result};
use crate::fail;
use crate::fs::write_atomic;

/// The hash of `bytes`, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of the file at `path`.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path).at(path)?, &mut hasher).at(path)?;
    Ok(hex(&hasher.finalize()))
}

/// An error if the file at `path` is missing or has another hash than `expected`, which stands in the file `source`.
pub fn check_file(path: &Path, expected: &str, source: &Path) -> Result<()> {
    if !path.try_exists().at(path)? {
        fail!("{}: is missing", path.display());
    }
    if sha256_file(path)? != expected {
        let length = fs::metadata(path).at(path)?.len();
        fail!(
            "{}: is damaged: its {length} bytes do not have the SHA-256 that {} states",
            path.display(),
            source.display()
        );
    }
    Ok(())
}

/// The hashes of files in one folder, by name.
#[derive(Debug, Default)]
pub struct Checksums(BTreeMap<String, String>);

impl Checksums {
    pub fn add(&mut self, name: &str, hash: String) {
        self.0.insert(name.into(), hash);
    }

    /// Writes the list at `path`, in the folder of the files.
    pub fn write(&self, path: &Path) -> Result<()> {
        let lines: String = self.0.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        write_atomic(path, lines.as_bytes())
    }

    /// Compares the files called `names` with the list at `path`; every one must be there, be listed and be unchanged.
    pub fn check(path: &Path, names: &[&str]) -> Result<()> {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => fail!("{}: is missing", path.display()),
            read => read.at(path)?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let listed: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once("  ").map(|(hash, name)| (name, hash))).collect();
        for name in names {
            let Some(hash) = listed.get(name) else {
                fail!("{}: is damaged: it does not name {name}", path.display());
            };
            check_file(&path.with_file_name(name), hash, path)?;
        }
        Ok(())
    }
}
