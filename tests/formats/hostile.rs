//! Files that would run something, that lie about their sizes, or that end too early: each is refused, none panics.

use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use distill::data::Normalization;
use distill::formats::{Format, Pixels, Reading, import};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{classes, export, fixture, read, reading, refusal, set};

/// A zip archive with these entries, stored.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The header of a `.npy` array.
pub fn npy(descr: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00".to_vec(), (text.len() as u16).to_le_bytes().to_vec(), text.into_bytes()].concat()
}

/// The refusal of a PyTorch file with this pickle and 12 bytes of a tensor.
fn pickled(pickle: &[u8]) -> String {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("strange.pt");
    fs::write(&path, archive(&[("a/data.pkl", pickle), ("a/data/0", &[7; 12])])).unwrap();
    let message = refusal(read(&path, Format::Pt, Some(Pixels::Bytes)));
    assert!(message.contains("strange.pt"), "{message}");
    message
}

/// The pickle of a tensor of 12 u8 values of shape (1, 3, 2, 2), with other text in the place of some.
fn tensor(storage: &str, count: &str, offset: &str, shape: &str, strides: &str) -> Vec<u8> {
    // Protocol 2 takes the numbers of protocol 0 only in binary, so they are written as (K = one byte, J = four, 8a 08 = eight).
    let number = |text: &str| match (text.parse::<u8>(), text.parse::<i32>()) {
        (Ok(n), _) => vec![b'K', n],
        (_, Ok(n)) => [vec![b'J'], n.to_le_bytes().to_vec()].concat(),
        _ => [vec![0x8a, 8], text.parse::<i64>().unwrap().to_le_bytes().to_vec()].concat(),
    };
    let tuple = |list: &str| [vec![b'('], list.split(' ').flat_map(number).collect(), vec![b't']].concat();
    let text = |text: &str| [vec![0x8c, text.len() as u8], text.as_bytes().to_vec()].concat();
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        format!("ctorch\n{storage}\n").into_bytes(),
        text("0"),
        text("cpu"),
        number(count),
        b"tQ".to_vec(),
        number(offset),
        tuple(shape),
        tuple(strides),
        b"\x89}tR.".to_vec(),
    ]
    .concat()
}

