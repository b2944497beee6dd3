//! A picture of a labelled set for looking: a row a class.

use image::{Rgb, RgbImage};

use crate::data::ImageSet;

/// Columns of images for a class, at most.
pub const COLUMNS: usize = 10;
/// Pixels: the width that side-by-side blocks may fill, which is that of twenty 64 x 64 images, and the height above which
/// they are begun.
const SIDE: usize = 1320;
const GAP: usize = 1;

/// Up to ten images of each class that has any, a row a class, on white. Small images are shown twice as large (nearest
/// neighbour) where there are few classes; many classes fill side-by-side blocks, from top to bottom.
pub fn grid(set: &ImageSet) -> RgbImage {
    let mut rows = set.by_class();
    rows.retain(|images| !images.is_empty());
    let columns = rows.iter().map(|images| images.len().min(COLUMNS)).max().unwrap_or(1);
    let zoom = if set.size <= 64 && rows.len() <= 20 { 2 } else { 1 };
    let cell = set.size * zoom + GAP;
    let block = columns * cell + 2 * GAP;
    let blocks = (rows.len() * cell).div_ceil(SIDE).clamp(1, (SIDE / block).max(1));
    let height = rows.len().div_ceil(blocks).max(1);
    let mut picture = RgbImage::from_pixel((blocks * block) as u32, (height * cell) as u32, Rgb([255; 3]));
    for (row, images) in rows.iter().enumerate() {
        for (column, &i) in images.iter().take(COLUMNS).enumerate() {
            let corner = (row / height * block + column * cell, row % height * cell);
            paste(&mut picture, set.image(i), set.size, zoom, corner);
        }
    }
    picture
}

fn paste(picture: &mut RgbImage, image: &[u8], size: usize, zoom: usize, (left, top): (usize, usize)) {
    for y in 0..size * zoom {
        for x in 0..size * zoom {
            let at = (y / zoom * size + x / zoom) * 3;
            picture.put_pixel((left + x) as u32, (top + y) as u32, Rgb([image[at], image[at + 1], image[at + 2]]));
        }
    }
}
