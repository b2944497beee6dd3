//! The pictures of a run as data: URIs.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageFormat, ImageReader, Limits, RgbImage};
use serde::Serialize;

use super::read::Problems;
use crate::distilled::Reader;
use crate::error::{Error, Result, guard};

/// Classes of the sample grid, and images of each.
const CLASSES: usize = 100;
const IMAGES: usize = 10;
/// Images of up to this many pixels a side are PNG, larger ones JPEG and at most `SIDE` wide, so that the page stays small.
const LOSSLESS: usize = 32;
const SIDE: u32 = 64;
const QUALITY: u8 = 88;
/// A picture file of more bytes is shown as JPEG, and one of more pixels a side smaller.
const LARGEST: usize = 1 << 20;
const WIDEST: u32 = 1600;

/// The images of one class.
#[derive(Serialize)]
pub struct ClassRow {
    pub name: String,
    /// data: URIs.
    pub images: Vec<String>,
}

/// The first images of the first classes that have any, by class.
pub fn samples(set: Reader) -> Result<Vec<ClassRow>> {
    let mut set = set;
    let (labels, classes, size) = (set.listing.labels.clone(), set.listing.classes.clone(), set.listing.size);
    let mut rows: Vec<ClassRow> =
        classes.iter().map(|class| ClassRow { name: class.name.clone(), images: Vec::new() }).collect();
    for label in labels {
        let pixels = set.image()?;
        let started = rows.iter().filter(|row| !row.images.is_empty()).count();
        let row = &mut rows[usize::from(label)];
        if row.images.len() < IMAGES && (started < CLASSES || !row.images.is_empty()) {
            row.images.push(uri_of(&pixels, size)?);
        }
    }
    rows.retain(|row| !row.images.is_empty());
    Ok(rows)
}

/// An image (size, size, 3).
fn uri_of(pixels: &[u8], size: usize) -> Result<String> {
    let image = RgbImage::from_raw(size as u32, size as u32, pixels.to_vec())
        .ok_or_else(|| Error::Failed("an image of the set has too few pixels".into()))?;
    if size <= LOSSLESS { png(&image) } else { jpeg(&image, SIDE) }
}

/// The picture file at `path`; noted if it is there but cannot be shown.
pub fn file(path: &Path, problems: &mut Problems) -> Option<String> {
    let bytes = problems.bytes(path)?;
    let shown = decode(&bytes).and_then(|image| match bytes.len() > LARGEST {
        true => jpeg(&image, WIDEST),
        false => Ok(uri("png", &bytes)),
    });
    problems.note(shown.map_err(|e| Error::Failed(format!("{}: is no readable PNG file ({e})", path.display()))))
}

fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let read = || {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
        let mut limits = Limits::default();
        limits.max_alloc = Some(256 << 20);
        reader.limits(limits);
        reader.decode().map(|image| image.into_rgb8())
    };
    match guard(read) {
        Some(read) => read.map_err(|e| Error::Failed(e.to_string())),
        None => Err(Error::Failed("its decoder stopped".into())),
    }
}

fn png(image: &RgbImage) -> Result<String> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(uri("png", &bytes))
}

/// As JPEG, made smaller where it is wider than `widest`.
fn jpeg(image: &RgbImage, widest: u32) -> Result<String> {
    let width = image.width().min(widest);
    let height = (u64::from(image.height()) * u64::from(width) / u64::from(image.width().max(1))).max(1) as u32;
    let smaller = match width < image.width() {
        true => &imageops::resize(image, width, height, FilterType::CatmullRom),
        false => image,
    };
    let mut bytes = Vec::new();
    smaller
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))
        .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(uri("jpeg", &bytes))
}

fn uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", base64(bytes))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { digit.into() } else { '=' });
        }
    }
    out
}

/// The newest picture that a stage's training drew, with its step: `samples/STAGE-STEP.png`.
pub fn newest(samples: &Path, stage: &str) -> Option<(u64, PathBuf)> {
    let step = |path: &Path| {
        path.file_name()?.to_str()?.strip_prefix(stage)?.strip_prefix('-')?.strip_suffix(".png")?.parse().ok()
    };
    let entries = fs::read_dir(samples).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter_map(|path| Some((step(&path)?, path))).max()
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]; // RFC 4648, section 10
        for (length, expected) in expected.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), *expected);
        }
    }
}
