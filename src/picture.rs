//! Grids of images as PNG files, for looking.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, RgbImage, imageops};

use crate::error::{Error, Result};
use crate::fs::write_atomic;

/// Pixels between images.
const GAP: u32 = 2;

/// Writes square RGB images, each `size` x `size` x 3 bytes, row by row in `columns`, each pixel `scale` times.
pub fn save_grid(path: &Path, images: &[&[u8]], size: usize, columns: usize, scale: u32) -> Result<()> {
    let side = size as u32 * scale;
    let columns = columns.max(1) as u32;
    let rows = (images.len() as u32).div_ceil(columns);
    let mut grid =
        RgbImage::from_pixel(columns * (side + GAP) + GAP, rows * (side + GAP) + GAP, image::Rgb([255, 255, 255]));
    for (i, pixels) in images.iter().enumerate() {
        let (row, column) = (i as u32 / columns, i as u32 % columns);
        if let Some(image) = RgbImage::from_raw(size as u32, size as u32, pixels.to_vec()) {
            let image = imageops::resize(&image, side, side, imageops::FilterType::Nearest);
            imageops::replace(
                &mut grid,
                &image,
                (GAP + column * (side + GAP)).into(),
                (GAP + row * (side + GAP)).into(),
            );
        }
    }
    write_atomic(path, &png(&grid, path)?)
}

/// The bytes of a PNG file.
fn png(image: &RgbImage, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|e| Error::Failed(format!("{}: cannot be encoded as PNG: {e}", path.display())))?;
    Ok(bytes)
}
