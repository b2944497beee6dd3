//! TinyImageNet in small copies, sound and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use distill::data::{Dataset, Split, info, load};
use tempfile::TempDir;

use crate::assert_fails;

fn jpeg(path: &Path, size: u32, grey: bool, shade: u8) {
    let bytes = vec![shade; (size * size) as usize * if grey { 1 } else { 3 }];
    let colour = if grey { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::save_buffer(path.with_extension("jpg"), &bytes, size, size, colour).unwrap();
    fs::rename(path.with_extension("jpg"), path).unwrap();
}

/// Two classes with two train images and one val image each; the shade says which image it is.
fn folder() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("tiny-imagenet-2");
    for (wnid, shade) in [("n02", 100), ("n01", 40)] {
        let images = folder.join("train").join(wnid).join("images");
        jpeg(&images.join(format!("{wnid}_1.JPEG")), 64, true, shade + 10);
        jpeg(&images.join(format!("{wnid}_0.JPEG")), 64, false, shade);
    }
    jpeg(&folder.join("val/images/val_0.JPEG"), 64, false, 200);
    jpeg(&folder.join("val/images/val_1.JPEG"), 64, false, 220);
    fs::write(folder.join("val/val_annotations.txt"), "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
        .unwrap();
    fs::write(folder.join("wnids.txt"), "n02\nn01\n").unwrap();
    fs::write(folder.join("words.txt"), "n00\tentity\nn01\tgoldfish, Carassius auratus\n").unwrap();
    (root, folder)
}

#[test]
fn reads_both_splits_in_their_order() {
    let (root, folder) = folder();
    for place in [root.path(), &folder] {
        let train = load(&Dataset::TinyImageNet, Split::Train, 64, Some(place)).unwrap();
        let classes: Vec<_> = train.classes.iter().map(|c| (c.name.as_str(), c.id.as_str())).collect();
        assert_eq!(classes, [("goldfish", "n01"), ("n02", "n02")]);
        assert_eq!((train.size, &train.labels[..]), (64, &[0u16, 0, 1, 1][..]));
        for (i, shade) in [40, 50, 100, 110].into_iter().enumerate() {
            assert!(train.image(i).iter().all(|v| v.abs_diff(shade) <= 2), "image {i}");
        }
        let test = load(&Dataset::TinyImageNet, Split::Test, 64, Some(place)).unwrap();
        assert_eq!(test.labels, [1, 0]);
        assert!(test.image(0)[0].abs_diff(200) <= 2 && test.image(1)[0].abs_diff(220) <= 2);
    }
    let found = info(&Dataset::TinyImageNet, 64, Some(root.path())).unwrap();
    assert_eq!(found.splits.iter().map(|s| s.images).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(found.notes[0], "2 of the official 200 classes");
}

#[test]
fn bad_images_are_named() {
    let (root, folder) = folder();
    let fails = |split, words: &[&str]| assert_fails(&Dataset::TinyImageNet, split, root.path(), words);
    let image = folder.join("train/n02/images/n02_1.JPEG");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..20]).unwrap();
    fails(Split::Train, &["n02_1.JPEG", "JPEG"]);
    fs::write(&image, b"GIF89a").unwrap();
    fails(Split::Train, &["n02_1.JPEG"]);
    jpeg(&image, 32, false, 0);
    fails(Split::Train, &["n02_1.JPEG", "32x32", "64x64"]);
    // The first bad file in order is the one that is named, however threads meet them.
    fs::write(folder.join("train/n01/images/n01_0.JPEG"), b"").unwrap();
    fails(Split::Train, &["n01_0.JPEG"]);
    fs::remove_file(folder.join("val/images/val_1.JPEG")).unwrap();
    fails(Split::Test, &["val_1.JPEG"]);
}

#[test]
fn bad_lists_are_named() {
    let (root, folder) = folder();
    let fails = |split, words: &[&str]| assert_fails(&Dataset::TinyImageNet, split, root.path(), words);
    fs::write(folder.join("val/val_annotations.txt"), "val_0.JPEG\tn02\nval_1.JPEG\tn09\n").unwrap();
    fails(Split::Test, &["val_annotations.txt, line 2", "n09"]);
    fs::write(folder.join("val/val_annotations.txt"), "val_0.JPEG\n").unwrap();
    fails(Split::Test, &["line 1", "tab"]);
    fs::write(folder.join("wnids.txt"), "n02\nn02\n").unwrap();
    fails(Split::Train, &["wnids.txt", "n02", "twice"]);
    fs::write(folder.join("wnids.txt"), "n02\nn03\n").unwrap();
    fails(Split::Train, &["n03"]);
    fs::remove_file(folder.join("words.txt")).unwrap();
    fails(Split::Train, &["words.txt is missing"]);
}

#[test]
fn an_unclear_or_missing_place_is_refused() {
    let (root, folder) = folder();
    let other = root.path().join("tiny-imagenet-200");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("wnids.txt"), "n01\n").unwrap();
    let fails = |words: &[&str]| assert_fails(&Dataset::TinyImageNet, Split::Train, root.path(), words);
    fails(&["tiny-imagenet-2, tiny-imagenet-200", "--data-dir"]);
    fs::remove_dir_all(&folder).unwrap();
    fs::remove_dir_all(&other).unwrap();
    fails(&["tiny-imagenet-200.zip", "248100043", "90528d7ca1a48142e341f4ef8d21d0de", "cs231n.stanford.edu"]);
    fs::write(root.path().join("tiny-imagenet-200.zip"), b"PK").unwrap();
    fails(&["distill data fetch --dataset tinyimagenet", "or unzip it"]);
}
