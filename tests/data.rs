//! Loading each data set: from small files made here, from damaged ones, and from the real sets where they are at hand.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use distill::data::{Dataset, ImageSet, Split, info, load, verify};
use distill::rng::Rng;
use rand::RngCore;
use tempfile::TempDir;

/// Asserts that loading fails with a message that holds each of `words`, as a failure (exit code 1).
fn assert_fails(dataset: &Dataset, split: Split, folder: &Path, words: &[&str]) {
    let error =
        load(dataset, split, dataset.own_size().unwrap(), Some(folder)).expect_err("a bad input must be refused");
    let message = error.to_string();
    assert_eq!(error.exit_code(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

mod names {
    use super::*;

    #[test]
    fn every_name_reads_back_and_serializes_as_itself() {
        let names = ["shapes", "cifar100", "tinyimagenet", "folder:/a b/\u{e9}", "hf:uoft-cs/cifar10"];
        for name in names {
            let dataset: Dataset = name.parse().unwrap();
            assert_eq!(dataset.to_string(), name);
            assert_eq!(serde_json::to_value(&dataset).unwrap(), serde_json::json!(name));
            assert_eq!(serde_json::from_value::<Dataset>(serde_json::json!(name)).unwrap(), dataset);
        }
        for named in Dataset::NAMED {
            assert!(names.contains(&named.to_string().as_str()), "{named}");
        }
    }

    #[test]
    fn a_folder_is_named_by_its_absolute_path() {
        let here = std::env::current_dir().unwrap();
        for (name, path) in [("folder:x", "x"), ("folder:./x/", "x"), ("folder:x//y/.", "x/y"), ("folder:../x", "../x")]
        {
            assert_eq!(name.parse::<Dataset>().unwrap(), Dataset::Folder(here.join(path)), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_a_usage_error_with_the_nearest_known_one() {
        let error = "cifar-100".parse::<Dataset>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        for word in ["\"cifar-100\"", "shapes, cifar100, tinyimagenet", "did you mean cifar100?"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        for (name, words) in [
            ("mnist", "folder:PATH"),
            ("foldr:x", "did you mean folder:PATH?"),
            ("./flowers", "did you mean folder:./flowers?"),
            ("folder:", "folder of images"),
            ("hf:cifar10", "hf:OWNER/NAME"),
            ("hf:a/b/c", "hf:OWNER/NAME"),
            ("hf:../x", "hf:OWNER/NAME"),
        ] {
            let error = name.parse::<Dataset>().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn file_stems_are_one_word_and_differ_between_folders_and_sizes() {
        assert_eq!(Dataset::Cifar100.file_stem(32), "cifar100");
        let stem = |name: &str, size| name.parse::<Dataset>().unwrap().file_stem(size);
        let stems = [
            stem("folder:/a/my flowers", 32),
            stem("folder:/a/my flowers", 64),
            stem("folder:/b/my flowers", 32),
            stem("hf:me/my-flowers", 32),
        ];
        assert!(stems[0].starts_with("my_flowers-32px-"), "{stems:?}");
        for (i, stem) in stems.iter().enumerate() {
            assert!(!stem.contains('/') && !stems[..i].contains(stem), "{stems:?}");
        }
    }
}

mod hash {
    use super::*;

    #[test]
    fn sees_every_part_of_a_set() {
        let set = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
        let other = |change: fn(&mut ImageSet)| {
            let mut changed = set.clone();
            change(&mut changed);
            changed.sha256()
        };
        let hash = set.sha256();
        assert_eq!(hash.len(), 64);
        assert_eq!(hash, set.clone().sha256());
        assert_ne!(hash, other(|s| s.pixels[5] ^= 1));
        assert_ne!(hash, other(|s| s.labels.swap(0, 1)));
        assert_ne!(hash, other(|s| std::sync::Arc::make_mut(&mut s.classes).swap(0, 1)));
        assert_ne!(hash, other(|s| std::sync::Arc::make_mut(&mut s.classes)[0].id.push('x')));
    }
}

mod shapes {
    use super::*;

    #[test]
    fn is_balanced_and_the_same_every_time() {
        for (split, per_class) in [(Split::Train, 500), (Split::Test, 100)] {
            let set = load(&Dataset::Shapes, split, 32, None).unwrap();
            assert_eq!((set.size, set.classes.len(), set.pixels.len()), (32, 10, per_class * 10 * 3072));
            assert!(set.by_class().iter().all(|indices| indices.len() == per_class));
            assert_eq!(set.pixels, load(&Dataset::Shapes, split, 32, None).unwrap().pixels);
        }
        // The bytes are part of every published number: a change of the generator must be meant.
        let hash = load(&Dataset::Shapes, Split::Train, 32, None).unwrap().sha256();
        assert_eq!(hash, "5525263d835ae6eee2aff6a7d0c88bbfe2cfad8163a51a2c2a6112df30be8ba0");
    }

    #[test]
    fn splits_share_no_image_and_the_normalization_is_what_train_measures() {
        let found = verify(&Dataset::Shapes, 32, None).unwrap();
        assert!(found.reports.iter().all(|r| r.duplicates == 0 && r.also_in_train == 0));
        let (measured, stated) = (&found.reports[0], found.info.normalization);
        for c in 0..3 {
            assert!((measured.mean[c] - f64::from(stated.mean[c])).abs() < 1e-4, "{measured:?}");
            assert!((measured.std[c] - f64::from(stated.std[c])).abs() < 1e-4, "{measured:?}");
        }
        assert!(found.info.notes.is_empty());
    }

    /// Softmax regression on pixels, plain stochastic gradient descent.
    #[test]
    fn a_linear_classifier_stays_under_40_percent() {
        let train = load(&Dataset::Shapes, Split::Train, 32, None).unwrap();
        let test = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
        let inputs = |image: &[u8]| image.iter().map(|v| f32::from(*v) / 127.5 - 1.0).collect::<Vec<f32>>();
        let mut weights = vec![[0f32; 10]; train.image_len()];
        let scores = |weights: &[[f32; 10]], x: &[f32]| {
            let mut scores = [0f32; 10];
            for (row, x) in weights.iter().zip(x) {
                scores.iter_mut().zip(row).for_each(|(s, w)| *s += w * x);
            }
            scores
        };
        for epoch in 0..5 {
            for i in Rng::stream(0, "test-order", epoch, 0).permutation(train.len()) {
                let x = inputs(train.image(i as usize));
                let mut residual = scores(&weights, &x).map(f32::exp);
                let sum: f32 = residual.iter().sum();
                residual.iter_mut().for_each(|p| *p /= sum);
                residual[usize::from(train.labels[i as usize])] -= 1.0;
                for (row, x) in weights.iter_mut().zip(&x) {
                    row.iter_mut().zip(&residual).for_each(|(w, r)| *w -= 1e-4 * r * x);
                }
            }
        }
        let right = (0..test.len()).filter(|&i| {
            let scores = scores(&weights, &inputs(test.image(i)));
            (0..10).all(|c| scores[c] <= scores[usize::from(test.labels[i])])
        });
        let percent = right.count() as f64 * 100.0 / test.len() as f64;
        assert!((12.0..40.0).contains(&percent), "{percent} %");
    }
}

mod cifar100 {
    use super::*;

    const RECORD: usize = 3074;

    /// `labels` as records of random planes after (coarse, fine).
    fn records(labels: &[(u8, u8)], seed: u64) -> Vec<u8> {
        let mut rng = Rng::stream(seed, "test-records", 0, 0);
        let mut bytes = Vec::new();
        for &(coarse, fine) in labels {
            let mut planes = vec![0; 3072];
            rng.fill_bytes(&mut planes);
            bytes.extend([coarse, fine]);
            bytes.extend(planes);
        }
        bytes
    }

    fn files() -> [(&'static str, Vec<u8>); 3] {
        [
            ("train.bin", records(&[(3, 2), (0, 0), (19, 1), (7, 2)], 1)),
            ("test.bin", records(&[(1, 1)], 2)),
            ("fine_label_names.txt", b"apple\nmaple_tree\nworm\n".to_vec()),
        ]
    }

    /// ROOT/cifar-100-binary/ with three classes, four train images and one test image.
    fn folder() -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("cifar-100-binary");
        fs::create_dir(&folder).unwrap();
        for (name, bytes) in files() {
            fs::write(folder.join(name), bytes).unwrap();
        }
        (root, folder)
    }

    fn archive(root: &Path) -> PathBuf {
        let path = root.join("cifar-100-binary.tar.gz");
        let gz = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        for (name, bytes) in files() {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("cifar-100-binary/{name}"), bytes.as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
        path
    }

    fn assert_is_the_small_set(root: &Path) {
        let set = load(&Dataset::Cifar100, Split::Train, 32, Some(root)).unwrap();
        assert_eq!((set.size, &set.labels[..]), (32, &[2u16, 0, 1, 2][..]));
        let classes: Vec<_> = set.classes.iter().map(|c| (c.name.as_str(), c.id.as_str())).collect();
        assert_eq!(classes, [("apple", "0"), ("maple_tree", "1"), ("worm", "2")]);
        let raw = &files()[0].1;
        for (i, y, x, c) in [(0, 0, 0, 0), (1, 31, 30, 2), (3, 5, 17, 1)] {
            assert_eq!(set.image(i)[(y * 32 + x) * 3 + c], raw[i * RECORD + 2 + c * 1024 + y * 32 + x]);
        }
        assert_eq!(load(&Dataset::Cifar100, Split::Test, 32, Some(root)).unwrap().labels, [1]);
    }

    #[test]
    fn reads_the_folder_from_above_and_from_within() {
        let (root, folder) = folder();
        assert_is_the_small_set(root.path());
        assert_is_the_small_set(&folder);
    }

    #[test]
    fn reads_the_archive_without_unpacking_it() {
        let root = tempfile::tempdir().unwrap();
        archive(root.path());
        assert_is_the_small_set(root.path());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn info_and_verify_say_what_is_not_official() {
        let (root, folder) = folder();
        let found = info(&Dataset::Cifar100, 32, Some(root.path())).unwrap();
        assert_eq!(found.source, folder.display().to_string());
        assert_eq!(found.splits.iter().map(|s| s.images).collect::<Vec<_>>(), [4, 1]);
        assert_eq!(
            found.notes,
            [
                "3 of the official 100 classes",
                "train has 4 of the official 50000 images",
                "test has 1 of the official 10000 images"
            ]
        );
        fs::write(folder.join("test.bin"), records(&[(3, 2)], 1).repeat(2)).unwrap(); // train's first image, twice
        let found = verify(&Dataset::Cifar100, 32, Some(root.path())).unwrap();
        assert_eq!(found.reports[0].images_per_class, [1, 1, 2]);
        assert_eq!((found.reports[1].duplicates, found.reports[1].also_in_train), (1, 2));
    }

    #[test]
    fn a_missing_set_names_the_places_the_file_and_the_way() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("cifar-100-binary.tar.gz");
        let words = [place.to_str().unwrap(), "168513733", "03b5dce01913d631647c71ecec9e9cb8", "cs.toronto.edu"];
        assert_fails(&Dataset::Cifar100, Split::Train, root.path(), &words);
        assert_fails(&Dataset::Cifar100, Split::Train, root.path(), &["--data-dir", "DISTILL_DATA"]);
        assert_fails(&Dataset::Cifar100, Split::Train, &root.path().join("nowhere"), &["nowhere"]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let (root, folder) = folder();
        let train = folder.join("train.bin");
        let fails = |words: &[&str]| assert_fails(&Dataset::Cifar100, Split::Train, root.path(), words);

        fs::write(&train, &files()[0].1[..RECORD * 2 - 1]).unwrap();
        fails(&["train.bin", "6147 bytes", "3074"]);
        fs::write(&train, []).unwrap();
        fails(&["train.bin", "0 bytes"]);
        fs::write(&train, records(&[(0, 0), (0, 3)], 0)).unwrap();
        fails(&["train.bin", "record 1", "fine label 3", "below 3"]);
        fs::write(&train, records(&[(20, 0)], 0)).unwrap();
        fails(&["record 0", "coarse label 20"]);
        fs::remove_file(&train).unwrap();
        fails(&["train.bin is missing"]);
        fs::write(folder.join("fine_label_names.txt"), "\n").unwrap();
        fails(&["0 class names", "100"]);
        fs::write(folder.join("fine_label_names.txt"), [0xFF, 0xFE]).unwrap();
        fails(&["fine_label_names.txt"]);
    }

    #[test]
    fn a_damaged_archive_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = archive(root.path());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_fails(&Dataset::Cifar100, Split::Test, root.path(), &["cifar-100-binary.tar.gz", "cut short"]);
        fs::write(&path, b"not an archive").unwrap();
        assert_fails(&Dataset::Cifar100, Split::Test, root.path(), &["cifar-100-binary.tar.gz"]);
    }
}

mod tiny_imagenet {
    use super::*;

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
        fails(&["unzip tiny-imagenet-200.zip"]);
    }
}

/// The real sets, where `DISTILL_TEST_DATA` is a folder that holds them.
mod real {
    use super::*;

    fn root(test: &str) -> Option<PathBuf> {
        let root = std::env::var_os("DISTILL_TEST_DATA").map(PathBuf::from);
        if root.is_none() {
            eprintln!("skipped {test}: DISTILL_TEST_DATA is not set");
        }
        root
    }

    #[test]
    fn cifar100_is_what_is_known_of_it() {
        let Some(root) = root("cifar100") else { return };
        let found = verify(&Dataset::Cifar100, 32, Some(&root)).unwrap();
        assert!(found.info.notes.is_empty());
        assert_eq!(found.reports[0].images_per_class, [500; 100]);
        assert_eq!(found.reports[1].images_per_class, [100; 100]);
        for c in 0..3 {
            let official = found.info.normalization;
            assert!((found.reports[0].mean[c] - f64::from(official.mean[c])).abs() < 1e-3);
            assert!((found.reports[0].std[c] - f64::from(official.std[c])).abs() < 1e-3);
        }
        // A plain reading of the first and the last test record.
        let raw = fs::read(root.join("cifar-100-binary/test.bin")).unwrap();
        let names = fs::read_to_string(root.join("cifar-100-binary/fine_label_names.txt")).unwrap();
        let set = load(&Dataset::Cifar100, Split::Test, 32, Some(&root)).unwrap();
        for i in [0, 9_999] {
            let record = &raw[i * 3074..][..3074];
            assert_eq!(set.labels[i], u16::from(record[1]));
            assert_eq!(set.classes[usize::from(record[1])].name, names.lines().nth(usize::from(record[1])).unwrap());
            for y in 0..32 {
                for x in 0..32 {
                    for c in 0..3 {
                        assert_eq!(set.image(i)[(y * 32 + x) * 3 + c], record[2 + c * 1024 + y * 32 + x]);
                    }
                }
            }
        }
        assert_eq!(set.classes[usize::from(set.labels[0])].name, "mountain"); // every copy's first test image
    }

    #[test]
    fn tiny_imagenet_is_what_is_known_of_it() {
        let Some(root) = root("tinyimagenet") else { return };
        let found = verify(&Dataset::TinyImageNet, 64, Some(&root)).unwrap();
        assert!(found.reports[0].images_per_class.iter().all(|&n| n == 500));
        assert!(found.reports[1].images_per_class.iter().all(|&n| n == 50));
        assert_eq!(found.info.classes[0].id, "n01443537");
        assert_eq!(found.info.classes[0].name, "goldfish");
        assert!(found.info.classes.windows(2).all(|pair| pair[0].id < pair[1].id));
        // Some of the photographs are grey: all three channels equal.
        let set = load(&Dataset::TinyImageNet, Split::Test, 64, Some(&root)).unwrap();
        let grey = |i: &usize| set.image(*i).chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
        let share = (0..set.len()).filter(grey).count() as f64 / set.len() as f64;
        assert!((0.002..0.05).contains(&share), "{share}");
    }
}
