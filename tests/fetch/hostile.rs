//! Archives made to do harm are refused, and nothing of them is left, inside the target or outside.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use distill::data::fetch::{Limits, unpack};
use tar::EntryType;
use tempfile::tempdir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{FOLDER, gz, names, small_archive};

/// (kind, name, link target, content)
type Entry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// A `.tar.gz` of entries whose names are written as they are.
fn tar_gz(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    gz(&tar.into_inner().unwrap())
}

fn zip(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Unpacks `archive` in a folder of a folder of its own; the error, having checked that nothing is left anywhere.
fn refusal(archive: &[u8], limits: &Limits) -> String {
    let outer = tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let path = root.join("archive");
    fs::write(&path, archive).unwrap();
    let error = unpack(&path, &root, FOLDER, limits).expect_err("a hostile archive must be refused").to_string();
    assert_eq!(names(&root), ["archive"], "{error}");
    assert_eq!(names(outer.path()), ["root"], "{error}");
    error
}

#[test]
fn tar_entries_that_are_not_plain_files_inside() {
    use EntryType::*;
    let outside = tempdir().unwrap();
    let absolute = outside.path().join("x").display().to_string();
    let cases: &[(&[Entry], &str)] = &[
        (&[(Regular, "small/../../x", "", b"x")], "leads out"),
        (&[(Regular, "../x", "", b"x")], "leads out"),
        (&[(Regular, &absolute, "", b"x")], "leads out"),
        (&[(Directory, "small/../../x", "", b"")], "leads out"),
        (&[(Regular, "other/x", "", b"x")], "expected only what lies in small"),
        (&[(Regular, "smaller", "", b"x")], "expected only what lies in small"),
        (&[(Regular, "small", "", b"x")], "holds no folder small"),
        (&[], "holds no folder small"),
        (&[(Symlink, "small/x", "/etc", b"")], "neither a file nor a folder"),
        (&[(Symlink, "small/x", "..", b""), (Regular, "small/x/y", "", b"x")], "neither a file nor a folder"),
        (&[(Link, "small/x", "/etc/passwd", b"")], "neither a file nor a folder"),
        (&[(Char, "small/x", "", b"")], "neither a file nor a folder"),
        (&[(Fifo, "small/x", "", b"")], "neither a file nor a folder"),
        (&[(Regular, "small/x", "", b"x"), (Regular, "small/x", "", b"y")], "small/x"),
        (&[(Regular, "small/x", "", b"x"), (Regular, "small/x/y", "", b"y")], "small/x"),
    ];
    for (entries, expected) in cases {
        let error = refusal(&tar_gz(entries), &Limits::default());
        assert!(error.contains(expected), "{entries:?}: {error}");
    }
    assert!(names(outside.path()).is_empty());
}

#[test]
fn zip_entries_that_are_not_plain_files_inside() {
    for (entries, expected) in [
        (vec![("small/../../x", 0o100_644, b"x".as_slice())], "leads out"),
        (vec![("../x", 0o100_644, b"x")], "leads out"),
        (vec![("/tmp/x", 0o100_644, b"x")], "leads out"),
        (vec![("other/x", 0o100_644, b"x")], "expected only what lies in small"),
        (vec![("small/x", 0o100_644, b"x"), ("small/x/y", 0o100_644, b"y")], "small/x"),
    ] {
        let error = refusal(&zip(&entries), &Limits::default());
        assert!(error.contains(expected), "{entries:?}: {error}");
    }
    let mut link = ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("small/x", "/etc", SimpleFileOptions::default()).unwrap();
    let error = refusal(&link.finish().unwrap().into_inner(), &Limits::default());
    assert!(error.contains("neither a file nor a folder"), "{error}");
}

#[test]
fn bombs_stop_at_the_limits() {
    let zeros = vec![0; 3 << 20];
    let many: Vec<String> = (0..20).map(|i| format!("small/{i}")).collect();
    let tar_many: Vec<_> = many.iter().map(|name| (EntryType::Regular, name.as_str(), "", b"".as_slice())).collect();
    let zip_many: Vec<_> = many.iter().map(|name| (name.as_str(), 0o100_644, b"".as_slice())).collect();
    let limits = Limits { bytes: 1 << 20, entries: 19 };
    for (archive, expected) in [
        (tar_gz(&[(EntryType::Regular, "small/x", "", &zeros)]), "more than 1048576 bytes"),
        (zip(&[("small/x", 0o100_644, &zeros)]), "more than 1048576 bytes"),
        (tar_gz(&tar_many), "more than 19 entries"),
        (zip(&zip_many), "more than 19 entries"),
        // A name of 3 MB, which the tar reader holds in memory.
        (tar_gz(&[(EntryType::GNULongName, "././@LongLink", "", &zeros)]), "damaged"),
    ] {
        assert!(archive.len() < 40_000, "a bomb is small: {}", archive.len());
        let error = refusal(&archive, &limits);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn damaged_archives() {
    let (whole, _) = small_archive();
    let zipped = zip(&[("small/x", 0o100_644, &whole)]);
    for archive in [&whole[..whole.len() / 2], &whole[..1], b"", b"PK", b"not an archive", &zipped[..zipped.len() / 2]]
    {
        assert!(refusal(archive, &Limits::default()).contains("archive"));
    }
    let mut changed = zipped.clone();
    changed[1000] ^= 1;
    assert!(refusal(&changed, &Limits::default()).contains("damaged"));
}

#[test]
fn what_a_killed_unpacking_left_is_cleared_away() {
    let root = tempdir().unwrap();
    let scratch = root.path().join(".small.unpacking/small");
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("one.bin"), b"half").unwrap();
    let path = root.path().join("archive");
    let (archive, content) = small_archive();
    fs::write(&path, &archive).unwrap();
    unpack(&path, root.path(), FOLDER, &Limits::default()).unwrap();
    assert_eq!(names(root.path()), ["archive", "small"]);
    assert_eq!(fs::read(root.path().join("small/one.bin")).unwrap(), content);
}

#[test]
fn a_zip_with_folders_unpacks() {
    let root = tempdir().unwrap();
    let path = root.path().join("archive");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    zip.add_directory("small/empty", options).unwrap();
    zip.start_file("small/train/a b.txt", options).unwrap();
    zip.write_all(b"content").unwrap();
    fs::write(&path, zip.finish().unwrap().into_inner()).unwrap();
    unpack(&path, root.path(), FOLDER, &Limits::default()).unwrap();
    assert_eq!(names(&root.path().join(FOLDER)), ["empty", "train"]);
    assert_eq!(fs::read(Path::new(root.path()).join("small/train/a b.txt")).unwrap(), b"content");
}
