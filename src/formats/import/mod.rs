//! Reading the files of strangers. Nothing in them is run, and their sizes are believed only up to the file's length.

mod classes;
mod encoded;
mod imagefolder;
mod npz;
mod parquet;
mod pickle;
mod pt;
mod safetensors;
mod tensor;
mod webdataset;
mod zip;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, json};

pub use tensor::Pixels;

use super::Format;
use crate::data::{Class, Dataset, Normalization};
use crate::distilled::{DistilledSet, Provenance};
use crate::error::{AtPath, Result};
use crate::{fail, interrupt, usage};
use tensor::{Images, Labels, Soft};

/// What tensors and arrays are called in files, ours first.
const IMAGES: [&str; 3] = ["images", "data", "x"];
const LABELS: [&str; 3] = ["labels", "targets", "y"];
const SOFT_LABELS: [&str; 1] = ["soft_labels"];
const CLASSES: [&str; 2] = ["classes", "class_names"];
const CLASS_IDS: [&str; 1] = ["class_ids"];

/// How a file is to be read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The data set that the images stand for.
    pub dataset: Dataset,
    pub format: Format,
    /// What the numbers of a tensor are; None takes whole numbers only.
    pub pixels: Option<Pixels>,
    /// What [`Pixels::Normalized`] were normalized with; None is what protocols normalize the data set's images with.
    pub normalization: Option<Normalization>,
    /// A file of labels; None takes those of the file itself, or of one beside it.
    pub labels: Option<PathBuf>,
    /// Whether floating-point values are kept as they are, beside the pixels that they are rounded to.
    pub exact: bool,
}

/// Labelled images as a file holds them.
struct Found {
    images: Images,
    /// None for a bare tensor.
    labels: Option<Vec<i64>>,
    soft_labels: Option<Soft>,
    /// What people should know about it.
    warnings: Vec<String>,
    /// By the file's own labels, perhaps not by all, where it names them. An empty id is unknown.
    classes: Option<BTreeMap<i64, Class>>,
}

/// What was read, and what people should know about it.
pub struct Imported {
    pub set: DistilledSet,
    /// The set's images as exact as the file has them, if that was asked for and they are floating-point numbers:
    /// normalized, (N, H, W, 3).
    pub exact: Option<Vec<f32>>,
    pub warnings: Vec<String>,
}

/// Reads the set at `path`. `known` gives the data set's own classes, for images of a size, where it is at hand.
pub fn import(
    path: &Path,
    reading: &Reading,
    known: impl FnOnce(usize) -> Result<Option<Vec<Class>>>,
) -> Result<Imported> {
    if reading.labels.is_some() && !matches!(reading.format, Format::Pt | Format::Challenge) {
        usage!("--labels: only PyTorch files have their labels in another file");
    }
    let own_size = reading.dataset.own_size();
    let found = match reading.format {
        Format::Pt | Format::Challenge => pt::read(path, reading),
        Format::Npz => npz::read(path, reading),
        Format::Safetensors => safetensors::read(path, reading),
        Format::Parquet => parquet::read(path, own_size),
        Format::Webdataset => webdataset::read(path, own_size),
        Format::Imagefolder => imagefolder::read(path, own_size),
    };
    interrupt::check()?; // before the error of a reader that a signal ended
    let mut found = found?;
    let exact = found.images.exact.take();
    let size = found.images.size;
    reading.dataset.check_size(size)?;
    let mut warnings = std::mem::take(&mut found.warnings);
    if found.images.clamped > 0.0 && exact.is_none() {
        warnings.push(format!(
            "{:.2} % of the values lay outside of what a pixel can show and were clamped",
            100.0 * found.images.clamped
        ));
    }
    let (images, soft_labels) = classes::label(found, known(size)?, &reading.dataset, path, &mut warnings)?;
    let order = images.by_class().concat(); // that of a distilled set
    let (len, classes) = (images.image_len(), images.classes.len());
    if soft_labels.as_ref().is_some_and(|soft| soft.views > 1) && !order.is_sorted() {
        fail!(
            "{}: its soft labels are of several views, which are drawn by an image's place in the file, so its images must \
             stand in the order of their classes, as {} lists these; sort it, or keep view 0 alone",
            path.display(),
            reading.dataset
        );
    }
    let exact = exact.map(|exact| order.iter().flat_map(|&i| &exact[i * len..][..len]).copied().collect());
    let soft_labels = soft_labels.map(|soft| soft.subset(&order, classes));
    let images = images.subset(&order);
    let mut indices = vec![0; images.len()];
    for of_class in images.by_class() {
        for (index, i) in of_class.into_iter().enumerate() {
            indices[i] = index as u32;
        }
    }
    let file = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
    let mut details = Map::new();
    details.insert("file".into(), json!(file));
    details.insert("distill".into(), json!(env!("CARGO_PKG_VERSION")));
    if !warnings.is_empty() {
        details.insert("warnings".into(), json!(warnings));
    }
    let provenance =
        Provenance { dataset: reading.dataset.clone(), method: format!("imported from {file}"), seed: 0, details };
    let set = DistilledSet { soft_labels, ..DistilledSet::new(images, indices, provenance)? };
    Ok(Imported { set, exact, warnings })
}

impl Format {
    /// The format of what is at `path`, by its name or by what a folder holds.
    pub fn guess(path: &Path) -> Result<Format> {
        if path.is_dir() {
            let holds = |extension| files_of(path, extension).is_ok();
            return Ok(match () {
                () if holds("tar") => Format::Webdataset,
                () if holds("parquet") => Format::Parquet,
                () => Format::Imagefolder,
            });
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("pt" | "pth") => Ok(Format::Pt),
            Some("npz") => Ok(Format::Npz),
            Some("safetensors") => Ok(Format::Safetensors),
            Some("parquet") => Ok(Format::Parquet),
            Some("tar") => Ok(Format::Webdataset),
            _ => usage!("{}: its name does not say what it is; name it with --format", path.display()),
        }
    }
}

impl Reading {
    /// What was said about the numbers: a challenge file needs no words.
    pub fn pixels(&self) -> Option<Pixels> {
        self.pixels.or((self.format == Format::Challenge).then_some(Pixels::Normalized))
    }
}

/// (hard, soft) labels out of a file's `labels` and `soft_labels`. A file with soft ones alone gives each image its likeliest
/// class.
fn both_labels(labels: Option<Labels>, soft: Option<Soft>) -> (Option<Vec<i64>>, Option<Soft>) {
    match (labels, soft) {
        (Some(Labels::Hard(hard)), soft) => (Some(hard), soft),
        (Some(Labels::Soft(found)), soft) => both_labels(None, soft.or(Some(found))),
        (None, Some(soft)) => {
            let likeliest = soft.labels.likeliest(soft.classes).into_iter().map(|class| class as i64);
            (Some(likeliest.collect()), Some(soft))
        }
        (None, None) => (None, None),
    }
}

/// Classes out of a file's lists.
fn classes_of(names: Vec<String>, ids: Option<Vec<String>>) -> BTreeMap<i64, Class> {
    let mut ids = ids.unwrap_or_default().into_iter();
    (0..).zip(names.into_iter().map(|name| Class { name, id: ids.next().unwrap_or_default() })).collect()
}

/// The file at `path`, or a folder's files with this extension in order of name; an error if there is none.
fn files_of(path: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).at(path)? {
        let file = entry.at(path)?.path();
        if file.is_file() && file.extension().is_some_and(|e| e == extension) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        fail!("{}: expected .{extension} files in it", path.display());
    }
    Ok(files)
}
