//! The place of a distilled folder, or of an exported one: it is built in a folder beside it, synced, then renamed into it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::batches::{Batches, PLAN};
use super::write::write_files;
use super::{Listing, TENSOR_FILE};
use crate::error::{AtPath, Error, Result};
use crate::fs::{folder_of, lock, sync_folder, sync_tree};
use crate::{fail, usage};

/// `.partial-NAME`, where the set NAME is made; locked against a second process. It stays behind only while it holds
/// batches that a later call can go on with.
pub struct Staging {
    folder: PathBuf,
    target: PathBuf,
    _lock: File,
}

impl Staging {
    /// Makes ready for a set at `target`, or goes on where a call before was stopped.
    ///
    /// A target that holds anything is refused, unless `overwrite` is given and it is a distilled folder: that one is moved
    /// aside, and only removed when the new one stands in its place.
    pub fn open(target: &Path, overwrite: bool) -> Result<Self> {
        Self::checked(target, &|| check_place(target, overwrite))
    }

    /// As [`Staging::open`] for a folder of another kind: `check` refuses a target that must stay.
    pub fn checked(target: &Path, check: &dyn Fn() -> Result<()>) -> Result<Self> {
        let Some(name) = target.file_name() else { usage!("{}: expected a folder's name", target.display()) };
        let mut partial = std::ffi::OsString::from(".partial-");
        partial.push(name);
        let parent = folder_of(target);
        let folder = parent.join(partial);
        if !folder.exists() {
            check()?; // before anything is made
        }
        let refused = |e: std::io::Error| {
            Error::Failed(format!(
                "cannot write to {}: {e}; change its permissions, or choose another place (`distill sample` has --to DIR)",
                parent.display()
            ))
        };
        fs::create_dir_all(&folder).map_err(refused)?;
        let _lock = lock(&folder.join(".lock"), "is making this set")?;
        let staging = Staging { folder, target: target.into(), _lock };
        if staging.old().exists() && !target.exists() {
            fs::rename(staging.old(), target).at(target)?; // a crash came between the two renames
        }
        check()?;
        Ok(staging)
    }

    /// The plan of the set that a call before has begun here.
    pub fn begun(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&fs::read(self.folder.join(PLAN)).ok()?).ok()
    }

    /// The batches that are drawn already by this `plan`, which holds everything that decides the pixels. Those of another
    /// plan are removed; then the first key that differs is returned, too.
    pub fn batches(&self, plan: &Map<String, Value>) -> Result<(Batches, Option<String>)> {
        Batches::open(&self.folder, plan)
    }

    /// Writes the set, which appears in its place complete or not at all. `chunks` give the listing's images in its order,
    /// some at a time: (n, H, W, 3).
    pub fn finish(self, listing: &Listing, chunks: &mut dyn Iterator<Item = Result<Vec<u8>>>) -> Result<()> {
        self.fill(|set| write_files(set, listing, chunks))
    }

    /// Puts a folder in its place that `content` writes, complete or not at all.
    pub fn fill(self, content: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let set = self.folder.join("set");
        remove(&set)?;
        fs::create_dir(&set).at(&set)?;
        if let Err(error) = content(&set).and_then(|()| sync_tree(&set)) {
            let _ = remove(&set); // room for what may have filled the disk; the first error is the one to tell
            return Err(error);
        }
        self.put_in_place(&set)?;
        fs::remove_dir_all(&self.folder).at(&self.folder)
    }

    fn put_in_place(&self, set: &Path) -> Result<()> {
        let (target, old) = (&self.target, self.old());
        let replaces = target.exists();
        if replaces {
            remove(&old)?;
            fs::rename(target, &old).at(target)?;
        }
        let Err(error) = fs::rename(set, target) else { return sync_folder(folder_of(target)) };
        if replaces && fs::rename(&old, target).is_err() {
            fail!("{}: {error}; what was there is kept in {}", target.display(), old.display());
        }
        Err(error).at(target)
    }

    /// Where the set that is replaced waits.
    fn old(&self) -> PathBuf {
        self.folder.join("old")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.folder.join(PLAN).exists() && !self.old().exists() {
            let _ = fs::remove_dir_all(&self.folder); // nothing in it is worth keeping
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).at(folder) } else { Ok(()) }
}

/// Refuses a place that holds something which writing would destroy.
pub fn check_place(folder: &Path, overwrite: bool) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    if !folder.is_dir() {
        usage!("{} is a file, expected a folder; choose another --name", folder.display());
    }
    if fs::read_dir(folder).at(folder)?.next().is_none() {
        return Ok(());
    }
    if !overwrite {
        usage!("{} exists and is not empty; replace it with --overwrite, or choose another --name", folder.display());
    }
    if !folder.join(TENSOR_FILE).is_file() {
        usage!(
            "{} holds something else than a distilled set and is left alone; choose another --name",
            folder.display()
        );
    }
    Ok(())
}
