//! Image files of any size as RGB, and squares of one size cut from them.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{ImageReader, Limits, RgbImage};

use crate::error::{AtPath, Error, Result};
use crate::fail;

/// Largest file, and most bytes of pixels that a header may ask for: 89 million RGB pixels.
const MAX_BYTES: u64 = 256 << 20;
/// Largest height and width in pixels.
const MAX_SIDE: u32 = 1 << 14;

/// Decodes the PNG or JPEG file at `path`, whatever its extension says. Grey becomes three equal channels, alpha is
/// dropped, 16 bits a channel are rounded to 8; a rotation in the file's EXIF data is not carried out.
pub(super) fn file(path: &Path) -> Result<RgbImage> {
    let file = File::open(path).at(path)?;
    let bytes = file.metadata().at(path)?.len();
    if bytes > MAX_BYTES {
        fail!("{}: {bytes} bytes, more than the {MAX_BYTES} of the largest image that is read", path.display());
    }
    decode(BufReader::new(file)).map_err(|problem| {
        Error::Failed(format!("{}: not a readable PNG or JPEG ({problem}); mend or remove the file", path.display()))
    })
}

/// [`file`] for bytes that stand inside the file at `path`.
#[cfg(feature = "hub")]
pub(super) fn bytes(bytes: &[u8], path: &Path) -> Result<RgbImage> {
    decode(std::io::Cursor::new(bytes)).map_err(|problem| {
        Error::Failed(format!("{}: holds an image that is no readable PNG or JPEG ({problem})", path.display()))
    })
}

fn decode(reader: impl BufRead + Seek) -> image::ImageResult<RgbImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::new(reader).with_guessed_format()?;
    reader.limits(limits);
    Ok(reader.decode()?.into_rgb8())
}

/// Writes the largest centred square of `image`, resized to `size` x `size` pixels, to `out` (H, W, 3).
///
/// Cut before it is resized, so that a very long image needs no memory beyond its own. The filter is the bicubic one
/// (Keys 1981, a = -0.5), widened where the image shrinks, so that nothing aliases; a square of `size` stays as it is.
pub(super) fn square(image: &RgbImage, size: usize, out: &mut [u8]) {
    let (width, height) = image.dimensions();
    let side = width.min(height);
    let cut = imageops::crop_imm(image, (width - side) / 2, (height - side) / 2, side, side);
    let resized = imageops::resize(&*cut, size as u32, size as u32, FilterType::CatmullRom);
    out.copy_from_slice(resized.as_raw());
}
