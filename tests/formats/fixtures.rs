//! Files that PyTorch and NumPy wrote (`scripts/make_format_fixtures.py`): six images of 2 x 2 in three classes.

use std::fs;

use distill::data::{Class, Normalization};
use distill::formats::{Format, Pixels, Reading, import};
use image::RgbImage;

use super::hostile::{archive, npy};
use super::{classes, fixture, read, reading, refusal};

const LABELS: [u16; 6] = [0, 0, 1, 1, 2, 2];

/// The script's formula, as (N, H, W, 3).
fn pixels(images: std::ops::Range<usize>) -> Vec<u8> {
    let image = |i| {
        (0..4).flat_map(move |place| (0..3).map(move |c| (40 * i + 12 * c + 4 * (place / 2) + place % 2 + 5) as u8))
    };
    images.flat_map(image).collect()
}

#[test]
fn a_tensor_with_its_labels_beside_it_or_named() {
    let beside = read(&fixture("images_best.pt"), Format::Pt, Some(Pixels::Unit)).unwrap().set;
    assert_eq!((beside.images.pixels, beside.images.labels), (pixels(0..6), LABELS.to_vec()));
    let mut reading = reading(Format::Pt, Some(Pixels::Normalized));
    reading.labels = Some(fixture("labels_best.pt"));
    let named = import(&fixture("normalized.pt"), &reading, |_| Ok(Some(classes()))).unwrap();
    assert_eq!((named.set.images.pixels, named.set.images.labels), (pixels(0..6), LABELS.to_vec()));
    assert!(named.warnings[0].contains("names no classes"), "{:?}", named.warnings);
}

#[test]
fn halves_parameters_and_newer_pickles() {
    for name in ["half.pt", "parameter.pt"] {
        let set = read(&fixture(name), Format::Pt, Some(Pixels::Unit)).unwrap().set;
        assert_eq!((set.images.pixels, set.images.labels), (pixels(0..6), LABELS.to_vec()), "{name}");
    }
}

#[test]
fn a_view_with_strides_and_an_offset() {
    let set = read(&fixture("strided.pt"), Format::Pt, None).unwrap().set;
    assert_eq!((set.images.pixels, set.images.labels), (pixels(1..6), LABELS[1..].to_vec()));
}

#[test]
fn channels_last_in_a_compressed_archive() {
    let set = read(&fixture("compressed.npz"), Format::Npz, None).unwrap().set;
    assert_eq!((set.images.pixels, set.images.labels), (pixels(0..6), LABELS.to_vec()));
}

#[test]
fn the_hubs_parquet_and_webdatasets_tar() {
    for name in ["hub.parquet", "samples.tar"] {
        let set = read(&fixture(name), Format::guess(&fixture(name)).unwrap(), None).unwrap().set;
        assert_eq!((set.images.pixels, set.images.labels), (pixels(0..6), LABELS.to_vec()), "{name}");
    }
}

#[test]
fn folders_named_by_class_name_id_or_number() {
    let root = tempfile::tempdir().unwrap();
    for (folder, image) in [("n03", 4), ("001_crane", 2), ("blue jay", 0)] {
        fs::create_dir(root.path().join(folder)).unwrap();
        let png = RgbImage::from_raw(2, 2, pixels(image..image + 1)).unwrap();
        png.save(root.path().join(folder).join("a.PNG")).unwrap();
    }
    let set = read(root.path(), Format::guess(root.path()).unwrap(), None).unwrap().set;
    assert_eq!(
        (set.images.pixels, set.images.labels),
        ([pixels(0..1), pixels(2..3), pixels(4..5)].concat(), vec![0, 1, 2])
    );
    RgbImage::new(3, 3).save(root.path().join("n03/b.png")).unwrap();
    let message = refusal(read(root.path(), Format::Imagefolder, None));
    assert!(message.contains("b.png") && message.contains("3x3, expected 2x2"), "{message}");
}

