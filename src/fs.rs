//! Writing files so that a crash or a full disk leaves either the old content or the new, never a part; and locks.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::error::{AtPath, Error, Result};
use crate::fail;
use crate::progress::say;

/// How the names of files and folders begin that are not whole yet.
const UNFINISHED: &str = ".tmp-";

/// Replaces the file at `path` with `bytes`: a temporary file beside it is written, synced and renamed into place, then
/// the folder is synced. The folder must exist.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomic`], for content that is written bit by bit.
pub fn write_atomic_with(path: &Path, content: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // less the umask, like any new file
    }
    let mut temporary = builder.tempfile_in(folder).at(path)?;
    content(temporary.as_file_mut()).at(path)?;
    temporary.as_file().sync_all().at(path)?;
    temporary.persist(path).map_err(|failed| failed.error).at(path)?;
    sync_folder(folder)
}

/// Makes `folder` and what is missing above it, so that their names last.
pub fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder_of(folder);
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made.at(folder)?,
    }
    sync_folder(parent)
}

/// Removes what a process that was killed left half written directly inside `folder`. Only for a folder that no other
/// process writes into.
pub fn clear_unfinished(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.at(folder)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.at(&path)?;
        }
    }
    Ok(())
}

/// Takes the lock file at `path` as [`try_lock`] does. An error if another process holds it: `busy` says what that one
/// does.
pub fn lock(path: &Path, busy: &str) -> Result<File> {
    let mut taken = try_lock(path, busy)?;
    if taken.is_none() {
        sleep(Duration::from_millis(50)); // `is_locked` holds it for a moment
        taken = try_lock(path, busy)?;
    }
    if let Some(file) = taken {
        return Ok(file);
    }
    let holder = fs::read_to_string(path).unwrap_or_default();
    fail!("{}: another process{holder} {busy}; wait for it to end, or stop it", folder_of(path).display())
}

/// Takes the lock file at `path`, which is made where it is missing, for as long as the returned file lives. The system
/// frees it when the process ends, in whatever way. Nothing if another process, which is `busy`, holds it.
pub fn try_lock(path: &Path, busy: &str) -> Result<Option<File>> {
    loop {
        // Not truncated: until the lock is taken, the file names the process that holds it.
        let mut file = File::options().create(true).append(true).open(path).at(path)?;
        match file.try_lock() {
            Ok(()) if !is_at(&file, path) => continue, // its holder removed the file in the meantime; take the new one
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                let place = folder_of(path).display();
                say(&format!(
                    "warning: {place}: this file system has no locks; see to it that no other process {busy}"
                ));
            }
            Err(TryLockError::Error(e)) => return Err(Error::Io { path: path.into(), source: e }),
        }
        // Only a message needs it, so a full disk is no reason to stop.
        let _ = file.set_len(0).and_then(|()| file.write_all(this_process().as_bytes()));
        return Ok(Some(file));
    }
}

/// " (1234 on host)", or without the host where the system does not tell.
fn this_process() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { String::new() } else { format!(" on {}", host.trim()) };
    format!(" ({}{host})", std::process::id())
}

/// Whether a process holds the lock file at `path`. To find out takes the lock for a moment.
pub fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether the open `file` is the one that `path` names. Systems without inodes don't remove open files.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |m: &fs::Metadata| (m.dev(), m.ino());
        matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if inode(&a) == inode(&b))
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// The folder that `path` lies in; "." for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes renames and new names inside `folder` last. Systems that cannot open a folder do so on their own.
pub fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) { File::open(folder).and_then(|folder| folder.sync_all()).at(folder) } else { Ok(()) }
}

/// Makes a whole folder last: every file in it, then the folders. The files are best all written before: the first sync
/// then carries most of them.
pub fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).at(&path)?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_is_held_once_and_freed_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let held = lock(&path, "is counting").unwrap();
        let error = lock(&path, "is counting").unwrap_err().to_string();
        let holder = format!("another process ({}", std::process::id());
        assert!(error.contains(&holder) && error.contains("is counting"), "{error}");
        drop(held);
        let held = lock(&path, "is counting").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&held, &path));
        lock(&path, "is counting").unwrap();
    }

    #[test]
    fn a_failed_write_names_the_path_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"kept").unwrap();
        let error = write_atomic(&path, b"new").unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
