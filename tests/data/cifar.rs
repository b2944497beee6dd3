//! CIFAR-10 and CIFAR-100 from records made here, as a folder and as an archive, sound and damaged.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use distill::data::{Dataset, Split, info, load, verify};
use distill::rng::Rng;
use rand::RngCore;
use tempfile::TempDir;

use crate::assert_fails;

const PLANES: usize = 3072;

/// Random planes after each of the `heads`, the label bytes of a record.
fn records(heads: &[&[u8]], seed: u64) -> Vec<u8> {
    let mut rng = Rng::stream(seed, "test-records", 0, 0);
    let mut bytes = Vec::new();
    for head in heads {
        let mut planes = vec![0; PLANES];
        rng.fill_bytes(&mut planes);
        bytes.extend(*head);
        bytes.extend(planes);
    }
    bytes
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// Three classes, four train images and one test image.
fn cifar100() -> (&'static str, Files) {
    let files = vec![
        ("train.bin", records(&[&[3, 2], &[0, 0], &[19, 1], &[7, 2]], 1)),
        ("test.bin", records(&[&[1, 1]], 2)),
        ("fine_label_names.txt", b"apple\nmaple_tree\nworm\n".to_vec()),
    ];
    ("cifar-100-binary", files)
}

/// Three classes, train files of two, one, one, one and three images, one test image; as the official archive has them,
/// not in order.
fn cifar10() -> (&'static str, Files) {
    let files = vec![
        ("data_batch_1.bin", records(&[&[2], &[0]], 1)),
        ("batches.meta.txt", b"airplane\nautomobile\nbird\n\n".to_vec()),
        ("data_batch_3.bin", records(&[&[0]], 3)),
        ("data_batch_5.bin", records(&[&[2], &[1], &[0]], 5)),
        ("data_batch_4.bin", records(&[&[1]], 4)),
        ("test_batch.bin", records(&[&[1]], 6)),
        ("data_batch_2.bin", records(&[&[1]], 2)),
    ];
    ("cifar-10-batches-bin", files)
}

/// ROOT/NAME/ with the files.
fn folder((name, files): (&str, Files)) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(name);
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    (root, folder)
}

/// ROOT/FILE, a .tar.gz with the folder NAME.
fn archive(root: &Path, file: &str, (name, files): (&str, Files)) -> PathBuf {
    let path = root.join(file);
    let gz = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (file, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{name}/{file}"), bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
    path
}

/// Asserts that some of an image's values are those of the record's planes.
fn assert_is_record(image: &[u8], planes: &[u8]) {
    for (y, x, c) in [(0, 0, 0), (31, 30, 2), (5, 17, 1)] {
        assert_eq!(image[(y * 32 + x) * 3 + c], planes[c * 1024 + y * 32 + x]);
    }
}

fn assert_is_the_small_cifar100(root: &Path) {
    let set = load(&Dataset::Cifar100, Split::Train, 32, Some(root)).unwrap();
    assert_eq!((set.size, &set.labels[..]), (32, &[2u16, 0, 1, 2][..]));
    let classes: Vec<_> = set.classes.iter().map(|c| (c.name.as_str(), c.id.as_str())).collect();
    assert_eq!(classes, [("apple", "0"), ("maple_tree", "1"), ("worm", "2")]);
    let raw = &cifar100().1[0].1;
    for i in 0..4 {
        assert_is_record(set.image(i), &raw[i * (PLANES + 2) + 2..]);
    }
    assert_eq!(load(&Dataset::Cifar100, Split::Test, 32, Some(root)).unwrap().labels, [1]);
}

fn assert_is_the_small_cifar10(root: &Path) {
    let set = load(&Dataset::Cifar10, Split::Train, 32, Some(root)).unwrap();
    assert_eq!(set.labels, [2, 0, 1, 0, 1, 2, 1, 0]);
    let classes: Vec<_> = set.classes.iter().map(|c| (c.name.as_str(), c.id.as_str())).collect();
    assert_eq!(classes, [("airplane", "0"), ("automobile", "1"), ("bird", "2")]);
    for (i, seed, place) in [(0, 1, 0), (1, 1, 1), (2, 2, 0), (3, 3, 0), (4, 4, 0), (7, 5, 2)] {
        let raw = records(&[&[9], &[9], &[9]], seed);
        assert_is_record(set.image(i), &raw[place * (PLANES + 1) + 1..]);
    }
    assert_eq!(load(&Dataset::Cifar10, Split::Test, 32, Some(root)).unwrap().labels, [1]);
}

#[test]
fn reads_the_folder_from_above_and_from_within() {
    let (root, inner) = folder(cifar100());
    assert_is_the_small_cifar100(root.path());
    assert_is_the_small_cifar100(&inner);
    let (root, inner) = folder(cifar10());
    assert_is_the_small_cifar10(root.path());
    assert_is_the_small_cifar10(&inner);
}

#[test]
fn reads_the_archive_without_unpacking_it() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "cifar-100-binary.tar.gz", cifar100());
    archive(root.path(), "cifar-10-binary.tar.gz", cifar10());
    assert_is_the_small_cifar100(root.path());
    assert_is_the_small_cifar10(root.path());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn info_and_verify_say_what_is_not_official() {
    let (root, inner) = folder(cifar100());
    let found = info(&Dataset::Cifar100, 32, Some(root.path())).unwrap();
    assert_eq!(found.source, inner.display().to_string());
    assert_eq!(found.splits.iter().map(|s| s.images).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(
        found.notes,
        [
            "3 of the official 100 classes",
            "train has 4 of the official 50000 images",
            "test has 1 of the official 10000 images"
        ]
    );
    fs::write(inner.join("test.bin"), records(&[&[3, 2]], 1).repeat(2)).unwrap(); // train's first image, twice
    let found = verify(&Dataset::Cifar100, 32, Some(root.path())).unwrap();
    assert_eq!(found.reports[0].images_per_class, [1, 1, 2]);
    assert_eq!((found.reports[1].duplicates, found.reports[1].also_in_train), (1, 2));

    let (root, _) = folder(cifar10());
    let found = info(&Dataset::Cifar10, 32, Some(root.path())).unwrap();
    assert_eq!(found.splits.iter().map(|s| s.images).collect::<Vec<_>>(), [8, 1]);
    assert_eq!(found.notes[1], "train has 8 of the official 50000 images");
}

#[test]
fn a_missing_set_names_the_places_the_file_and_the_way() {
    let root = tempfile::tempdir().unwrap();
    for (dataset, file, bytes, md5) in [
        (Dataset::Cifar10, "cifar-10-binary.tar.gz", "170052171", "c32a1d4ab5d03f1284b67883e8d87530"),
        (Dataset::Cifar100, "cifar-100-binary.tar.gz", "168513733", "03b5dce01913d631647c71ecec9e9cb8"),
    ] {
        let place = root.path().join(file);
        let words = [place.to_str().unwrap(), bytes, md5, "cs.toronto.edu", "--data-dir", "DISTILL_DATA"];
        assert_fails(&dataset, Split::Train, root.path(), &words);
        assert_fails(&dataset, Split::Train, &root.path().join("nowhere"), &["nowhere"]);
    }
}

#[test]
fn another_image_size_is_refused() {
    let (root, _) = folder(cifar100());
    let error = load(&Dataset::Cifar100, Split::Train, 64, Some(root.path())).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("32 pixels"), "{error}");
}

