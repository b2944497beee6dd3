//! Distilled sets: a few images a class with their provenance, and the folder they are kept in.
//!
//! ```text
//! distilled.safetensors        images u8 (N, 3, H, W), labels i64 (N), perhaps soft_labels f32 (N, views, classes), all
//!                              the rest in its metadata
//! train/<000_apple>/<0003>.png the same images
//! manifest.jsonl  README.md  grid.png
//! ```

mod batches;
mod card;
mod grid;
mod listing;
mod names;
mod place;
mod soft;
mod tensor_file;
mod write;

use std::fs;
use std::path::Path;

pub use batches::{Batch, Batches};
pub use card::{Contents, card, rights};
pub use grid::grid;
pub use listing::{Listing, Provenance};
pub use names::FileNames;
pub use place::{Staging, check_place};
pub use soft::SoftLabels;
pub use tensor_file::{Reader, is_foreign, safetensors_header};

use crate::data::ImageSet;
use crate::error::{AtPath, Result};
use crate::fail;

/// Images that are written at once.
const CHUNK: usize = 256;
/// The tensor file's name inside a distilled folder.
pub const TENSOR_FILE: &str = "distilled.safetensors";

/// Labelled images that stand for a data set, and where they come from.
#[derive(Clone, Debug)]
pub struct DistilledSet {
    /// In order of class. The class list is the data set's whole list, also where only some classes have images.
    pub images: ImageSet,
    /// (N): each image's index within its class: of the noise stream (seed, class, index), or of the real image.
    pub indices: Vec<u32>,
    /// Of the images in their order, where there are any.
    pub soft_labels: Option<SoftLabels>,
    pub provenance: Provenance,
}

impl DistilledSet {
    /// Puts the images in order of class, keeping their order within a class. An error if there is no image, or not one
    /// index for each.
    pub fn new(images: ImageSet, indices: Vec<u32>, provenance: Provenance) -> Result<Self> {
        if images.is_empty() || indices.len() != images.len() {
            fail!(
                "a distilled set needs images, and an index for each: {} images, {} indices",
                images.len(),
                indices.len()
            );
        }
        let order = images.by_class().concat();
        let indices = order.iter().map(|&i| indices[i]).collect();
        Ok(DistilledSet { images: images.subset(&order), indices, soft_labels: None, provenance })
    }

    /// Reads a distilled folder or its tensor file and checks that it is consistent, the folder's PNG files included.
    pub fn read(path: &Path) -> Result<Self> {
        let (listing, pixels) = open(path)?.pixels()?;
        let Listing { labels, indices, size, classes, soft_labels, provenance } = listing;
        Ok(DistilledSet { images: ImageSet { pixels, labels, size, classes }, indices, soft_labels, provenance })
    }

    /// Writes the whole set to `folder`, which appears complete or not at all; see [`Staging`].
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<()> {
        let chunks = self.images.pixels.chunks(CHUNK * self.images.image_len());
        Staging::open(folder, overwrite)?.finish(&self.listing(), &mut chunks.map(|chunk| Ok(chunk.to_vec())))
    }

    /// All but the pixels.
    pub fn listing(&self) -> Listing {
        Listing {
            labels: self.images.labels.clone(),
            indices: self.indices.clone(),
            size: self.images.size,
            classes: self.images.classes.clone(),
            soft_labels: self.soft_labels.clone(),
            provenance: self.provenance.clone(),
        }
    }
}

/// The name of the set at `path`: that of its folder, or of a tensor file that is called otherwise than in such a folder.
pub fn name_of(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or(path.to_path_buf());
    let named = match whole.parent().filter(|_| path.is_file()) {
        Some(folder) if whole.ends_with(TENSOR_FILE) => folder.file_name(),
        Some(_) => whole.file_stem(),
        None => whole.file_name(),
    };
    named.map_or_else(|| "set".into(), |name| name.to_string_lossy().into_owned())
}

/// Opens a distilled folder or its tensor file: reads the listing and checks that it is consistent, the folder's PNG files
/// included.
pub fn open(path: &Path) -> Result<Reader> {
    let file = if path.is_dir() { path.join(TENSOR_FILE) } else { path.to_path_buf() };
    if !file.is_file() {
        fail!(
            "{} holds no distilled set: expected a folder with {TENSOR_FILE}, or such a file; make one with distill sample",
            path.display()
        );
    }
    let reader = Reader::open(&file)?;
    if path.is_dir() {
        check_pngs(&reader.listing, path)?;
    }
    Ok(reader)
}

/// Checks that the folder's `train/` has as many PNG files of each class as the tensor file has images.
fn check_pngs(listing: &Listing, folder: &Path) -> Result<()> {
    let names = FileNames::new(&listing.classes, 1);
    for (label, expected) in listing.images_per_class().into_iter().enumerate() {
        let class = folder.join(names.folder(label as u16));
        let mut found = 0;
        if class.is_dir() {
            for entry in fs::read_dir(&class).at(&class)? {
                found += usize::from(entry.at(&class)?.path().extension().is_some_and(|e| e == "png"));
            }
        }
        if found != expected {
            fail!(
                "{} has {found} PNG files, but {TENSOR_FILE} has {expected} images of that class: one of them was changed; \
                 name the .safetensors file itself to use it alone, or sample again",
                class.display()
            );
        }
    }
    Ok(())
}
