//! The real sets, where `DISTILL_TEST_DATA` is a folder that holds them.

use std::fs;
use std::path::PathBuf;

use distill::data::{Dataset, Split, load, verify};

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
