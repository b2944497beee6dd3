//! Parquet files as Hugging Face's `datasets` writes them: one made by it (scripts/make_parquet_fixture.py), and damaged
//! copies.

use std::fs;
use std::path::{Path, PathBuf};

use distill::data::parquet::ParquetImages;
use distill::error::Result;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images.parquet")
}

fn read(path: &Path) -> Result<Vec<(Vec<u8>, i64)>> {
    let mut rows = Vec::new();
    ParquetImages::open(path)?.for_each(|bytes, label| {
        rows.push((bytes.to_vec(), label));
        Ok(())
    })?;
    Ok(rows)
}

#[test]
fn columns_are_chosen_by_name_and_pixels_stand_upright() {
    let file = ParquetImages::open(&fixture()).unwrap();
    assert_eq!(file.rows(), 6);
    assert_eq!(file.class_names().unwrap(), ["apple", "bear", "train"], "of fine_label, not of coarse_label");
    let rows = read(&fixture()).unwrap();
    assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [2, 0, 1, 2, 0, 1]);
    for (i, (bytes, _)) in rows.iter().enumerate() {
        let image = image::load_from_memory(bytes).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (4, 4));
        for (x, y, pixel) in image.enumerate_pixels() {
            assert_eq!(pixel.0.map(u32::from), [40 * i as u32, 60 * y, 60 * x]);
        }
    }
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.parquet");
    let whole = fs::read(fixture()).unwrap();
    for cut in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("damaged.parquet"), "{error}");
    }
    // A flipped bit may go unnoticed, as in a pixel; it must never be a panic.
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        let _ = read(&path);
    }
}
