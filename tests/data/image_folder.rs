//! Folders of images: how they are listed, split, decoded and resized, sound and damaged ones.

use std::fs;
use std::path::Path;

use distill::data::{Dataset, ImageSet, Split, info, load, verify};
use distill::rng::Rng;
use image::{DynamicImage, ImageFormat, RgbImage};
use rand::RngCore;
use tempfile::TempDir;

const PARTS: [Split; 2] = [Split::Train, Split::Test];

fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut image = RgbImage::new(width, height);
    Rng::stream(seed, "test-image", 0, 0).fill_bytes(&mut image);
    image
}

/// Writes an image in the format of the name's extension, making its folder.
fn write(path: &Path, image: impl Into<DynamicImage>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format = ImageFormat::from_extension(path.extension().unwrap().to_ascii_lowercase()).unwrap();
    image.into().save_with_format(path, format).unwrap();
}

fn at(root: &Path) -> Dataset {
    Dataset::Folder(root.to_path_buf())
}

fn read(root: &Path, split: Split, size: usize) -> ImageSet {
    load(&at(root), split, size, None).unwrap()
}

fn names(root: &Path) -> Vec<String> {
    info(&at(root), 8, None).unwrap().classes.into_iter().map(|class| class.name).collect()
}

/// Asserts that both splits fail with a message that holds each of `words`.
fn assert_fails(root: &Path, words: &[&str]) {
    for split in PARTS {
        let error = load(&at(root), split, 8, None).expect_err("a bad folder must be refused");
        assert_eq!(error.exit_code(), 1, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
        }
    }
}

/// Two classes with parts: three train images, two test images of 8 x 8 pixels, each with noise of its own number.
fn with_parts(test_part: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (i, file) in ["train/b/1.png", "train/b/0.PNG", "train/a/x.png"].into_iter().enumerate() {
        write(&root.path().join(file), noise(8, 8, i as u64));
    }
    write(&root.path().join(test_part).join("a/t.png"), noise(8, 8, 3));
    write(&root.path().join(test_part).join("b/t.png"), noise(8, 8, 4));
    root
}

/// One tree: `counts` images of 8 x 8 pixels in each class.
fn one_tree(counts: &[(&str, u64)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (c, (class, count)) in counts.iter().enumerate() {
        for i in 0..*count {
            write(&root.path().join(class).join(format!("{i}.png")), noise(8, 8, c as u64 * 1000 + i));
        }
    }
    root
}

#[test]
fn parts_are_read_to_the_byte_in_order_of_class_and_path() {
    for part in ["test", "val", "validation"] {
        let root = with_parts(part);
        let train = read(root.path(), Split::Train, 8);
        assert_eq!(train.labels, [0, 1, 1]);
        let expected = [2, 1, 0].map(|seed| noise(8, 8, seed).into_raw()).concat();
        assert_eq!(train.pixels, expected);
        let test = read(root.path(), Split::Test, 8);
        assert_eq!((test.labels, test.pixels), (vec![0, 1], [3, 4].map(|seed| noise(8, 8, seed).into_raw()).concat()));
        let notes = info(&at(root.path()), 8, None).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].ends_with(part), "{notes:?}");
    }
}

#[test]
fn a_test_part_goes_before_a_validation_part() {
    let root = with_parts("test");
    write(&root.path().join("val/other/x.png"), noise(8, 8, 9));
    assert_eq!(read(root.path(), Split::Test, 8).len(), 2);
}

#[test]
fn a_tree_is_split_by_class_whatever_the_order_of_the_file_system() {
    let root = one_tree(&[("a", 2), ("b", 10), ("c", 35)]);
    let (train, test) = (read(root.path(), Split::Train, 8), read(root.path(), Split::Test, 8));
    let counts = |set: &ImageSet| set.by_class().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!((counts(&train), counts(&test)), (vec![1, 9, 32], vec![1, 1, 3]));
    // Together they are every image once.
    let mut all: Vec<&[u8]> =
        PARTS.iter().zip([&train, &test]).flat_map(|(_, s)| (0..s.len()).map(|i| s.image(i))).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 47);

    // The same files, made in the opposite order at another place.
    let other = tempfile::tempdir().unwrap();
    for (class, count) in [("c", 35), ("b", 10), ("a", 2)] {
        fs::create_dir(other.path().join(class)).unwrap();
        for i in (0..count).rev() {
            let name = format!("{class}/{i}.png");
            fs::copy(root.path().join(&name), other.path().join(&name)).unwrap();
        }
    }
    for (split, set) in [(Split::Train, train), (Split::Test, test)] {
        assert_eq!(read(other.path(), split, 8).sha256(), set.sha256());
    }
    let notes = info(&at(root.path()), 8, None).unwrap().notes;
    assert!(notes[0].contains("tenth"), "{notes:?}");
}

