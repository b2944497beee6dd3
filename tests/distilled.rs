//! Distilled sets: what is written, that it reads back, and that damage is refused.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distill::data::{Class, Dataset, ImageSet, Split, load};
use distill::distilled::{DistilledSet, Provenance, grid};
use distill::error::Error;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

fn provenance() -> Provenance {
    let Value::Object(details) = json!({"sampler": "ddim", "steps": 50, "guidance": 1.5}) else { unreachable!() };
    Provenance { dataset: Dataset::Shapes, method: "drawn by a test".into(), seed: 7, details }
}

/// Two images of each built-in class, given in an order that is not the classes' own.
fn set() -> DistilledSet {
    let shapes = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    let order: Vec<usize> = (0..20).rev().collect();
    let indices = order.iter().map(|&i| i as u32 + 100).collect();
    DistilledSet::new(shapes.subset(&order), indices, provenance()).unwrap()
}

/// Every file below `folder` with its bytes, by relative path.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                found.push((entry.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&entry).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn assert_message(error: &Error, exit_code: u8, words: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.exit_code(), exit_code, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn puts_images_in_order_of_class() {
    let set = set();
    assert!(set.images.labels.is_sorted());
    assert_eq!((set.listing().images_per_class(), set.listing().ipc()), (vec![2; 10], 2));
    // Class 0 was given as images 10 and 0 of the source, in that order.
    assert_eq!(set.indices[..2], [110, 100]);
    let source = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    assert_eq!((set.images.image(0), set.images.image(1)), (source.image(10), source.image(0)));
}

#[test]
fn written_files_hold_the_same_pixels_labels_and_classes() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("runs/a/distilled/b");
    let set = set();
    set.write(&folder, false).unwrap();
    assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");

    let bytes = fs::read(folder.join("distilled.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (images, labels) = (tensors.tensor("images").unwrap(), tensors.tensor("labels").unwrap());
    assert_eq!((images.dtype(), images.shape()), (Dtype::U8, &[20, 3, 32, 32][..]));
    assert_eq!((labels.dtype(), labels.shape()), (Dtype::I64, &[20][..]));
    let manifest = fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
    let lines: Vec<Value> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 20);
    assert_eq!(
        lines[3],
        json!({"file": "train/001_square/0001.png", "label": 1, "class_name": "square", "class_id": "1", "seed": 7,
               "index": 101})
    );
    for (i, line) in lines.iter().enumerate() {
        let label = set.images.labels[i];
        assert_eq!(line["label"], label);
        assert_eq!(labels.data()[i * 8..][..8], i64::from(label).to_le_bytes());
        let png = image::open(folder.join(line["file"].as_str().unwrap())).unwrap().into_rgb8();
        assert_eq!(png.as_raw(), set.images.image(i));
        for (x, y, pixel) in png.enumerate_pixels() {
            for c in 0..3 {
                assert_eq!(pixel[c], images.data()[((i * 3 + c) * 32 + y as usize) * 32 + x as usize]);
            }
        }
    }
    let card = fs::read_to_string(folder.join("README.md")).unwrap();
    for part in ["---\nlicense: mit", "path: \"train/**\"", "seed 7", "| 1 | square | 1 | 2 |"] {
        assert!(card.contains(part), "{part}");
    }
    assert!(!folder.join("train/metadata.jsonl").exists());
    assert!(folder.join("grid.png").is_file());
}

#[test]
fn reads_back_from_the_folder_and_from_the_file() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    let set = set();
    set.write(&folder, false).unwrap();
    for path in [folder.clone(), folder.join("distilled.safetensors")] {
        let read = DistilledSet::read(&path).unwrap();
        assert_eq!(read.images.sha256(), set.images.sha256());
        assert_eq!((&read.indices, &read.provenance), (&set.indices, &set.provenance));
    }
}

