//! The augmentations of the challenge's evaluator: differentiable Siamese augmentation (Zhao and Bilen 2021), used
//! without the Siamese part.
//!
//! Each batch goes through ONE kind, drawn uniformly, with parameters of its own for each image. Images are normalized
//! pixels (B, H, W, 3) with H = W, and nothing is clamped.

use std::f32::consts::PI;

use rayon::prelude::*;

#[cfg(any(feature = "cuda", cuda_emulated))]
use crate::ops::cuda::augment::{Change, mirrored};
use crate::rng::Rng;

/// Largest shift of a crop, as a part of the side.
const CROP_SHIFT: f32 = 0.125;
/// Side of the cutout's square, as a part of the image's.
const CUTOUT_SIDE: f32 = 0.5;
/// A scale lies in [1 / MAX_SCALE, MAX_SCALE).
const MAX_SCALE: f32 = 1.2;
/// Largest rotation to either side, in radians: 15 degrees.
const MAX_ANGLE: f32 = 15.0 / 180.0 * PI;

/// One kind of augmentation with the parameters of each image of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Augmentation {
    Color(Vec<Color>),
    /// Rows and columns that the window moves down and right by; what lies outside the image is zero.
    Crop(Vec<[i32; 2]>),
    /// Row and column, in 0..=side, of the centre of a zero square.
    Cutout(Vec<[usize; 2]>),
    /// Whether left and right change places.
    Flip(Vec<bool>),
    /// Factors (x, y) of the sampling grid, in [1/1.2, 1.2): below 1 enlarges.
    Scale(Vec<[f32; 2]>),
    /// Angle of the sampling grid in radians, within 15 degrees of 0: above 0 turns the image anticlockwise.
    Rotate(Vec<f32>),
}

/// Three changes, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Color {
    /// Added to every value; in [-0.5, 0.5).
    pub brightness: f32,
    /// Multiplies the distance from each pixel's mean over channels; in [0, 2).
    pub saturation: f32,
    /// Multiplies the distance from the image's mean; in [0.5, 1.5).
    pub contrast: f32,
}

impl Augmentation {
    /// Draws a kind and its parameters for `batch` images of `size` x `size` pixels.
    pub fn draw(rng: &mut Rng, batch: usize, size: usize) -> Self {
        let shift = (size as f32 * CROP_SHIFT).round() as usize;
        let shifted = |rng: &mut Rng| rng.below(2 * shift + 1) as i32 - shift as i32;
        let scale = |rng: &mut Rng| rng.uniform_in(1.0 / MAX_SCALE, MAX_SCALE);
        let images = 0..batch;
        match rng.below(6) {
            0 => Augmentation::Color(images.map(|_| Color::draw(rng)).collect()),
            1 => Augmentation::Crop(images.map(|_| [shifted(rng), shifted(rng)]).collect()),
            2 => {
                // The evaluator leaves the last border out where the square's side is odd.
                let centres = size + 1 - cutout_side(size) % 2;
                Augmentation::Cutout(images.map(|_| [rng.below(centres), rng.below(centres)]).collect())
            }
            3 => Augmentation::Flip(images.map(|_| rng.uniform() < 0.5).collect()),
            4 => Augmentation::Scale(images.map(|_| [scale(rng), scale(rng)]).collect()),
            _ => Augmentation::Rotate(images.map(|_| rng.uniform_in(-MAX_ANGLE, MAX_ANGLE)).collect()),
        }
    }

    /// Changes `images` (B, size, size, 3), one parameter an image.
    pub fn apply(&self, images: &mut [f32], size: usize) {
        match self {
            Augmentation::Color(p) => each(images, size, p, |image, p, _| p.apply(image)),
            Augmentation::Crop(p) => each(images, size, p, |image, &by, copy| crop(image, size, by, copy)),
            Augmentation::Cutout(p) => each(images, size, p, |image, &centre, _| cutout(image, size, centre)),
            Augmentation::Flip(p) => each(images, size, p, |image, &turned, _| {
                if turned {
                    flip(image, size);
                }
            }),
            Augmentation::Scale(p) => each(images, size, p, |image, &[x, y], copy| {
                resample(image, size, [[x, 0.0], [0.0, y]], copy);
            }),
            Augmentation::Rotate(p) => each(images, size, p, |image, angle, copy| {
                let (sin, cos) = angle.sin_cos();
                resample(image, size, [[cos, -sin], [sin, cos]], copy);
            }),
        }
    }

    /// The number of images that it is for.
    pub fn images(&self) -> usize {
        match self {
            Augmentation::Color(p) => p.len(),
            Augmentation::Crop(p) => p.len(),
            Augmentation::Cutout(p) => p.len(),
            Augmentation::Flip(p) => p.len(),
            Augmentation::Scale(p) => p.len(),
            Augmentation::Rotate(p) => p.len(),
        }
    }

    /// The same for the kernels of a GPU, a line an image of `size` x `size` pixels.
    #[cfg(any(feature = "cuda", cuda_emulated))]
    pub fn changes(&self, size: usize) -> Vec<Change> {
        match self {
            Augmentation::Color(p) => p.iter().map(|p| [1.0, p.brightness, p.saturation, p.contrast, 0.0]).collect(),
            Augmentation::Crop(p) => p.iter().map(|&[y, x]| [2.0, y as f32, x as f32, 0.0, 0.0]).collect(),
            Augmentation::Cutout(p) => {
                let side = cutout_side(size) as f32;
                p.iter().map(|&[y, x]| [3.0, y as f32, x as f32, side, 0.0]).collect()
            }
            Augmentation::Flip(p) => p.iter().map(|&turned| mirrored(turned)).collect(),
            Augmentation::Scale(p) => p.iter().map(|&[x, y]| [5.0, x, 0.0, 0.0, y]).collect(),
            Augmentation::Rotate(p) => {
                let line = |(sin, cos): (f32, f32)| [5.0, cos, -sin, sin, cos];
                p.iter().map(|angle| line(angle.sin_cos())).collect()
            }
        }
    }
}

