//! Sets in other programs' formats: what is exported comes back, what others wrote is read, and hostile files are refused.

mod fixtures;
mod hostile;
mod round_trip;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use distill::data::{Class, Dataset, ImageSet};
use distill::distilled::{DistilledSet, Provenance};
use distill::error::{Error, Result};
use distill::formats::{self, Format, Imported, Pixels, Reading, import};
use serde_json::Map;

/// A data set of three classes whose images may have any size.
fn dataset() -> Dataset {
    "folder:/birds".parse().unwrap()
}

fn classes() -> Vec<Class> {
    let class = |(name, id): (&str, &str)| Class { name: name.into(), id: id.into() };
    [("blue jay", "n01"), ("crane", "n02"), ("été", "n03")].map(class).to_vec()
}

/// `per_class` images of 4 x 4 in each of the three classes, all pixels different from their neighbours'.
fn set(per_class: usize) -> DistilledSet {
    let n = 3 * per_class;
    let images = ImageSet {
        pixels: (0..n * 48).map(|i| (i * 89 % 256) as u8).collect(),
        labels: (0..n).map(|i| (i / per_class) as u16).collect(),
        size: 4,
        classes: Arc::new(classes()),
    };
    let provenance = Provenance { dataset: dataset(), method: "made by a test".into(), seed: 5, details: Map::new() };
    DistilledSet::new(images, (0..n).map(|i| (i % per_class) as u32).collect(), provenance).unwrap()
}

fn reading(format: Format, pixels: Option<Pixels>) -> Reading {
    Reading { dataset: dataset(), format, pixels, normalization: None, labels: None, exact: false }
}

fn export(set: &DistilledSet, format: Format, path: &Path, overwrite: bool) -> Result<()> {
    let images = &mut (0..set.images.len()).map(|i| Ok(set.images.image(i).to_vec()));
    formats::export(&set.listing(), images, format, path, overwrite)
}

/// Imports with the data set at hand.
fn read(path: &Path, format: Format, pixels: Option<Pixels>) -> Result<Imported> {
    import(path, &reading(format, pixels), |_| Ok(Some(classes())))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

fn refusal(result: Result<Imported>) -> String {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

/// Checks that a message has all of `words`.
fn assert_says(error: &Error, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}
