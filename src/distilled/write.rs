//! Writing a distilled folder: built beside its place, synced, then renamed into it.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::ImageFormat;
use rayon::prelude::*;
use serde::Serialize;
use tempfile::TempDir;

use super::{DistilledSet, TENSOR_FILE, card, class_folder, grid, image_files, tensor_file};
use crate::error::{AtPath, Error, Result};
use crate::fs::{folder_of, sync_folder, sync_tree};
use crate::{fail, usage};

/// A line of `manifest.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    label: u16,
    class_name: &'a str,
    class_id: &'a str,
    seed: u64,
    index: u32,
}

impl DistilledSet {
    /// Writes the whole set to `folder`, which appears complete or not at all.
    ///
    /// A folder that holds anything is refused, unless `overwrite` is given and it is a distilled folder: that one is
    /// moved aside, and only removed when the new one stands in its place.
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<()> {
        check_place(folder, overwrite)?;
        let parent = folder_of(folder);
        let refused = |e: std::io::Error| {
            Error::Failed(format!(
                "cannot write to {}: {e}; change its permissions, or choose another --run",
                parent.display()
            ))
        };
        fs::create_dir_all(parent).map_err(refused)?;
        let staging = tempfile::Builder::new().prefix(".distilled-").tempdir_in(parent).map_err(refused)?;
        let new = staging.path().join("new");
        fs::create_dir(&new).at(&new)?;
        self.write_files(&new)?;
        sync_tree(&new)?;
        put_in_place(staging, folder)?;
        sync_folder(parent)
    }

    fn write_files(&self, folder: &Path) -> Result<()> {
        let images = &self.images;
        for (label, count) in self.images_per_class().into_iter().enumerate() {
            if count > 0 {
                let class = folder.join("train").join(class_folder(&images.classes, label));
                fs::create_dir_all(&class).at(&class)?;
            }
        }
        let files = image_files(self);
        files.par_iter().enumerate().try_for_each(|(i, file)| {
            let path = folder.join(file);
            let (pixels, size) = (images.image(i), images.size as u32);
            image::save_buffer_with_format(&path, pixels, size, size, image::ExtendedColorType::Rgb8, ImageFormat::Png)
                .map_err(|e| Error::Failed(format!("{}: cannot be written ({e})", path.display())))
        })?;
        let mut picture = Cursor::new(Vec::new());
        grid(images)
            .write_to(&mut picture, ImageFormat::Png)
            .map_err(|e| Error::Failed(format!("grid.png: cannot be encoded ({e})")))?;
        let contents = [
            (TENSOR_FILE, tensor_file::encode(self)?),
            ("manifest.jsonl", self.manifest(&files)?.into_bytes()),
            ("README.md", card::card(self).into_bytes()),
            ("grid.png", picture.into_inner()),
        ];
        for (name, bytes) in contents {
            let path = folder.join(name);
            fs::write(&path, bytes).at(&path)?;
        }
        Ok(())
    }

    fn manifest(&self, files: &[String]) -> Result<String> {
        let mut text = String::new();
        for (i, file) in files.iter().enumerate() {
            let label = self.images.labels[i];
            let class = &self.images.classes[usize::from(label)];
            let (seed, index) = (self.provenance.seed, self.indices[i]);
            let line = Line { file, label, class_name: &class.name, class_id: &class.id, seed, index };
            text += &serde_json::to_string(&line).map_err(|e| Error::Failed(format!("manifest.jsonl: {e}")))?;
            text.push('\n');
        }
        Ok(text)
    }
}

/// Refuses a place that holds something which writing would destroy.
pub fn check_place(folder: &Path, overwrite: bool) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    if !folder.is_dir() {
        usage!("{} is a file, expected a folder; choose another --name", folder.display());
    }
    if fs::read_dir(folder).at(folder)?.next().is_none() {
        return Ok(());
    }
    if !overwrite {
        usage!("{} exists and is not empty; replace it with --overwrite, or choose another --name", folder.display());
    }
    if !folder.join(TENSOR_FILE).is_file() {
        usage!(
            "{} holds something else than a distilled set and is left alone; choose another --name",
            folder.display()
        );
    }
    Ok(())
}

/// Renames `staging`/new to `folder`, moving what is there to `staging`/old, which goes with `staging` at the end.
fn put_in_place(staging: TempDir, folder: &Path) -> Result<()> {
    let (new, old) = (staging.path().join("new"), staging.path().join("old"));
    let replaces = folder.exists();
    if replaces {
        fs::rename(folder, &old).at(folder)?;
    }
    let Err(error) = fs::rename(&new, folder) else { return Ok(()) };
    if replaces && fs::rename(&old, folder).is_err() {
        let kept = staging.keep();
        fail!("{}: {error}; what was there is kept in {}", folder.display(), kept.join("old").display());
    }
    Err(error).at(folder)
}