#[test]
fn a_train_folder_of_images_is_a_class() {
    let root = one_tree(&[("car", 2), ("train", 3)]);
    assert_eq!(names(root.path()), ["car", "train"]);
}

#[test]
fn names_of_any_letters_and_length_are_classes() {
    let long = "ab ".repeat(66) + "cd";
    let root = one_tree(&[("z z", 2), ("\u{c9}t\u{e9} \u{1f600}", 2), (&long, 2), ("Z", 2), ("a:b", 2)]);
    // In the order of bytes: capitals first, accents last.
    assert_eq!(names(root.path()), ["Z", "a:b", &long, "z z", "\u{c9}t\u{e9} \u{1f600}"]);
    assert_eq!(long.len(), 200);
    let set = read(root.path(), Split::Train, 8);
    assert!(set.classes.iter().all(|class| class.name == class.id));
}

#[test]
fn other_files_are_left_out_and_counted() {
    let root = with_parts("test");
    for file in ["train/notes.txt", "train/a/.hidden.png", "train/a/x.gif", "test/b/Thumbs.db"] {
        fs::write(root.path().join(file), b"not an image").unwrap();
    }
    fs::create_dir(root.path().join("train/.git")).unwrap();
    assert_eq!(read(root.path(), Split::Train, 8).len(), 3);
    let notes = info(&at(root.path()), 8, None).unwrap().notes;
    assert!(notes[1].starts_with("5 left out") && notes[1].ends_with("train/.git"), "{notes:?}");
}

#[test]
fn every_kind_of_pixel_becomes_rgb() {
    let root = tempfile::tempdir().unwrap();
    let class = root.path().join("train/a");
    let grey = |v: u8| DynamicImage::ImageLuma8(image::GrayImage::from_pixel(8, 8, image::Luma([v])));
    write(&class.join("0.png"), grey(10));
    write(&class.join("1.png"), DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(8, 8, image::Luma([0x8080]))));
    write(
        &class.join("2.png"),
        DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(8, 8, image::Rgba([1, 2, 3, 0]))),
    );
    let deep = image::ImageBuffer::from_pixel(8, 8, image::Rgb([0u16, 257 * 7, 0xFFFF]));
    write(&class.join("3.png"), DynamicImage::ImageRgb16(deep));
    write(&class.join("4.JPeG"), grey(200));
    fs::copy(class.join("0.png"), class.join("5.jpg")).unwrap(); // a PNG by another name
    write(&root.path().join("test/a/0.png"), grey(0));
    let set = read(root.path(), Split::Train, 8);
    for (i, pixel) in [[10; 3], [128; 3], [1, 2, 3], [0, 7, 255], [200; 3], [10; 3]].iter().enumerate() {
        let tolerance = if i == 4 { 2 } else { 0 };
        for found in set.image(i).chunks(3) {
            assert!(found.iter().zip(pixel).all(|(a, b)| a.abs_diff(*b) <= tolerance), "image {i}: {found:?}");
        }
    }
}

/// The cubic kernel of Keys (1981) with a = -0.5.
fn keys(x: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
        x if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
        _ => 0.0,
    }
}

/// Weights of `from` samples in each of `to`: the kernel, stretched where the image shrinks, and summing to one.
fn weights(from: usize, to: usize) -> Vec<Vec<f64>> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let row = |o: usize| {
        let centre = (o as f64 + 0.5) * scale - 0.5;
        let row: Vec<f64> = (0..from).map(|i| keys((i as f64 - centre) / stretch)).collect();
        let sum: f64 = row.iter().sum();
        row.into_iter().map(|w| w / sum).collect()
    };
    (0..to).map(row).collect()
}

