//! PNG and JPEG files, gathered into one set of square images of one size.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::tensor::Images;
use crate::interrupt;

/// Pixels, at most, of an image's side: larger ones are no distilled images.
const MOST_SIDE: u32 = 4096;
/// Bytes of all pixels, at most: a small file can unpack to very much.
const MOST_BYTES: usize = 4 << 30;

/// The images so far.
pub struct Gathered {
    pixels: Vec<u8>,
    /// Of the data set or else of the first image, once it is known.
    size: Option<u32>,
    most_bytes: usize,
}

impl Gathered {
    /// Takes images of a data set's `own_size` only, where it has one; else all must be as the first.
    pub fn new(own_size: Option<usize>) -> Self {
        Gathered { pixels: Vec::new(), size: own_size.map(|size| size as u32), most_bytes: MOST_BYTES }
    }

    /// Adds an encoded image, whose size is checked before it is unpacked. Errors are sentences about it.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        if interrupt::requested() {
            return Err("was not read".into()); // `import` tells why
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(MOST_SIDE);
        limits.max_image_height = Some(MOST_SIDE);
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
        reader.limits(limits);
        let unreadable = |e| format!("is no readable PNG or JPEG ({e})");
        let decoder = reader.into_decoder().map_err(unreadable)?;
        let (width, height) = decoder.dimensions();
        let size = *self.size.get_or_insert(width);
        if (width, height) != (size, size) || size == 0 {
            return Err(format!(
                "is {width}x{height}, expected {size}x{size} as the data set or the first one has it; resize them, or use the folder as a data set \
                 with --dataset folder:PATH"
            ));
        }
        if self.pixels.len() + 3 * (size * size) as usize > self.most_bytes {
            return Err(format!("is one too many: all pixels would fill more than {} MiB", self.most_bytes >> 20));
        }
        self.pixels.extend(DynamicImage::from_decoder(decoder).map_err(unreadable)?.into_rgb8().as_raw());
        Ok(())
    }

    pub fn images(self) -> Result<Images, String> {
        match self.size {
            Some(size) if !self.pixels.is_empty() => {
                Ok(Images { pixels: self.pixels, size: size as usize, clamped: 0.0, exact: None })
            }
            _ => Err("it holds no image".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};

    use super::*;

    #[test]
    fn images_of_another_size_and_too_many_are_refused() {
        let png = |size| {
            let mut bytes = Cursor::new(Vec::new());
            RgbImage::new(size, size).write_to(&mut bytes, ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        let mut own = Gathered::new(Some(32));
        let message = own.add(&png(4096)).unwrap_err();
        assert!(message.contains("is 4096x4096, expected 32x32"), "{message}");
        assert_eq!(own.images().err().unwrap(), "it holds no image");

        let mut few = Gathered { most_bytes: 3 * 3 * 4 * 4, ..Gathered::new(None) };
        (0..3).for_each(|_| few.add(&png(4)).unwrap());
        assert!(few.add(&png(4)).unwrap_err().contains("too many"));
    }
}
