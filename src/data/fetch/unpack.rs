//! Unpacking archives that may be hostile: files and folders below one folder, up to a size, nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use zip::ZipArchive;

use crate::error::{AtPath, Error, Result};
use crate::fs::{sync_folder, sync_tree};
use crate::{fail, interrupt};

/// What an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all files together.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

impl Default for Limits {
    /// Several times the largest official archive, which has 237 MB in 120,000 files.
    fn default() -> Self {
        Limits { bytes: 1 << 30, entries: 500_000 }
    }
}

/// Unpacks `archive`, a zip file or a `.tar.gz`, whose entries all lie in `folder`, to `root/folder`, which must not be
/// there yet. It appears whole or not at all. One process at a time may do this in `root`.
pub fn unpack(archive: &Path, root: &Path, folder: &str, limits: &Limits) -> Result<()> {
    let scratch = root.join(format!(".{folder}.unpacking"));
    remove(&scratch)?;
    fs::create_dir(&scratch).at(&scratch)?;
    let sink = Sink { archive, scratch: &scratch, folder, limits, left: *limits };
    let done = sink.fill().and_then(|()| {
        let (made, target) = (scratch.join(folder), root.join(folder));
        if !made.is_dir() {
            fail!("{} holds no folder {folder}: it is another archive", archive.display());
        }
        sync_tree(&made)?;
        fs::rename(&made, &target).at(&target)?;
        sync_folder(root)
    });
    done.and(remove(&scratch)) // the first error of the two, and the folder is gone after either
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(folder),
        _ => Ok(()),
    }
}

/// Where entries are written to, and what may still come.
struct Sink<'a> {
    archive: &'a Path,
    scratch: &'a Path,
    folder: &'a str,
    limits: &'a Limits,
    left: Limits,
}

impl Sink<'_> {
    fn fill(mut self) -> Result<()> {
        let file = File::open(self.archive).at(self.archive)?;
        let mut reader = BufReader::new(file);
        let mut magic = [0; 2];
        reader.read_exact(&mut magic).map_err(|e| self.damaged(e))?;
        reader.seek_relative(-2).at(self.archive)?;
        if magic == *b"PK" { self.fill_from_zip(reader) } else { self.fill_from_tar_gz(reader) }
    }

    fn fill_from_tar_gz(&mut self, reader: BufReader<File>) -> Result<()> {
        // Names longer than a header are read whole: the cap holds for what they unpack to as well.
        let headers = 2048 * self.limits.entries;
        let mut tar = tar::Archive::new(GzDecoder::new(reader).take(self.limits.bytes.saturating_add(headers)));
        for entry in tar.entries().map_err(|e| self.damaged(e))? {
            let mut entry = entry.map_err(|e| self.damaged(e))?;
            let name = entry.path().map_err(|e| self.damaged(e))?.into_owned();
            match entry.header().entry_type() {
                tar::EntryType::Directory => self.folder(&name)?,
                tar::EntryType::Regular => self.file(&name, &mut entry)?,
                _ => return Err(self.refused(&name, "it is neither a file nor a folder")),
            }
        }
        Ok(())
    }

    fn fill_from_zip(&mut self, reader: BufReader<File>) -> Result<()> {
        const KIND: u32 = 0o170_000;
        const FOLDER: u32 = 0o040_000;
        const FILE: u32 = 0o100_000;
        let mut zip = ZipArchive::new(reader).map_err(|e| self.damaged(e))?;
        for i in 0..zip.len() {
            let mut entry = zip.by_index(i).map_err(|e| self.damaged(e))?;
            let name = PathBuf::from(&*entry.name().map_err(|e| self.damaged(e))?);
            match (entry.unix_mode().unwrap_or_default() & KIND, entry.is_dir()) {
                (0 | FOLDER, true) => self.folder(&name)?,
                (0 | FILE, false) => self.file(&name, &mut entry)?,
                _ => return Err(self.refused(&name, "it is neither a file nor a folder")),
            }
        }
        Ok(())
    }

    fn folder(&mut self, name: &Path) -> Result<()> {
        let path = self.place(name)?;
        fs::create_dir_all(&path).at(&path)
    }

    fn file(&mut self, name: &Path, content: &mut dyn Read) -> Result<()> {
        let path = self.place(name)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).at(folder)?;
        }
        let mut file = File::create_new(&path).at(&path)?;
        let mut block = vec![0; 64 << 10];
        loop {
            interrupt::check()?;
            let n = match content.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) => return Err(self.damaged(error)),
            };
            self.left.bytes = match self.left.bytes.checked_sub(n as u64) {
                Some(left) => left,
                None => return Err(self.refused(name, &format!("more than {} bytes unpack", self.limits.bytes))),
            };
            io::Write::write_all(&mut file, &block[..n]).at(&path)?;
        }
    }

    /// Where an entry is to be written: below the scratch folder, whatever its name says.
    fn place(&mut self, name: &Path) -> Result<PathBuf> {
        self.left.entries = match self.left.entries.checked_sub(1) {
            Some(left) => left,
            None => return Err(self.refused(name, &format!("there are more than {} entries", self.limits.entries))),
        };
        let mut inside = PathBuf::new();
        for component in name.components() {
            match component {
                Component::Normal(part) => inside.push(part),
                Component::CurDir => {}
                _ => return Err(self.refused(name, "its name leads out of the archive")),
            }
        }
        if !inside.starts_with(self.folder) {
            return Err(self.refused(name, &format!("expected only what lies in {}", self.folder)));
        }
        Ok(self.scratch.join(inside))
    }

    fn refused(&self, name: &Path, why: &str) -> Error {
        let archive = self.archive.display();
        Error::Failed(format!("{archive}: {}: {why}; it is not the official archive, get it again", name.display()))
    }

    fn damaged(&self, error: impl std::fmt::Display) -> Error {
        Error::Failed(format!("{}: it is cut short or damaged ({error}); get it again", self.archive.display()))
    }
}