#[test]
fn nothing_that_a_pickle_names_is_run() {
    let marker = std::env::temp_dir().join("distill-pickle-was-run");
    let command = format!("touch {}", marker.display());
    let text = [b"X".to_vec(), (command.len() as u32).to_le_bytes().to_vec(), command.into_bytes()].concat();
    for (name, start) in [
        ("posix.system", b"\x80\x02cposix\nsystem\n".to_vec()),
        ("os.system", b"\x80\x04\x8c\x02os\x8c\x06system\x93".to_vec()),
        ("builtins.eval", b"\x80\x02cbuiltins\neval\n".to_vec()),
        ("torch.load", b"\x80\x02ctorch\nload\n".to_vec()),
    ] {
        let message = pickled(&[start, text.clone(), b"\x85R.".to_vec()].concat());
        assert!(message.contains(name), "{message}");
    }
    assert!(!marker.exists());
    for opcode in [b'i', b'o', 0x81, 0x92, 0x82, b'P', b'\xff'] {
        let message = pickled(&[b"\x80\x02(".as_slice(), &[opcode], b"."].concat());
        assert!(message.contains(&format!("0x{opcode:02x}")), "{message}");
    }
    // The state that a numpy type gets is for nothing else.
    assert!(pickled(b"\x80\x02))b.").contains("0x62"));
    assert!(pickled(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.").contains("_reconstruct"));
}

#[test]
fn tensors_that_lie_about_their_sizes() {
    let sound = tensor("ByteStorage", "12", "0", "1 3 2 2", "12 4 2 1");
    assert!(
        pickled(&sound).contains("not the same number"),
        "read as one image, which is none of three classes' share"
    );
    for (pickle, words) in [
        (tensor("ByteStorage", "13", "0", "1 3 2 2", "12 4 2 1"), "12 bytes"),
        (tensor("FloatStorage", "12", "0", "1 3 2 2", "12 4 2 1"), "12 bytes"),
        // 2^62 + 3 values of four bytes are 12 bytes, modulo 2^64.
        (tensor("IntStorage", "4611686018427387907", "0", "1 3 2 2", "12 4 2 1"), "12 bytes"),
        (tensor("ByteStorage", "12", "1", "1 3 2 2", "12 4 2 1"), "does not fit"),
        (tensor("ByteStorage", "12", "0", "1 3 2 2", "12 4 2 2"), "does not fit"),
        (tensor("ByteStorage", "12", "0", "2 3 2 2", "0 0 0 0"), "does not fit"),
        (tensor("ByteStorage", "12", "0", "1 3 2 2", "12 4 2"), "does not fit"),
        (
            tensor("ByteStorage", "12", "0", "2000000000 2000000000 2000000000 2000000000", "0 0 0 0"),
            "claims the shape",
        ),
        (tensor("ByteStorage", "12", "0", "1 3 2 2", "12 4 -2 1"), "whole numbers"),
        (tensor("ByteStorage", "12", "-1", "1 3 2 2", "12 4 2 1"), "begins at"),
        (tensor("ByteStorage", "-12", "0", "1 3 2 2", "12 4 2 1"), "claims"),
        (tensor("ByteStorage", "12", "0", "0 3 2 2", "12 4 2 1"), "no image"),
        (tensor("ByteStorage", "0", "0", "0 1099511627776 1099511627776", "1 1 1"), "no image"),
        (tensor("ByteStorage", "12", "0", "3 2 2", "4 2 1"), "expected (N, 3"),
    ] {
        let message = pickled(&pickle);
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
}

#[test]
fn deep_wide_and_circular_pickles_cost_little() {
    let deep = [b"\x80\x02".to_vec(), vec![b']'; 1_000_000], vec![b'a'; 999_999], b".".to_vec()].concat();
    assert!(pickled(&deep).contains("expected a tensor"));
    let circle = b"\x80\x02]q\x00h\x00a.".to_vec();
    assert!(pickled(&circle).contains("expected a tensor"));
    // Each line holds the one before it ten times: 10^40 items if anything unfolded them.
    let laughs = [
        b"\x80\x02]q\x00".to_vec(),
        b"](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00eq\x00".repeat(40),
        b".".to_vec(),
    ];
    assert!(pickled(&laughs.concat()).contains("expected a tensor"));
    // A long tuple that would be copied at every call.
    let copied = [
        b"\x80\x02ctorch\nSize\nq\x01(".to_vec(),
        b"K\x01".repeat(500_000),
        b"tq\x02".to_vec(),
        b"h\x01h\x02\x85R".repeat(300_000),
    ];
    assert!(pickled(&copied.concat()).contains("arguments"));
    let long = [b"\x80\x02".to_vec(), vec![b'N'; 5 << 20], b".".to_vec()].concat();
    assert!(pickled(&long).contains("at most"));
    for cut in [
        &b"\x80\x02X\xff\xff\xff\xffab"[..],
        b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\x02c",
        b"",
        b"\x80",
        b"\x80\x02",
    ] {
        assert!(pickled(cut).contains("cut off"));
    }
    for empty in
        [&b"\x80\x02."[..], b"\x80\x02a.", b"\x80\x02R.", b"\x80\x02]e.", b"\x80\x02\x87.", b"\x80\x02]K\x01\x94u."]
    {
        pickled(empty);
    }
}

/// Every file of a format, small enough to be cut at each of its bytes.
fn small_files() -> Vec<(PathBuf, Format)> {
    ["half.pt", "images_best.pt", "compressed.npz", "hub.parquet", "tensors.safetensors"]
        .map(|name| (fixture(name), Format::guess(&fixture(name)).unwrap()))
        .to_vec()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut files = small_files();
    for format in [Format::Pt, Format::Npz] {
        let path = root.path().join(format.file_name(&set(1).listing()));
        export(&set(1), format, &path, false).unwrap();
        files.push((path, format));
    }
    for (file, format) in files {
        let whole = fs::read(&file).unwrap();
        let path = root.path().join("cut");
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(read(&path, format, Some(Pixels::Unit)).is_err(), "{} cut at {len}", file.display());
        }
    }
}

/// A tar archive has no end that a reader must meet, so one that is cut between samples is a shorter one.
#[test]
fn a_cut_tar_gives_whole_samples_or_nothing() {
    let root = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("samples.tar")).unwrap();
    let sound = read(&fixture("samples.tar"), Format::Webdataset, None).unwrap().set.images.pixels;
    let path = root.path().join("cut.tar");
    let mut taken = 0;
    for len in (0..whole.len()).step_by(31) {
        fs::write(&path, &whole[..len]).unwrap();
        if let Ok(back) = read(&path, Format::Webdataset, None) {
            assert!(sound.starts_with(&back.set.images.pixels), "cut at {len}");
            taken += 1;
        }
    }
    assert!(taken > 0 && taken < whole.len() / 62, "{taken}");
}

#[test]
fn links_and_sparse_files_are_no_samples() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("strange.tar");
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::GNUSparse, tar::EntryType::Fifo] {
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_link_name("/etc/passwd").unwrap();
        tar.append_data(&mut header, "0.png", &[][..]).unwrap();
        tar.into_inner().unwrap();
        let message = refusal(read(&path, Format::Webdataset, None));
        assert!(message.contains("strange.tar"), "{message}");
    }
}

