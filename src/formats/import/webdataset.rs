//! WebDataset archives: entries that share a name up to its first dot are a sample, with an image, a `.cls` label and
//! perhaps a `.json` that names the class.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use tar::{Archive, Entry, EntryType};

use super::encoded::Gathered;
use super::tensor::in_file;
use super::{Found, files_of};
use crate::data::Class;
use crate::error::{AtPath, Result};
use crate::fail;

/// Bytes of an entry, at most.
const MOST_BYTES: u64 = 64 << 20;

/// What a sample's JSON may say; other keys are passed over.
#[derive(Deserialize)]
struct About {
    class_name: Option<String>,
    #[serde(default)]
    class_id: String,
}

struct Samples {
    images: Gathered,
    labels: Vec<i64>,
    classes: BTreeMap<i64, Class>,
}

/// A sample that is being gathered, by the extensions of its files.
#[derive(Default)]
struct Sample {
    key: String,
    files: BTreeMap<String, Vec<u8>>,
}

/// Reads an archive, or all of a folder in order of their names.
pub fn read(path: &Path, own_size: Option<usize>) -> Result<Found> {
    let mut samples = Samples { images: Gathered::new(own_size), labels: Vec::new(), classes: BTreeMap::new() };
    for file in files_of(path, "tar")? {
        let refuse = in_file(&file);
        let mut archive = Archive::new(BufReader::new(File::open(&file).at(&file)?));
        let mut sample = Sample::default();
        for entry in archive.entries().at(&file)? {
            let entry = entry.at(&file)?;
            if entry.header().entry_type() == EntryType::Directory {
                continue;
            }
            let (key, extension, bytes) = content(entry, &file)?;
            if key != sample.key {
                samples.add(std::mem::take(&mut sample)).map_err(&refuse)?;
                sample.key = key;
            }
            sample.files.insert(extension, bytes);
        }
        samples.add(sample).map_err(&refuse)?;
    }
    let Samples { images, labels, classes } = samples;
    let images = images.images().map_err(in_file(path))?;
    Ok(Found {
        images,
        labels: Some(labels),
        soft_labels: None,
        warnings: Vec::new(),
        classes: Some(classes).filter(|classes| !classes.is_empty()),
    })
}

/// (key, extension, bytes) of an entry. Only plain files are taken: a link or a sparse file is no part of a sample.
fn content(entry: Entry<impl Read>, file: &Path) -> Result<(String, String, Vec<u8>)> {
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let kind = entry.header().entry_type();
    if kind != EntryType::Regular || entry.size() > MOST_BYTES {
        fail!(
            "{}: {path} is of type {kind:?} with {} bytes, expected a plain file of at most {MOST_BYTES}",
            file.display(),
            entry.size()
        );
    }
    let size = entry.size();
    let mut bytes = Vec::new();
    entry.take(MOST_BYTES).read_to_end(&mut bytes).at(file)?;
    if bytes.len() as u64 != size {
        fail!("{}: {path} is cut off; get the file again", file.display());
    }
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = path[name_at..].find('.').map_or(path.len(), |dot| name_at + dot);
    Ok((path[..dot].to_string(), path[dot..].trim_start_matches('.').to_lowercase(), bytes))
}

impl Samples {
    /// Adds a sample, unless it is the empty one before the first.
    fn add(&mut self, sample: Sample) -> std::result::Result<(), String> {
        let Sample { key, files } = sample;
        if files.is_empty() {
            return Ok(());
        }
        let Some(image) = ["png", "jpg", "jpeg"].iter().find_map(|extension| files.get(*extension)) else {
            return Err(format!("sample {key} has no .png or .jpg"));
        };
        let text = files.get("cls").map(|bytes| String::from_utf8_lossy(bytes).trim().to_string());
        let Some(label) = text.as_deref().and_then(|text| text.parse::<i64>().ok()) else {
            return Err(format!("sample {key} has {text:?} in its .cls, expected a label"));
        };
        self.images.add(image).map_err(|what| format!("the image of sample {key} {what}"))?;
        self.labels.push(label);
        let about = files.get("json").and_then(|bytes| serde_json::from_slice::<About>(bytes).ok());
        if let Some(About { class_name: Some(name), class_id: id }) = about {
            let class = Class { name, id };
            let first = self.classes.entry(label).or_insert_with(|| class.clone());
            if *first != class {
                return Err(format!("label {label} is {:?} in sample {key}, but {:?} before", class.name, first.name));
            }
        }
        Ok(())
    }
}