#[test]
fn labels_follow_the_names_of_their_classes() {
    let mut other = classes();
    other.rotate_left(1); // crane, été, blue jay
    let back = import(&fixture("compressed.npz"), &reading(Format::Npz, None), |_| Ok(Some(other.clone()))).unwrap();
    assert_eq!(*back.set.images.classes, other);
    assert_eq!(back.set.images.labels, [0, 0, 1, 1, 2, 2]);
    assert_eq!(back.set.images.pixels, [pixels(2..6), pixels(0..2)].concat());
    assert!(back.warnings[0].contains("matched by name"), "{:?}", back.warnings);

    other[0] = Class { name: "heron".into(), id: "n02".into() };
    let unknown = refusal(import(&fixture("compressed.npz"), &reading(Format::Npz, None), |_| Ok(Some(other))));
    assert!(unknown.contains("\"crane\"") && unknown.contains("right data set"), "{unknown}");
}

#[test]
fn what_cannot_be_as_said_is_refused() {
    for (name, pixels, words) in [
        ("images_best.pt", None, "say what they mean"),
        ("images_best.pt", Some(Pixels::Normalized), "0.0 % are below 0"),
        ("images_best.pt", Some(Pixels::Bytes), "0.0 % are above 1"),
        ("normalized.pt", Some(Pixels::Unit), "outside"),
        ("strided.pt", Some(Pixels::Unit), "whole numbers"),
        ("numpy.pt", None, "numpy"),
        ("objects.npz", None, "|O"),
    ] {
        let format = Format::guess(&fixture(name)).unwrap();
        let message = refusal(read(&fixture(name), format, pixels));
        assert!(message.contains(words) && message.contains(name), "{name}: {message}");
    }
}

#[test]
fn a_bare_tensor_needs_a_class_list_from_somewhere() {
    let message = refusal(import(&fixture("images_best.pt"), &reading(Format::Pt, Some(Pixels::Unit)), |_| Ok(None)));
    assert!(message.contains("names no classes"), "{message}");
}

/// Soft labels of the six images, as the script makes them.
fn soft(label: u16) -> Vec<f32> {
    [0.05, 0.1, 0.15].iter().enumerate().map(|(c, v)| v + if c == usize::from(label) { 0.7 } else { 0.0 }).collect()
}

#[test]
fn tensors_by_name() {
    let path = fixture("tensors.safetensors");
    let set = read(&path, Format::guess(&path).unwrap(), Some(Pixels::Unit)).unwrap().set;
    assert_eq!((set.images.pixels, set.images.labels), (pixels(0..6), LABELS.to_vec()));
    let root = tempfile::tempdir().unwrap();
    let renamed = root.path().join("other.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|bytes| bytes == b"\"images\"").unwrap();
    bytes[at..at + 8].copy_from_slice(b"\"pixels\"");
    fs::write(&renamed, bytes).unwrap();
    let message = refusal(read(&renamed, Format::Safetensors, Some(Pixels::Unit)));
    assert!(message.contains("it has extra, labels, pixels"), "{message}");
}

