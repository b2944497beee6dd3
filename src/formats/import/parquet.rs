//! Parquet files with an image and a label column, as Hugging Face's `datasets` writes them: one, or a folder of them.

use std::path::Path;

use super::encoded::Gathered;
use super::tensor::in_file;
use super::{Found, classes_of, files_of};
use crate::data::parquet::ParquetImages;
use crate::error::{Error, Result};

pub fn read(path: &Path, own_size: Option<usize>) -> Result<Found> {
    let (mut images, mut labels, mut names) = (Gathered::new(own_size), Vec::new(), None);
    for file in files_of(path, "parquet")? {
        let rows = ParquetImages::open(&file)?;
        names = names.or_else(|| rows.class_names());
        rows.for_each(|bytes, label| {
            let row = labels.len();
            labels.push(label);
            images.add(bytes).map_err(|what| Error::Failed(format!("{}: image {row} {what}", file.display())))
        })?;
    }
    let images = images.images().map_err(in_file(path))?;
    Ok(Found {
        images,
        labels: Some(labels),
        soft_labels: None,
        warnings: Vec::new(),
        classes: names.map(|names| classes_of(names, None)),
    })
}