#[test]
fn a_changed_byte_is_refused_or_harmless() {
    let root = tempfile::tempdir().unwrap();
    for (file, format) in small_files() {
        let pixels = Some(Pixels::Unit).filter(|_| format == Format::Pt);
        let whole = fs::read(&file).unwrap();
        let path = root.path().join("changed");
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 0x81;
            fs::write(&path, &changed).unwrap();
            if matches!(format, Format::Parquet | Format::Safetensors) {
                let _ = read(&path, format, Some(Pixels::Unit)); // they have no checksums: only a panic would be wrong
            } else if let Ok(back) = read(&path, format, pixels) {
                let sound = read(&file, format, pixels).unwrap();
                assert_eq!(back.set.images.pixels, sound.set.images.pixels, "{} changed at {place}", file.display());
            }
        }
    }
}

#[test]
fn archives_that_lie() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("lies.npz");
    let header = |shape: &str| npy("|u1", shape);
    for (shape, words) in [
        ("(1, 3, 2, 2)", "fills"),
        ("(99999999, 3, 2, 2)", "fills"),
        ("(99999999999999999999, 3, 2, 2)", "no plain shape"),
        ("(4294967295, 4294967295, 4294967295)", "claims the shape"),
    ] {
        fs::write(&path, archive(&[("images.npy", &[header(shape), vec![1; 11]].concat())])).unwrap();
        let message = refusal(read(&path, Format::Npz, None));
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
    // 2^42 texts of 2^22 bytes are none, modulo 2^64.
    let images = [header("(1, 3, 2, 2)"), vec![7; 12]].concat();
    let names = npy("<U1048576", "(4398046511104,)");
    fs::write(&path, archive(&[("images.npy", &images), ("class_names.npy", &names)])).unwrap();
    assert!(refusal(read(&path, Format::Npz, None)).contains("fills"));
    // A stored entry that claims four gigabytes.
    let mut bytes = archive(&[("images.npy", &[header("(1, 3, 2, 2)"), vec![1; 12]].concat())]);
    let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bytes[directory + 24..][..4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(refusal(read(&path, Format::Npz, None)).contains("claims 4294967280 bytes"));
    for strange in [&b"not an archive"[..], b"", b"PK\x05\x06"] {
        fs::write(&path, strange).unwrap();
        assert!(refusal(read(&path, Format::Npz, None)).contains("numpy.savez"));
        assert!(refusal(read(&path, Format::Pt, None)).contains("torch.save"));
    }
}

#[test]
fn soft_labels_that_are_no_probabilities() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("soft.npz");
    let images = [npy("|u1", "(2, 3, 2, 2)"), (0..24).collect()].concat();
    let refused = |name: &str, shape: &str, values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let soft = [npy("<f4", shape), bytes].concat();
        fs::write(&path, archive(&[("images.npy", &images), (name, &soft)])).unwrap();
        refusal(read(&path, Format::Npz, None))
    };
    let sound = [0.5f32, 0.5, 0.0, 0.0, 0.0, 1.0];
    for (place, value, words) in [
        (1, f32::NAN, "image 0 has the probability NaN"),
        (1, f32::INFINITY, "image 0 has the probability inf"),
        (3, -0.25, "image 1 has the probability -0.25"),
        (5, 0.5, "image 1 sums up to 0.5000, expected 1"),
        (5, 3.0, "apply softmax"),
    ] {
        let mut values = sound;
        values[place] = value;
        for name in ["labels.npy", "soft_labels.npy"] {
            let message = refused(name, "(2, 3)", &values);
            assert!(message.contains(words), "{words:?} is not in: {message}");
        }
    }
    for (shape, count, words) in [
        ("(3, 2)", 6, "2 columns, expected one for each of 3"),
        ("(2, 1, 3)", 5, "fills"),
        ("(1, 3)", 3, "expected one for each of 2 images"),
        ("(1, 2, 3)", 6, "expected one for each of 2 images"),
        ("(6,)", 6, "shape [6]"),
        ("(2, 0, 3)", 0, "shape [2, 0, 3]"),
        ("(2, 3, 1, 1)", 6, "shape [2, 3, 1, 1]"),
    ] {
        let message = refused("soft_labels.npy", shape, &sound[..count]);
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
    let strange = [npy("<f4", "(2,)"), vec![0; 8]].concat();
    fs::write(&path, archive(&[("images.npy", &images), ("labels.npy", &strange)])).unwrap();
    assert!(refusal(read(&path, Format::Npz, None)).contains("floating-point numbers, one for each image"));
}