#[test]
fn soft_labels_alone_give_each_image_its_likeliest_class() {
    let back = read(&fixture("soft.pt"), Format::Pt, Some(Pixels::Unit)).unwrap().set;
    let reversed: Vec<u8> = [1, 0, 3, 2, 5, 4].into_iter().flat_map(|i| pixels(i..i + 1)).collect();
    assert_eq!((&back.images.pixels, &back.images.labels), (&reversed, &LABELS.to_vec()), "in order of class");
    let found = back.soft_labels.unwrap();
    let expected: Vec<f32> = LABELS.iter().flat_map(|&label| soft(label)).collect();
    assert_eq!(found.views, 1);
    assert!(found.values.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", found.values);
}

#[test]
fn soft_labels_of_several_views_need_images_in_the_order_of_their_classes() {
    let path = fixture("soft_views.npz");
    let soft_labels = read(&path, Format::Npz, None).unwrap().set.soft_labels.unwrap();
    assert_eq!(soft_labels.views, 2);
    let mut second = soft(0);
    second.rotate_right(1);
    for (view, expected) in [soft(0), second].into_iter().enumerate() {
        let row = soft_labels.row(0, view, 3);
        assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "view {view}: {row:?}");
    }
    // A data set with one class more moves columns, but no image.
    let mut more = classes();
    more.insert(1, Class { name: "heron".into(), id: "n04".into() });
    let back = import(&path, &reading(Format::Npz, None), |_| Ok(Some(more))).unwrap().set;
    let soft_labels = back.soft_labels.unwrap();
    let row = soft_labels.row(2, 0, 4);
    let expected = soft(1);
    let expected = [expected[0], 0.0, expected[1], expected[2]];
    assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?}");
    // The views' augmentations belong to the images' places, which another order would change.
    let mut other = classes();
    other.rotate_left(1); // crane, été, blue jay
    let message = refusal(import(&path, &reading(Format::Npz, None), |_| Ok(Some(other))));
    assert!(message.contains("several views"), "{message}");
}

#[test]
fn experiments_as_the_dataset_condensation_code_saves_them() {
    let back = read(&fixture("experiments.pt"), Format::Pt, Some(Pixels::Unit)).unwrap();
    assert_eq!((&back.set.images.pixels, &back.set.images.labels), (&pixels(0..6), &LABELS.to_vec()));
    assert!(back.warnings.iter().any(|warning| warning.contains("first of 2 sets")), "{:?}", back.warnings);
}

#[test]
fn values_may_be_normalized_with_numbers_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("own.npz");
    let values: Vec<f32> = (0..9).map(|i| i as f32 / 2.0 - 2.0).collect(); // -2 to 2
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let images = [npy("<f4", "(3, 3, 1, 1)"), bytes].concat();
    let labels = [npy("|u1", "(3,)"), vec![0, 1, 2]].concat();
    fs::write(&path, archive(&[("images.npy", &images), ("labels.npy", &labels)])).unwrap();
    let normalization = Some(Normalization { mean: [0.5; 3], std: [0.25; 3] });
    let reading = Reading { exact: true, normalization, ..reading(Format::Npz, Some(Pixels::Normalized)) };
    let back = import(&path, &reading, |_| Ok(Some(classes()))).unwrap();
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    for (i, (found, value)) in back.exact.unwrap().into_iter().zip(&values).enumerate() {
        let shown = value * 0.25 + 0.5;
        assert!((found - (shown - mean[i % 3]) / std[i % 3]).abs() < 1e-5, "{i}: {found}");
        assert_eq!(f32::from(back.set.images.pixels[i]), (shown * 255.0).round());
    }
}

#[test]
fn exact_values_come_in_the_sets_order_unrounded() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("optimized.npz");
    // Three images of 1 x 1 that overshoot, the last class first.
    let values = [1.25f32, -0.5, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let images = [npy("<f4", "(3, 3, 1, 1)"), bytes].concat();
    let labels = [npy("|u1", "(3,)"), vec![2, 0, 1]].concat();
    fs::write(&path, archive(&[("images.npy", &images), ("labels.npy", &labels)])).unwrap();
    let read = |exact| {
        let reading = Reading { exact, ..reading(Format::Npz, Some(Pixels::Unit)) };
        import(&path, &reading, |_| Ok(Some(classes())))
    };
    assert!(refusal(read(false)).contains("22 % of them would lie outside"), "clamping would change too many");
    let back = read(true).unwrap();
    assert!(back.warnings.iter().all(|w| !w.contains("clamped")), "{:?}", back.warnings);
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let normalized = |i: usize| (values[i] - mean[i % 3]) / std[i % 3];
    assert_eq!(back.exact.unwrap(), [3, 4, 5, 6, 7, 8, 0, 1, 2].map(normalized));
    assert_eq!(back.set.images.pixels[6..], [255, 0, 26]);
}
