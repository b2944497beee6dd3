//! Writing the files of a distilled set as its pixels come: no more of them is held than one chunk and the grid's.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Write};
use std::path::Path;

use image::{ExtendedColorType, ImageFormat};
use rayon::prelude::*;
use serde::Serialize;

use super::names::FileNames;
use super::{Listing, TENSOR_FILE, card, grid, tensor_file};
use crate::data::ImageSet;
use crate::error::{AtPath, Error, Result};
use crate::{fail, interrupt};

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

/// Writes the files into `folder`, which must be empty. `chunks` give the listing's images in its order, some at a time:
/// (n, H, W, 3).
pub fn write_files(folder: &Path, listing: &Listing, chunks: &mut dyn Iterator<Item = Result<Vec<u8>>>) -> Result<()> {
    let mut files = Files::create(folder, listing)?;
    for chunk in chunks {
        interrupt::check()?;
        files.add(&chunk?)?;
    }
    files.finish()
}

/// A distilled folder that is being written.
struct Files<'a> {
    folder: &'a Path,
    listing: &'a Listing,
    names: FileNames,
    tensors: tensor_file::Writer,
    manifest: BufWriter<File>,
    /// Images of each class so far.
    places: Vec<usize>,
    /// The images of the grid.
    shown: ImageSet,
    /// Images so far.
    done: usize,
}

impl<'a> Files<'a> {
    fn create(folder: &'a Path, listing: &'a Listing) -> Result<Self> {
        let names = FileNames::new(&listing.classes, listing.ipc());
        for (label, count) in listing.images_per_class().into_iter().enumerate() {
            if count > 0 {
                let class = folder.join(names.folder(label as u16));
                fs::create_dir_all(&class).at(&class)?;
            }
        }
        let manifest = folder.join("manifest.jsonl");
        let classes = listing.classes.clone();
        Ok(Files {
            folder,
            listing,
            names,
            tensors: tensor_file::Writer::create(&folder.join(TENSOR_FILE), listing)?,
            manifest: BufWriter::new(File::create(&manifest).at(&manifest)?),
            places: vec![0; classes.len()],
            shown: ImageSet { pixels: Vec::new(), labels: Vec::new(), size: listing.size, classes },
            done: 0,
        })
    }

    /// The next images.
    fn add(&mut self, pixels: &[u8]) -> Result<()> {
        let images: Vec<&[u8]> = pixels.chunks_exact(self.listing.image_len()).collect();
        let Some(labels) = self.listing.labels.get(self.done..self.done + images.len()) else {
            fail!("the set lists {} images, but more were given", self.listing.len());
        };
        let mut files = Vec::new();
        for ((i, &label), image) in (self.done..).zip(labels).zip(&images) {
            let place = self.places[usize::from(label)];
            self.places[usize::from(label)] += 1;
            let file = self.names.file(label, place);
            self.describe(&file, label, self.listing.indices[i])?;
            if place < grid::COLUMNS {
                self.shown.pixels.extend_from_slice(image);
                self.shown.labels.push(label);
            }
            files.push(file);
        }
        self.done += images.len();
        self.tensors.images(pixels)?;
        let size = self.listing.size as u32;
        files.par_iter().zip(images).try_for_each(|(file, image)| {
            let path = self.folder.join(file);
            image::save_buffer_with_format(&path, image, size, size, ExtendedColorType::Rgb8, ImageFormat::Png)
                .map_err(|e| Error::Failed(format!("{}: cannot be written ({e})", path.display())))
        })
    }

    /// A line of the manifest.
    fn describe(&mut self, file: &str, label: u16, index: u32) -> Result<()> {
        let class = &self.listing.classes[usize::from(label)];
        let seed = self.listing.provenance.seed;
        let line = Line { file, label, class_name: &class.name, class_id: &class.id, seed, index };
        let line = serde_json::to_string(&line).map_err(|e| Error::Failed(format!("manifest.jsonl: {e}")))?;
        writeln!(self.manifest, "{line}").at(&self.folder.join("manifest.jsonl"))
    }

    fn finish(mut self) -> Result<()> {
        if self.done != self.listing.len() {
            fail!("the set lists {} images, but {} were given", self.listing.len(), self.done);
        }
        self.tensors.finish()?;
        self.manifest.flush().at(&self.folder.join("manifest.jsonl"))?;
        let mut picture = Cursor::new(Vec::new());
        grid(&self.shown)
            .write_to(&mut picture, ImageFormat::Png)
            .map_err(|e| Error::Failed(format!("grid.png: cannot be encoded ({e})")))?;
        for (name, bytes) in
            [("README.md", card::card(self.listing, &card::DISTILLED).into_bytes()), ("grid.png", picture.into_inner())]
        {
            let path = self.folder.join(name);
            fs::write(&path, bytes).at(&path)?;
        }
        Ok(())
    }
}
