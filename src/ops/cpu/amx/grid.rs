//! Padded images in bf16, stacked so that every tap of a convolution reads all pixels of a run at one offset.
//!
//! A grid has `rows` x `cols` places an image. Place q = (image x rows + row) x cols + column of the output needs, for
//! the tap (ky, kx), place q + ky x cols + kx of the input: rows of a tile are consecutive places, whatever row or image
//! they belong to. Places where no output pixel stands are computed and thrown away; at stride 1 an image's padding
//! serves its neighbours as well, so these are few. A stride of s splits the input into s x s planes, one for each
//! remainder of its coordinates, which brings it back to stride 1.

use super::super::conv::ConvShape;
use super::pack::convert;
use super::tiles::DEPTH;

/// Places of a task: its operands stay in L1 and L2.
const TASK_PLACES: usize = 320;
/// The target of places where no output pixel stands.
pub const NOWHERE: u32 = u32::MAX;

/// How a stack of images is laid out.
#[derive(Clone, Copy)]
pub struct Layout {
    pub images: usize,
    pub rows: usize,
    pub cols: usize,
}

impl Layout {
    /// Room for images of rows x cols places, as many as fill a task but no more than a thread's share of `batch`.
    pub fn new(batch: usize, rows: usize, cols: usize) -> Self {
        let share = batch.div_ceil(rayon::current_num_threads());
        Layout { images: (TASK_PLACES / (rows * cols)).clamp(1, share.max(1)), rows, cols }
    }

    /// The layout of a convolution's input planes and of its output.
    pub fn of(shape: &ConvShape) -> Self {
        let (s, p) = (shape.stride, shape.padding);
        // Zeros left of a row are the zeros right of the row before, if no output stands in them.
        let shared = s == 1 && p < shape.kernel;
        let places = |size: usize| if shared { size + p } else { (size + 2 * p).div_ceil(s) };
        Layout::new(shape.batch, places(shape.height), places(shape.width))
    }

    pub fn places(&self) -> usize {
        self.images * self.rows * self.cols
    }

    /// Places of a plane that outputs up to the last place can read with taps up to `reach` places away, in whole runs
    /// of 64 and 32 more where a tap's offset cuts a run.
    pub fn plane(&self, reach: usize) -> usize {
        self.places().next_multiple_of(64) + reach.next_multiple_of(DEPTH) + DEPTH
    }

    /// For each place (row, column) of each image, the output pixel that stands there, counted from the first image:
    /// (step row + first_row, step column + first_column) where it is inside `size`.
    pub fn targets(&self, size: (usize, usize), step: usize, first: (isize, isize)) -> Vec<u32> {
        let along = |i: usize, first: isize, size: usize| {
            usize::try_from((i * step) as isize + first).ok().filter(|&at| at < size)
        };
        let place = |q: usize| {
            let (image, row, col) = (q / (self.rows * self.cols), q / self.cols % self.rows, q % self.cols);
            match (along(row, first.0, size.0), along(col, first.1, size.1)) {
                (Some(y), Some(x)) => ((image * size.0 + y) * size.1 + x) as u32,
                _ => NOWHERE,
            }
        };
        (0..self.places()).map(place).collect()
    }
}

/// Where the pixels of an image (height, width, channels) go in a stack of `layout`.
pub struct Filling {
    pub layout: Layout,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Elements of a place: the channels and zeros after them.
    pub depth: usize,
    pub padding: usize,
    /// The stride that splits the image into phases x phases planes.
    pub phases: usize,
    /// Places of one plane, with what lies after the last image.
    pub plane: usize,
}

impl Filling {
    /// Elements of all planes.
    pub fn len(&self) -> usize {
        self.phases * self.phases * self.plane * self.depth
    }

    /// Writes whole images `x` into `out`, which is zero.
    #[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
    pub fn fill(&self, x: &[f32], out: &mut [u16]) {
        let Layout { rows, cols, .. } = self.layout;
        let dense = self.phases == 1 && self.channels == self.depth;
        if dense && (rows, cols) == (self.height, self.width) {
            return convert(x, out);
        }
        for (i, line) in x.chunks_exact(self.width * self.channels).enumerate() {
            let (image, y) = (i / self.height, i % self.height + self.padding);
            let place = (image * rows + y / self.phases) * cols;
            if dense {
                convert(line, &mut out[(place + self.padding) * self.depth..]);
                continue;
            }
            for (x, pixel) in line.chunks_exact(self.channels).enumerate() {
                let x = x + self.padding;
                let phase = y % self.phases * self.phases + x % self.phases;
                convert(pixel, &mut out[(phase * self.plane + place + x / self.phases) * self.depth..]);
            }
        }
    }
}