#[test]
fn other_sizes_are_cut_to_the_centre_square_and_resized_by_the_stated_filter() {
    for (width, height, size) in [(40, 24, 8), (24, 40, 16), (5, 9, 16), (8, 11, 8), (33, 33, 20), (300, 1, 4)] {
        let root = tempfile::tempdir().unwrap();
        let image = noise(width, height, u64::from(width));
        write(&root.path().join("train/a/x.png"), image.clone());
        write(&root.path().join("test/a/x.png"), image.clone());
        let found = read(root.path(), Split::Train, size);
        let side = width.min(height);
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let weights = weights(side as usize, size);
        for (i, &value) in found.pixels.iter().enumerate() {
            let (y, x, c) = (i / (3 * size), i / 3 % size, i % 3);
            let mut exact = 0.0;
            for v in 0..side {
                for u in 0..side {
                    let source = f64::from(image.get_pixel(left + u, top + v)[c]);
                    exact += weights[y][v as usize] * weights[x][u as usize] * source;
                }
            }
            let off = (exact.clamp(0.0, 255.0) - f64::from(value)).abs();
            assert!(off < 0.51, "{width}x{height} to {size}, ({y}, {x}, {c}): {value}, expected {exact}");
        }
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_circles_end() {
    use std::os::unix::fs::symlink;
    let root = with_parts("test");
    let elsewhere = one_tree(&[("far", 3)]);
    symlink(elsewhere.path().join("far"), root.path().join("train/c")).unwrap();
    symlink(elsewhere.path().join("far"), root.path().join("test/c")).unwrap();
    symlink(elsewhere.path().join("far/0.png"), root.path().join("train/a/y.png")).unwrap();
    symlink("..", root.path().join("train/a/up")).unwrap(); // every class
    symlink(".", root.path().join("train/b/itself")).unwrap();
    symlink("circle", root.path().join("train/b/circle")).unwrap();
    symlink(root.path(), root.path().join("train/b/top")).unwrap();
    let set = read(root.path(), Split::Train, 8);
    assert_eq!(set.labels, [0, 0, 1, 1, 2, 2, 2]);
    assert_eq!(set.image(1), noise(8, 8, 0).as_raw().as_slice());
    let link = elsewhere.path().join("link");
    symlink(root.path(), &link).unwrap();
    assert_eq!(read(&link, Split::Train, 8).sha256(), set.sha256());

    symlink("nowhere.png", root.path().join("train/b/lost.png")).unwrap();
    let error = load(&at(root.path()), Split::Train, 8, None).unwrap_err().to_string();
    assert!(error.contains("lost.png"), "{error}");
    fs::remove_file(root.path().join("train/b/lost.png")).unwrap();
    symlink("..", root.path().join("train/d")).unwrap();
    assert_fails(root.path(), &["train/d", "no PNG or JPEG"]);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let root = one_tree(&[("a", 2), ("b", 2)]);
    let modes = |mode| {
        for place in [root.path().join("a"), root.path().join("b"), root.path().to_path_buf()] {
            fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    modes(0o555);
    let found = verify(&at(root.path()), 8, None);
    modes(0o755);
    assert_eq!(found.unwrap().reports[0].images_per_class, [1, 1]);
    // Nothing was written, not even by a user who may.
    assert!([root.path().join("a"), root.path().to_path_buf()].iter().all(|f| fs::read_dir(f).unwrap().count() == 2));
}

#[test]
fn what_is_no_data_set_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    assert_fails(&root.path().join("nowhere"), &["nowhere", "folder:PATH"]);
    assert_fails(root.path(), &["holds no folders"]);
    fs::create_dir(root.path().join("empty")).unwrap();
    assert_fails(root.path(), &["empty", "no PNG or JPEG"]);
    write(&root.path().join("empty/x.png"), noise(8, 8, 0));
    assert_fails(root.path(), &["\"empty\"", "one image"]);

    let root = with_parts("test");
    write(&root.path().join("train/only/x.png"), noise(8, 8, 0));
    assert_fails(root.path(), &["\"only\"", "3 classes in train, 2 in test"]);
    write(&root.path().join("test/other/x.png"), noise(8, 8, 0));
    assert_fails(root.path(), &["\"only\""]);
}

#[test]
fn files_that_do_not_decode_are_named() {
    let root = with_parts("test");
    let file = root.path().join("train/b/1.png");
    let whole = fs::read(&file).unwrap();
    let fails = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = load(&at(root.path()), Split::Train, 8, None).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("train/b/1.png"), "{error}");
        error.to_string()
    };
    for bytes in [&b""[..], b"GIF89a\x08\x00\x08\x00", &whole[..whole.len() / 2], &whole[..8]] {
        assert!(fails(bytes).contains("PNG or JPEG"));
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fails(&flipped);
    // The first bad file in order is the one that is named, however threads meet them.
    fs::write(root.path().join("train/a/x.png"), b"").unwrap();
    let error = load(&at(root.path()), Split::Train, 8, None).unwrap_err().to_string();
    assert!(error.contains("train/a/x.png"), "{error}");
}

/// A PNG whose header asks for gigabytes, and one whose sides are larger than any that are read.
#[test]
fn a_header_is_not_believed_beyond_the_limit() {
    let root = with_parts("test");
    let file = root.path().join("train/b/1.png");
    let whole = fs::read(&file).unwrap();
    for (width, height) in [(16_384u32, 16_384u32), (1 << 30, 1), (1, 1 << 20), (u32::MAX, u32::MAX)] {
        let mut bytes = whole.clone();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        fs::write(&file, bytes).unwrap();
        let error = load(&at(root.path()), Split::Train, 8, None).unwrap_err().to_string();
        assert!(error.contains("1.png") && !error.contains("CRC"), "{error}");
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
