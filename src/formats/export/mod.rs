//! Writing. Images come and go one by one, so that a set of any size can be written. The same set gives the same bytes,
//! whenever and wherever it is written.

mod challenge;
mod imagefolder;
mod npz;
mod parquet;
mod place;
mod pt;
mod webdataset;
mod zip;

use std::fs;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

pub use place::{check_apart, check_place};

use super::Format;
use crate::distilled::{Listing, Staging, TENSOR_FILE};
use crate::error::{AtPath, Result};
use crate::fs::{folder_of, write_atomic_with};
use crate::{interrupt, usage};

/// A set's images in its order, each (H, W, 3).
type Images<'a> = &'a mut dyn Iterator<Item = io::Result<Vec<u8>>>;

/// Writes a set to `path`, which appears complete or not at all. `images` are the listing's in its order, (H, W, 3) each.
///
/// A path that exists is refused, unless `overwrite` is given and it is an earlier export.
pub fn export(
    set: &Listing,
    images: &mut dyn Iterator<Item = Result<Vec<u8>>>,
    format: Format,
    path: &Path,
    overwrite: bool,
) -> Result<()> {
    let check = || check_place(path, format, overwrite);
    check()?;
    if format == Format::Challenge {
        challenge::check(set)?;
    }
    let parent = folder_of(path);
    fs::create_dir_all(parent).at(parent)?;
    let images: Images = &mut images.map(|image| interrupt::check().and(image).map_err(io::Error::other));
    match format {
        Format::Pt => write_file(path, |out| pt::write(set, images, out)),
        Format::Npz => write_file(path, |out| npz::write(set, images, out)),
        Format::Parquet => write_file(path, |out| parquet::write(set, images, out)),
        Format::Challenge => write_file(path, |out| challenge::write(set, images, out)),
        Format::Webdataset => write_folder(path, &check, |folder| webdataset::write(set, images, folder)),
        Format::Imagefolder => write_folder(path, &check, |folder| imagefolder::write(set, images, folder)),
        Format::Safetensors => {
            usage!("--format safetensors: a distilled folder's {TENSOR_FILE} is that already; copy it")
        }
    }
}

/// A file's content, written bit by bit.
trait Sink: Write + Seek + Send {}
impl<T: Write + Seek + Send> Sink for T {}

fn write_file(path: &Path, content: impl FnOnce(&mut dyn Sink) -> io::Result<()>) -> Result<()> {
    write_atomic_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        content(&mut out)?;
        out.flush()
    })
}

/// Fills a folder beside `path`, then puts it there.
fn write_folder(
    path: &Path,
    check: &dyn Fn() -> Result<()>,
    content: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<()> {
    Staging::checked(path, check)?.fill(|folder| content(folder).at(path))
}

/// An image (H, W, 3) as (3, H, W).
fn planes(image: &[u8]) -> Vec<u8> {
    (0..3).flat_map(|c| image.iter().skip(c).step_by(3)).copied().collect()
}

/// An image (H, W, 3) as a PNG file.
fn png(image: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image, size as u32, size as u32, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(bytes)
}

/// The f64 nearest to the shortest decimal of an f32: 0.5071, not 0.507099986.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