#[test]
fn the_tensor_file_is_the_one_that_the_safetensors_library_writes() {
    let root = tempfile::tempdir().unwrap();
    set().write(&root.path().join("set"), false).unwrap();
    let bytes = fs::read(root.path().join("set/distilled.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let both = ["images", "labels"].map(|name| (name, tensors.tensor(name).unwrap()));
    assert!(safetensors::serialize(both, metadata.metadata().clone()).unwrap() == bytes);
}

#[test]
fn writing_twice_gives_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.path().join(name));
    set().write(&a, false).unwrap();
    set().write(&b, false).unwrap();
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_subset_of_classes_keeps_the_labels_and_the_whole_class_list() {
    let root = tempfile::tempdir().unwrap();
    let shapes = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    let set = DistilledSet::new(shapes.subset(&[7, 3, 17]), vec![0, 0, 1], provenance()).unwrap();
    set.write(&root.path().join("set"), false).unwrap();
    let read = DistilledSet::read(&root.path().join("set")).unwrap();
    assert_eq!(read.images.labels, [3, 7, 7]);
    assert_eq!((read.images.classes.len(), read.listing().images_per_class()[7], read.listing().ipc()), (10, 2, 2));
    let mut folders: Vec<_> =
        fs::read_dir(root.path().join("set/train")).unwrap().map(|e| e.unwrap().file_name()).collect();
    folders.sort();
    assert_eq!(folders, ["003_cross", "007_crescent"]);
    assert_eq!(grid(&read.images).dimensions(), (2 * 65 + 2, 2 * 65));
}

#[test]
fn class_names_become_safe_folder_names() {
    // The last three would be taken for splits by Hugging Face's image folder, and loaded twice.
    let cases = [
        ("apple", "000_apple"),
        ("../Pop bottle/é", "001____pop_bottle__"),
        ("trainer", "002_trainer"),
        ("train", "003_trainclass"),
        ("bullet train", "004_bullet_trainclass"),
        ("Test2, val.", "005_testclass2__valclass_"),
    ];
    let classes = cases.map(|(name, _)| Class { name: name.into(), id: name.into() }).to_vec();
    let images = ImageSet { pixels: vec![9; 72], labels: vec![0, 1, 2, 3, 4, 5], size: 2, classes: Arc::new(classes) };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    DistilledSet::new(images, vec![0; 6], provenance()).unwrap().write(&folder, false).unwrap();
    for (_, name) in cases {
        assert!(folder.join("train").join(name).join("0000.png").is_file(), "{name}");
    }
    assert_eq!(DistilledSet::read(&folder).unwrap().images.classes[3].name, "train");
}

#[test]
fn an_existing_folder_is_refused_and_kept() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    set().write(&folder, false).unwrap();
    let before = contents(&folder);
    assert_message(&set().write(&folder, false).unwrap_err(), 2, &["set exists", "--name", "--overwrite"]);
    assert_eq!(contents(&folder), before);

    let shapes = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    let other = DistilledSet::new(shapes.subset(&[0]), vec![5], provenance()).unwrap();
    other.write(&folder, true).unwrap();
    assert_eq!(DistilledSet::read(&folder).unwrap().images.len(), 1);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "the old set is gone and nothing is left beside it");
}

#[test]
fn what_is_no_distilled_set_is_never_overwritten() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("thesis.txt"), "years of work").unwrap();
    assert_message(&set().write(root.path(), true).unwrap_err(), 2, &["something else", "--name"]);
    assert_message(&set().write(&root.path().join("thesis.txt"), true).unwrap_err(), 2, &["is a file"]);
    assert_eq!(contents(root.path()), [("thesis.txt".into(), b"years of work".to_vec())]);
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set().write(&empty, false).unwrap();
}

#[cfg(unix)]
#[test]
fn a_folder_without_write_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let closed = root.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write anywhere");
        return;
    }
    assert_message(&set().write(&closed.join("set"), false).unwrap_err(), 1, &["closed", "permissions"]);
}

#[test]
fn other_classes_are_noticed() {
    let set = set();
    let mut classes = set.images.classes.to_vec();
    set.listing().check_classes(&classes).unwrap();
    classes.swap(2, 3);
    assert_message(&set.listing().check_classes(&classes).unwrap_err(), 1, &["label 2", "triangle", "cross"]);
    classes.pop();
    assert_message(&set.listing().check_classes(&classes).unwrap_err(), 1, &["10 classes", "9"]);
}

#[test]
fn a_changed_png_tree_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    set().write(&folder, false).unwrap();
    fs::remove_file(folder.join("train/004_ring/0001.png")).unwrap();
    assert_message(&DistilledSet::read(&folder).unwrap_err(), 1, &["004_ring has 1 PNG", "2 images"]);
    DistilledSet::read(&folder.join("distilled.safetensors")).unwrap();
}

