//! PNG and JPEG files, gathered into one set of square images of one size.

use std::io::Cursor;

use image::{ImageReader, Limits};

use super::tensor::Images;

/// Pixels, at most, of an image's side: larger ones are no distilled images.
const MOST_SIDE: u32 = 4096;

/// The images so far.
#[derive(Default)]
pub struct Gathered {
    pixels: Vec<u8>,
    size: Option<u32>,
}

impl Gathered {
    /// Adds an encoded image. Errors are sentences about it.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut limits = Limits::default();
        limits.max_image_width = Some(MOST_SIDE);
        limits.max_image_height = Some(MOST_SIDE);
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
        reader.limits(limits);
        let image = reader.decode().map_err(|e| format!("is no readable PNG or JPEG ({e})"))?.into_rgb8();
        let (width, height) = image.dimensions();
        let size = *self.size.get_or_insert(width);
        if (width, height) != (size, size) || size == 0 {
            return Err(format!(
                "is {width}x{height}, expected {size}x{size} as the first one; resize them, or use the folder as a data set \
                 with --dataset folder:PATH"
            ));
        }
        self.pixels.extend(image.as_raw());
        Ok(())
    }

    pub fn images(self) -> Result<Images, String> {
        match self.size {
            Some(size) => Ok(Images { pixels: self.pixels, size: size as usize, clamped: 0.0 }),
            None => Err("it holds no image".into()),
        }
    }
}
