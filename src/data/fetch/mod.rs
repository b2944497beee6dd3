//! Official archives from the network to an unpacked folder: one download at a time, checked before it is unpacked.

pub(super) mod official;
mod request;
mod transfer;
mod unpack;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use indicatif::DecimalBytes;
use md5::{Digest, Md5};

pub use transfer::Patience;
pub use unpack::{Limits, unpack};

use crate::error::{AtPath, Result};
use crate::fs::try_lock;
use crate::progress::Console;
use crate::{fail, interrupt};

/// How often a wait looks for Ctrl-C and for what it waits for.
const GLANCE: Duration = Duration::from_millis(100);

/// An archive on the network, and what is known of it beforehand.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    /// A `.tar.gz` or a zip file.
    pub file: &'a str,
    /// The address of the folder that it lies in.
    pub site: &'a str,
    pub bytes: u64,
    /// In lower-case hexadecimal digits.
    pub md5: &'a str,
    /// The one folder that it holds.
    pub folder: &'a str,
}

/// Brings `root/FOLDER` there: downloads `archive` from `url`, checks its size and MD5, unpacks it and removes it.
/// Returns whether anything had to be done; a folder that is there already is left alone.
///
/// A second process waits until the first is done. What a broken or interrupted download has got stays as
/// `root/FILE.part`, from which the next call goes on. An archive that somebody put at `root/FILE` is unpacked and kept.
pub fn fetch(archive: &Archive, url: &str, root: &Path, patience: &Patience, console: &Console) -> Result<bool> {
    fs::create_dir_all(root).at(root)?;
    let lock = root.join(format!(".{}.lock", archive.file));
    let _held = wait_for(&lock, archive, console)?;
    let done = fetch_alone(archive, url, root, patience, console);
    let _ = fs::remove_file(&lock); // an empty file that stays does no harm
    done
}

/// [`fetch`] for the one process that may.
fn fetch_alone(archive: &Archive, url: &str, root: &Path, patience: &Patience, console: &Console) -> Result<bool> {
    if root.join(archive.folder).is_dir() {
        return Ok(false);
    }
    let own = root.join(archive.file);
    if own.is_file() {
        let found = md5(&own)?;
        if found != archive.md5 {
            fail!(
                "{}: its MD5 is {found}, expected {} ({} bytes): it is cut short or another file; remove it, then run \
                 the same command again",
                own.display(),
                archive.md5,
                archive.bytes
            );
        }
        console.info(format!("unpacking {}", own.display()));
        unpack(&own, root, archive.folder, &Limits::default())?;
        return Ok(true);
    }
    let part = root.join(format!("{}.part", archive.file));
    let size = DecimalBytes(archive.bytes);
    console.info(format!("fetching {} ({size}) from {url} to {}", archive.file, root.display()));
    download(archive, url, &part, patience, console)?;
    console.info(format!("unpacking {}", archive.file));
    unpack(&part, root, archive.folder, &Limits::default())?;
    fs::remove_file(&part).at(&part)?;
    Ok(true)
}

/// Makes `part` the whole archive. One that was pieced together from several answers may hold pieces of two different
/// files: it gets one new start.
fn download(archive: &Archive, url: &str, part: &Path, patience: &Patience, console: &Console) -> Result<()> {
    let mut restarted = false;
    loop {
        let pieced = transfer::complete(archive, url, part, patience, console)?;
        let found = md5(part)?;
        if found == archive.md5 {
            return Ok(());
        }
        fs::remove_file(part).at(part)?;
        if !pieced || restarted {
            fail!(
                "{url}: the MD5 of what came is {found}, expected {}: it is another or a damaged file; name another \
                 place with the variable DISTILL_MIRROR",
                archive.md5
            );
        }
        console.info(format!("{}: the pieces do not fit together; starting over", archive.file));
        restarted = true;
    }
}

/// Takes the file `lock` when no other process fetches `archive` any more.
fn wait_for(lock: &Path, archive: &Archive, console: &Console) -> Result<File> {
    let mut said = false;
    loop {
        if let Some(held) = try_lock(lock, "is fetching the same archive")? {
            return Ok(held);
        }
        if !said {
            console.info(format!("another process is fetching {}: waiting for it", archive.file));
            said = true;
        }
        interrupt::check()?;
        sleep(GLANCE);
    }
}

/// The MD5 of a file in hexadecimal digits.
fn md5(path: &Path) -> Result<String> {
    let mut file = File::open(path).at(path)?;
    let (mut hash, mut block) = (Md5::new(), vec![0; 1 << 20]);
    loop {
        interrupt::check()?;
        match file.read(&mut block).at(path)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&block[..n]),
        }
    }
}