#[test]
fn damaged_tensor_files_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    set().write(&folder, false).unwrap();
    let whole = fs::read(folder.join("distilled.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&whole).unwrap();
    let header = metadata.metadata().clone().unwrap();
    let tensors = SafeTensors::deserialize(&whole).unwrap();
    let (images, labels) = (tensors.tensor("images").unwrap(), tensors.tensor("labels").unwrap());
    let path = root.path().join("bad.safetensors");
    let refused = |bytes: &[u8], words: &[&str]| {
        fs::write(&path, bytes).unwrap();
        assert_message(&DistilledSet::read(&path).unwrap_err(), 1, words);
    };
    let build = |images: TensorView, labels: TensorView, header: HashMap<String, String>| {
        safetensors::serialize([("images", images), ("labels", labels)], Some(header)).unwrap()
    };
    let edited = |from: &str, to: &str| {
        assert!(header["distill"].contains(from));
        HashMap::from([("distill".to_string(), header["distill"].replace(from, to))])
    };

    refused(&whole[..whole.len() - 1], &["bad.safetensors", "not a whole"]);
    refused(b"", &["not a whole"]);
    refused(&build(images.clone(), labels.clone(), HashMap::new()), &["no \"distill\""]);
    refused(&build(images.clone(), labels.clone(), edited("\"format\":1", "\"format\":2")), &["format 2", "reads 1"]);
    refused(&build(images.clone(), labels.clone(), edited("\"classes\"", "\"klasses\"")), &["classes"]);
    refused(&build(images.clone(), labels.clone(), edited("[2,2,", "[3,1,")), &["counts per class"]);
    for label in [10i64, -1] {
        let mut bytes = labels.data().to_vec();
        bytes[8..16].copy_from_slice(&label.to_le_bytes());
        let labels = TensorView::new(Dtype::I64, vec![20], &bytes).unwrap();
        refused(&build(images.clone(), labels, header.clone()), &["image 1", &format!("label {label}"), "10 classes"]);
    }
    let floats = vec![0; images.data().len() * 4];
    let wrong = TensorView::new(Dtype::F32, images.shape().to_vec(), &floats).unwrap();
    refused(&build(wrong, labels.clone(), header.clone()), &["\"images\" is F32", "U8"]);
    let flat = TensorView::new(Dtype::U8, vec![20, 3072], images.data()).unwrap();
    refused(&build(flat, labels.clone(), header.clone()), &["[20, 3072]", "(N, 3, H, W)"]);
    let fewer = TensorView::new(Dtype::I64, vec![19], &labels.data()[..19 * 8]).unwrap();
    refused(&build(images.clone(), fewer, header.clone()), &["20 images", "[19]"]);
    assert_message(&DistilledSet::read(root.path()).unwrap_err(), 1, &["distilled.safetensors", "distill sample"]);
}

#[test]
fn a_grid_of_many_classes_fills_blocks_side_by_side() {
    let shapes = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    let classes = (0..100).map(|i| Class { name: i.to_string(), id: i.to_string() }).collect();
    let labels = (0..1000).map(|i| i % 100).collect();
    let many = ImageSet { labels, classes: Arc::new(classes), ..shapes };
    let picture = grid(&many);
    assert!((900..=1000).contains(&picture.width()), "{}", picture.width());
    // The first image stands in the corner, and class 34 begins the second of three blocks.
    let pixel = |i: usize| image::Rgb(<[u8; 3]>::try_from(&many.image(i)[..3]).unwrap());
    assert_eq!(*picture.get_pixel(0, 0), pixel(0));
    assert!((0..picture.width()).any(|x| *picture.get_pixel(x, 0) == pixel(34)));
    // Forty classes of ten 64 x 64 images: two blocks of twenty rows.
    let classes = many.classes[..40].to_vec();
    let labels = (0..400).map(|i| i % 40).collect();
    let wide = grid(&ImageSet { pixels: vec![0; 400 * 64 * 64 * 3], labels, size: 64, classes: Arc::new(classes) });
    assert_eq!(wide.dimensions(), (2 * (10 * 65 + 2), 20 * 65));
}