/// What makes view `view` of image `index` of a set of the image (size, size, 3): view 0 is the image itself, every other
/// one is changed by an augmentation of its own. Soft labels of several views are of these.
pub fn view(size: usize, index: u32, view: u32) -> Option<Augmentation> {
    (view > 0).then(|| Augmentation::draw(&mut Rng::stream(0, "label-view", index, view), 1, size))
}

impl Color {
    fn draw(rng: &mut Rng) -> Self {
        Color {
            brightness: rng.uniform() - 0.5,
            saturation: rng.uniform_in(0.0, 2.0),
            contrast: rng.uniform_in(0.5, 1.5),
        }
    }

    fn apply(&self, image: &mut [f32]) {
        let mut total = 0.0;
        for pixel in image.chunks_exact_mut(3) {
            let mean = (pixel[0] + pixel[1] + pixel[2]) / 3.0 + self.brightness;
            for v in pixel {
                *v = (*v + self.brightness - mean) * self.saturation + mean;
                total += f64::from(*v);
            }
        }
        let mean = (total / image.len() as f64) as f32;
        image.iter_mut().for_each(|v| *v = (*v - mean) * self.contrast + mean);
    }
}

/// Runs `change` on every image with its parameter, in parallel. Its last argument is a buffer to be used as it likes.
fn each<P: Sync>(
    images: &mut [f32],
    size: usize,
    parameters: &[P],
    change: impl Fn(&mut [f32], &P, &mut Vec<f32>) + Sync,
) {
    debug_assert_eq!(images.len(), parameters.len() * size * size * 3);
    images
        .par_chunks_exact_mut(size * size * 3)
        .zip(parameters)
        .for_each_init(Vec::new, |buffer, (image, parameter)| change(image, parameter, buffer));
}

/// out(y, x) = image(y + down, x + right), zero outside.
fn crop(image: &mut [f32], size: usize, [down, right]: [i32; 2], copy: &mut Vec<f32>) {
    copy.clear();
    copy.extend_from_slice(image);
    image.fill(0.0);
    // Along one axis: the first target, the first source and the number of pixels that stay inside.
    let overlap = |by: i32| {
        let by_len = by.unsigned_abs() as usize;
        let len = size.saturating_sub(by_len);
        if by < 0 { (by_len, 0, len) } else { (0, by_len, len) }
    };
    let ((to_y, from_y, rows), (to_x, from_x, cols)) = (overlap(down), overlap(right));
    for y in 0..rows {
        let (to, from) = (((to_y + y) * size + to_x) * 3, ((from_y + y) * size + from_x) * 3);
        image[to..to + cols * 3].copy_from_slice(&copy[from..from + cols * 3]);
    }
}

fn cutout_side(size: usize) -> usize {
    (size as f32 * CUTOUT_SIDE).round() as usize
}

/// A zero square around `centre`, cut off at the borders.
fn cutout(image: &mut [f32], size: usize, centre: [usize; 2]) {
    let side = cutout_side(size);
    let [rows, cols] = centre.map(|c| c.saturating_sub(side / 2)..(c + side - side / 2).min(size));
    for y in rows {
        image[(y * size + cols.start) * 3..(y * size + cols.end) * 3].fill(0.0);
    }
}

fn flip(image: &mut [f32], size: usize) {
    for row in image.chunks_exact_mut(size * 3) {
        for x in 0..size / 2 {
            for c in 0..3 {
                row.swap(x * 3 + c, (size - 1 - x) * 3 + c);
            }
        }
    }
}

/// Samples the image bilinearly at `grid` (x', y') = [[a, b], [c, d]] (x, y) around its centre, zero outside: PyTorch's
/// `affine_grid` and `grid_sample` with align_corners = false. There the centre of pixel j of n stands at 2 (j - m) / n
/// with m = (n - 1) / 2, so on a square image the factor 2 / n cancels and pixels will do for units.
fn resample(image: &mut [f32], size: usize, grid: [[f32; 2]; 2], copy: &mut Vec<f32>) {
    copy.clear();
    copy.extend_from_slice(image);
    let middle = (size - 1) as f32 / 2.0;
    for (i, out) in image.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((i % size) as f32 - middle, (i / size) as f32 - middle);
        let [x, y] = grid.map(|row| row[0] * x + row[1] * y + middle);
        out.copy_from_slice(&bilinear(copy, size, x, y));
    }
}

/// The pixel at column `x`, row `y`, between the four around it; those outside the image are zero.
fn bilinear(image: &[f32], size: usize, x: f32, y: f32) -> [f32; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (right_part, bottom_part) = (x - left, y - top);
    let mut out = [0.0; 3];
    for (row, row_part) in [(top, 1.0 - bottom_part), (top + 1.0, bottom_part)] {
        for (col, col_part) in [(left, 1.0 - right_part), (left + 1.0, right_part)] {
            let inside = |v: f32| v >= 0.0 && v < size as f32;
            if inside(row) && inside(col) {
                let pixel = &image[(row as usize * size + col as usize) * 3..][..3];
                for (o, v) in out.iter_mut().zip(pixel) {
                    *o += row_part * col_part * v;
                }
            }
        }
    }
    out
}