#[test]
fn damaged_files_are_refused() {
    let (root, inner) = folder(cifar100());
    let train = inner.join("train.bin");
    let fails = |words: &[&str]| assert_fails(&Dataset::Cifar100, Split::Train, root.path(), words);

    fs::write(&train, &cifar100().1[0].1[..6147]).unwrap();
    fails(&["train.bin", "6147 bytes", "3074"]);
    fs::write(&train, []).unwrap();
    fails(&["train.bin", "0 bytes"]);
    fs::write(&train, records(&[&[0, 0], &[0, 3]], 0)).unwrap();
    fails(&["train.bin", "record 1", "labels [0, 3]", "3 classes"]);
    fs::write(&train, records(&[&[20, 0]], 0)).unwrap();
    fails(&["record 0", "labels [20, 0]", "20 coarse"]);
    fs::remove_file(&train).unwrap();
    fails(&["train.bin is missing"]);
    fs::write(inner.join("fine_label_names.txt"), "\n").unwrap();
    fails(&["0 class names", "100"]);
    fs::write(inner.join("fine_label_names.txt"), [0xFF, 0xFE]).unwrap();
    fails(&["fine_label_names.txt"]);

    let (root, inner) = folder(cifar10());
    let fails = |words: &[&str]| assert_fails(&Dataset::Cifar10, Split::Train, root.path(), words);
    fs::write(inner.join("data_batch_5.bin"), records(&[&[0], &[3]], 0)).unwrap();
    fails(&["data_batch_5.bin", "record 1", "labels [3]", "3 classes"]);
    fs::write(inner.join("data_batch_5.bin"), &records(&[&[0], &[0]], 0)[1..]).unwrap();
    fails(&["data_batch_5.bin", "6145 bytes", "3073"]);
    fs::remove_file(inner.join("data_batch_4.bin")).unwrap();
    fails(&["data_batch_4.bin is missing"]);
}

/// Such a name stands in an entry of its own, which could be of any size.
#[test]
fn a_long_name_in_an_archive_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let (name, mut files) = cifar100();
    let long: &'static str = "n".repeat(5000).leak();
    files.insert(0, (long, b"of no use".to_vec()));
    archive(root.path(), "cifar-100-binary.tar.gz", (name, files));
    assert_eq!(load(&Dataset::Cifar100, Split::Train, 32, Some(root.path())).unwrap().labels, [2, 0, 1, 2]);
}

#[test]
fn a_damaged_archive_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = "cifar-100-binary.tar.gz";
    let path = archive(root.path(), file, cifar100());
    let bytes = fs::read(&path).unwrap();
    let fails = |words: &[&str]| assert_fails(&Dataset::Cifar100, Split::Test, root.path(), words);
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fails(&[file, "cut short"]);
    fs::write(&path, b"not an archive").unwrap();
    fails(&[file]);
    let (name, mut files) = cifar100();
    files.remove(1);
    archive(root.path(), file, (name, files));
    fails(&[file, "holds no test.bin"]);
}