#[test]
fn values_that_cannot_be_what_was_said() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("said.npz");
    let tensor = |values: &dyn Fn(usize) -> f32| {
        let bytes: Vec<u8> = (0..300).flat_map(|i| values(i).to_le_bytes()).collect();
        let images = [npy("<f4", "(100, 3, 1, 1)"), bytes].concat();
        let labels = [npy("|u1", "(100,)"), vec![0; 100]].concat();
        archive(&[("images.npy", &images), ("labels.npy", &labels)])
    };
    let part = |i: usize| i as f32 / 299.0;
    type Case<'a> = (&'a dyn Fn(usize) -> f32, Pixels, &'a str);
    let cases: [Case; 11] = [
        (&|i| 255.0 * part(i), Pixels::Unit, "outside of what a pixel"),
        // Few enough are bright, but too bright.
        (&|i| if i < 20 { 255.0 } else { 0.0 }, Pixels::Unit, "times the range of a pixel"),
        (&|i| if i < 3 { 40.0 } else { 4.0 * part(i) - 2.0 }, Pixels::Normalized, "times the range of a pixel"),
        (&|i| 2.0 * part(i) - 1.0, Pixels::Normalized, "outside of -1 to 1"),
        (&|i| 255.0 * part(i), Pixels::Normalized, "would lie outside"),
        (&part, Pixels::Normalized, "0.0 % are below 0"),
        (&part, Pixels::Bytes, "0.0 % are above 1"),
        // Optimized images overshoot here and there.
        (&|i| 1.1 * part(i) - 0.02, Pixels::Normalized, "% are below 0"),
        (&|i| 2.04 * part(i) - 1.02, Pixels::Normalized, "outside of -1 to 1"),
        (&|i| 1.01 * part(i), Pixels::Bytes, "% are above 1"),
        (&|i| 2.0 * part(i) - 0.8, Pixels::Unit, "cannot be --pixels unit"),
    ];
    // Images of little but one ground are no proof of another meaning; nor are values within -1 to 1 that were halved.
    let half = Some(Normalization { mean: [0.5; 3], std: [0.5; 3] });
    type Sound<'a> = (&'a dyn Fn(usize) -> f32, Pixels, Option<Normalization>);
    let sound: [Sound; 3] = [
        (&|i| if i < 6 { -2.0 } else { 2.2 }, Pixels::Normalized, None),
        (&|i| if i < 6 { 200.0 } else { 0.0 }, Pixels::Bytes, None),
        (&|i| 2.0 * part(i) - 1.0, Pixels::Normalized, half),
    ];
    for (values, pixels, normalization) in sound {
        fs::write(&path, tensor(values)).unwrap();
        let reading = Reading { normalization, ..reading(Format::Npz, Some(pixels)) };
        import(&path, &reading, |_| Ok(Some(classes()))).map(|_| ()).unwrap();
    }
    for (values, pixels, words) in cases {
        fs::write(&path, tensor(values)).unwrap();
        for exact in [false, true] {
            let reading = Reading { exact, ..reading(Format::Npz, Some(pixels)) };
            let message = refusal(import(&path, &reading, |_| Ok(Some(classes()))));
            assert!(message.contains(words), "{words:?} is not in: {message}");
        }
    }
}
