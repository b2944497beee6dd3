//! Image folders: a folder of PNG or JPEG files for each class, perhaps inside of `train/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Found;
use super::encoded::Gathered;
use crate::data::Class;
use crate::error::{AtPath, Error, Result};
use crate::fail;

/// What is used of a line of `manifest.jsonl`, which our own folders have.
#[derive(Deserialize)]
struct Line {
    file: String,
    class_name: String,
    class_id: String,
}

/// Reads the folders in order of their names, which gives the labels; the manifest, where there is one, gives the classes'
/// own names, else they are called as their folders.
pub fn read(path: &Path, own_size: Option<usize>) -> Result<Found> {
    let train = path.join("train");
    let root = if train.is_dir() { train } else { path.to_path_buf() };
    let mut named = manifest(&path.join("manifest.jsonl"))?;
    let (mut images, mut labels, mut classes) = (Gathered::new(own_size), Vec::new(), BTreeMap::new());
    for folder in sorted(&root)?.into_iter().filter(|inside| inside.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let label = classes.len() as i64;
        for file in sorted(&folder)?.into_iter().filter(|file| is_image(file)) {
            let bytes = fs::read(&file).at(&file)?;
            images.add(&bytes).map_err(|what| Error::Failed(format!("{}: the image {what}", file.display())))?;
            labels.push(label);
        }
        classes.insert(label, named.remove(&name).unwrap_or(Class { name, id: String::new() }));
    }
    if labels.is_empty() {
        fail!("{}: expected a folder of PNG or JPEG files for each class", root.display());
    }
    let images = images.images().map_err(super::tensor::in_file(path))?;
    Ok(Found { images, labels: Some(labels), soft_labels: None, warnings: Vec::new(), classes: Some(classes) })
}

fn is_image(file: &Path) -> bool {
    let extension = file.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    extension.is_some_and(|e| ["png", "jpg", "jpeg"].contains(&e.as_str()))
}

/// The class of each folder of images, by the folder's name.
fn manifest(path: &Path) -> Result<BTreeMap<String, Class>> {
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(path).at(path)?;
    let mut classes = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let Ok(Line { file, class_name: name, class_id: id }) = serde_json::from_str(line) else {
            fail!(
                "{}, line {}: expected file, class_name and class_id; remove the file to go without",
                path.display(),
                number + 1
            );
        };
        if let Some(folder) = Path::new(&file).parent().and_then(Path::file_name) {
            classes.insert(folder.to_string_lossy().into_owned(), Class { name, id });
        }
    }
    Ok(classes)
}

/// What is in a folder, in order of name.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut inside = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        inside.push(entry.at(folder)?.path());
    }
    inside.sort();
    Ok(inside)
}
