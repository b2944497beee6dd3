//! Export, then import: the same pixels, labels and classes. Twice the same set: the same bytes.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use distill::distilled::{DistilledSet, SoftLabels};
use distill::error::Error;
use distill::formats::{self, Format, import};
use zip::{DateTime, ZipArchive};

use super::{assert_says, classes, export, read, reading, set};

/// Every format that keeps all of a set.
const FORMATS: [Format; 5] = [Format::Pt, Format::Npz, Format::Parquet, Format::Webdataset, Format::Imagefolder];

#[test]
fn what_is_exported_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let set = set(4);
    for format in FORMATS {
        let path = root.path().join(format.file_name(&set.listing()));
        export(&set, format, &path, false).unwrap();
        for known in [None, Some(classes())] {
            if known.is_none() && format == Format::Parquet {
                continue; // it has no place for the ids of classes
            }
            let back = import(&path, &reading(Format::guess(&path).unwrap(), None), |size| {
                assert_eq!(size, 4);
                Ok(known)
            });
            let back = back.unwrap().set;
            assert_eq!(back.images.pixels, set.images.pixels, "{format:?}");
            assert_eq!(back.images.labels, set.images.labels, "{format:?}");
            assert_eq!(back.images.classes, set.images.classes, "{format:?}");
            assert_eq!(back.indices, set.indices, "{format:?}");
        }
    }
}

#[test]
fn the_challenges_floats_round_to_the_same_pixels() {
    let root = tempfile::tempdir().unwrap();
    let set = set(10);
    let path = root.path().join("birds.pt");
    export(&set, Format::Challenge, &path, false).unwrap();
    let back = read(&path, Format::Challenge, None).unwrap();
    assert_eq!(back.set.images.pixels, set.images.pixels);
    assert_eq!(back.set.images.labels, set.images.labels);
    assert!(back.warnings.iter().any(|w| w.contains("10 of each")), "{:?}", back.warnings);
    assert_says(&export(&super::set(9), Format::Challenge, &path, true).unwrap_err(), &["9 of class 0", "--ipc 10"]);
}

#[test]
fn the_same_set_gives_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    for format in [Format::Challenge].into_iter().chain(FORMATS) {
        let [a, b] = ["a", "b"].map(|name| root.path().join(format!("{name}-{format:?}")));
        for path in [&a, &b] {
            export(&set(10), format, path, true).unwrap();
        }
        assert_eq!(bytes(&a), bytes(&b), "{format:?}");
        if !matches!(format, Format::Pt | Format::Npz | Format::Challenge) {
            continue;
        }
        let mut zip = ZipArchive::new(File::open(&a).unwrap()).unwrap();
        for i in 0..zip.len() {
            assert_eq!(zip.by_index(i).unwrap().last_modified(), Some(DateTime::default()), "a clock would show");
        }
    }
}

#[test]
fn what_exists_is_kept_unless_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("new/folder/distilled.npz");
    export(&set(1), Format::Npz, &path, false).unwrap();
    let old = fs::read(&path).unwrap();
    let error = export(&set(2), Format::Npz, &path, false).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert_says(&error, &["distilled.npz", "--overwrite"]);
    assert_eq!(fs::read(&path).unwrap(), old);
    export(&set(2), Format::Npz, &path, true).unwrap();
    assert_ne!(fs::read(&path).unwrap(), old);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");

    let path = root.path().join("folder");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("README.md"), "mine").unwrap();
    assert_says(&export(&set(1), Format::Imagefolder, &path, true).unwrap_err(), &["something else"]);
    fs::remove_dir_all(&path).unwrap();
    for count in [1, 2] {
        export(&set(count), Format::Imagefolder, &path, true).unwrap();
        assert_eq!(fs::read_dir(path.join("train/000_blue_jay")).unwrap().count(), count);
    }
}

#[test]
fn an_export_that_was_killed_or_stopped_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("folder");
    let half = root.path().join(".partial-folder/set/train");
    for format in [Format::Imagefolder, Format::Webdataset, Format::Npz, Format::Parquet] {
        let set = set(2);
        let stopped =
            &mut (0..6).map(|i| if i < 3 { Ok(set.images.image(i).to_vec()) } else { Err(Error::Interrupted) });
        let error = formats::export(&set.listing(), stopped, format, &path, false).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{format:?}: {error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{format:?}");
    }
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("half.png"), "half").unwrap();
    export(&set(1), Format::Imagefolder, &path, false).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    assert!(!path.join("train/half.png").exists());
}

/// The bytes of a file, or of every file below a folder in order of their names.
pub fn bytes(path: &Path) -> Vec<u8> {
    if path.is_file() {
        return fs::read(path).unwrap();
    }
    let mut inside: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    inside.sort();
    inside.iter().flat_map(|path| [path.file_name().unwrap().as_encoded_bytes(), &bytes(path)].concat()).collect()
}

#[test]
fn soft_labels_come_back() {
    let root = tempfile::tempdir().unwrap();
    let values = (0..24).map(|i| [0.5, 0.25, 0.25][i * 7 % 3]).collect::<Vec<f32>>();
    let mut set = set(4);
    for views in [1, 2] {
        let rows = (0..12 * views).flat_map(|row| (0..3).map(move |c| (row + c) % 3));
        let values = rows.map(|place| values[place]).collect();
        set.soft_labels = Some(SoftLabels { values: Arc::new(values), views });
        for format in [Format::Pt, Format::Npz] {
            let path = root.path().join(format!("{views}-{format:?}"));
            export(&set, format, &path, false).unwrap();
            assert_eq!(read(&path, format, None).unwrap().set.soft_labels, set.soft_labels, "{format:?}");
        }
        let folder = root.path().join(format!("set-{views}"));
        set.write(&folder, false).unwrap();
        assert_eq!(DistilledSet::read(&folder).unwrap().soft_labels, set.soft_labels);
    }
}
