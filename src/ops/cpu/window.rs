//! Where a convolution reads its input: copies of the image, one for each shift along x, in which every tap of the
//! kernel finds the pixels of consecutive outputs at consecutive places.
//!
//! Place (r, c) of the plane (py, px) holds the source pixel (r step + py, c step + px), zero outside the image. Output
//! (oy, ox) meets the tap (ky, kx) at row oy + ky / step of the plane of (ky mod step, kx): rows of A are consecutive
//! places, and no im2col matrix is made. Where pixels have few channels, a place holds a whole patch instead.

use super::element::{Element, depth};

/// Steps of depth up to which a whole patch makes a place: more would be slower than a step for each tap.
const PATCH_STEPS: usize = 3;

/// The sizes of one convolution of NHWC images with square kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl ConvShape {
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }

    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Products of one output: kernel x kernel x in_channels.
    pub fn patch_len(&self) -> usize {
        self.kernel * self.kernel * self.in_channels
    }
}

/// A tap of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    pub plane: usize,
    /// Rows of the plane above it.
    pub row: usize,
    /// Its number among the weights.
    pub weight: usize,
}

/// How one pass over the source computes a grid of outputs.
#[derive(Clone, Debug)]
pub struct Window {
    /// Source size in pixels and channels.
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Outputs.
    pub rows: usize,
    pub cols: usize,
    /// Source pixels from one place to the next.
    pub step: usize,
    /// The source pixel of each plane's first place.
    pub planes: Vec<(isize, isize)>,
    /// Rows of a plane beyond `rows`.
    pub extra_rows: usize,
    pub taps: Vec<Tap>,
    /// Side of the patch that a place holds, the pixels of all taps one after the other; 1 for a pixel.
    pub patch: usize,
    /// Output (r, c) stands at pixel (r out_step + out_first.0, c out_step + out_first.1) of the target.
    pub out_step: usize,
    pub out_first: (usize, usize),
}

impl Window {
    /// The forward pass, and the pass in which the weight's gradient meets the input.
    pub fn forward<E: Element>(s: &ConvShape) -> Window {
        let mut window = Window::new((s.height, s.width, s.in_channels), s.out_height(), s.out_width());
        window.step = s.stride;
        let first = -(s.padding as isize);
        window.lay::<E>((s.kernel, s.kernel), (first, first), |ky, kx| ky * s.kernel + kx);
        window
    }

    /// The passes that bring the output's gradient to the input's: one for each remainder of a pixel's coordinates by
    /// the stride, as these meet the same taps. Of a padded pixel Y = s J + r the taps k = s a + r reach it from the
    /// outputs J - a.
    pub fn input_gradient<E: Element>(s: &ConvShape) -> Vec<Window> {
        let source = (s.out_height(), s.out_width(), s.out_channels);
        let mut passes = Vec::new();
        for remainder in 0..s.stride * s.stride {
            let (ry, rx) = (remainder / s.stride, remainder % s.stride);
            let ((first_y, j_y, rows), (first_x, j_x, cols)) =
                (phase(ry, s.stride, s.padding, s.height), phase(rx, s.stride, s.padding, s.width));
            let taps = |r: usize| (s.kernel + s.stride - 1 - r) / s.stride;
            if rows == 0 || cols == 0 || taps(ry) == 0 || taps(rx) == 0 {
                continue;
            }
            let mut window = Window::new(source, rows, cols);
            (window.out_step, window.out_first) = (s.stride, (first_y, first_x));
            let (high, wide) = (taps(ry), taps(rx));
            let first = (j_y as isize - high as isize + 1, j_x as isize - wide as isize + 1);
            window.lay::<E>((high, wide), first, |y, x| {
                (s.stride * (high - 1 - y) + ry) * s.kernel + s.stride * (wide - 1 - x) + rx
            });
            passes.push(window);
        }
        passes
    }

    fn new((height, width, channels): (usize, usize, usize), rows: usize, cols: usize) -> Window {
        let (planes, taps) = (Vec::new(), Vec::new());
        let (step, extra_rows, patch, out_step, out_first) = (1, 0, 1, 1, (0, 0));
        Window { height, width, channels, rows, cols, step, planes, extra_rows, taps, patch, out_step, out_first }
    }

    /// Planes and taps of `high` x `wide` taps, the first of which reads pixel `first`.
    fn lay<E: Element>(
        &mut self,
        (high, wide): (usize, usize),
        first: (isize, isize),
        weight: impl Fn(usize, usize) -> usize,
    ) {
        let step = self.step;
        if high == wide && high > 1 && high * wide * self.channels <= PATCH_STEPS * depth::<E>() {
            self.patch = high;
            self.planes.push(first);
        } else {
            for py in 0..step.min(high) {
                self.planes.extend((0..wide).map(|kx| (first.0 + py as isize, first.1 + kx as isize)));
            }
            self.extra_rows = (high - 1) / step;
        }
        for ky in 0..high {
            for kx in 0..wide {
                self.taps.push(Tap { plane: ky % step * wide + kx, row: ky / step, weight: weight(ky, kx) });
            }
        }
    }

    /// Elements of a place that are not padding.
    pub fn place_len(&self) -> usize {
        self.patch * self.patch * self.channels
    }

    /// Elements of a place: whole steps.
    pub fn depth<E: Element>(&self) -> usize {
        self.place_len().next_multiple_of(depth::<E>())
    }

    /// Rows of a plane for `rows` rows of outputs.
    pub fn plane_rows(&self, rows: usize) -> usize {
        rows + self.extra_rows
    }

    /// Whether the outputs of consecutive images stand at consecutive places.
    pub fn is_dense(&self) -> bool {
        self.extra_rows == 0
    }

    /// Writes the places of every plane for the outputs of rows `first`..`first + rows` of `image`, whose places begin at
    /// `at` of each plane of `plane_len` places.
    pub fn fill<E: Element>(
        &self,
        image: &[E],
        (first, rows): (usize, usize),
        at: usize,
        plane_len: usize,
        out: &mut [E],
    ) {
        let depth = self.depth::<E>();
        for (plane, &(py, px)) in out.chunks_exact_mut(plane_len * depth).zip(&self.planes) {
            let places = &mut plane[at * depth..][..self.plane_rows(rows) * self.cols * depth];
            for (r, row) in places.chunks_exact_mut(self.cols * depth).enumerate() {
                let y = ((first + r) * self.step) as isize + py;
                if self.patch > 1 {
                    self.fill_patches(image, y, px, row);
                } else {
                    self.fill_pixels(image, y, px, row);
                }
            }
        }
    }

    /// The part of row `y` that lies inside the image.
    fn source_row<'a, E: Element>(&self, image: &'a [E], y: isize) -> Option<&'a [E]> {
        let y = usize::try_from(y).ok().filter(|&y| y < self.height)?;
        Some(&image[y * self.width * self.channels..][..self.width * self.channels])
    }

    fn fill_pixels<E: Element>(&self, image: &[E], y: isize, px: isize, row: &mut [E]) {
        let Some(source) = self.source_row(image, y) else { return row.fill(E::default()) };
        let (depth, c) = (self.depth::<E>(), self.channels);
        if self.step == 1 && depth == c {
            // One run, with zeros on both sides.
            let left = (-px).clamp(0, self.cols as isize) as usize;
            let from = px.max(0) as usize;
            let count = self.width.saturating_sub(from).min(self.cols - left);
            row[..left * c].fill(E::default());
            row[left * c..(left + count) * c].copy_from_slice(&source[(from * c).min(source.len())..][..count * c]);
            row[(left + count) * c..].fill(E::default());
            return;
        }
        for (col, place) in row.chunks_exact_mut(depth).enumerate() {
            let x = (col * self.step) as isize + px;
            match usize::try_from(x).ok().filter(|&x| x < self.width) {
                Some(x) => {
                    place[..c].copy_from_slice(&source[x * c..][..c]);
                    place[c..].fill(E::default());
                }
                None => place.fill(E::default()),
            }
        }
    }

    fn fill_patches<E: Element>(&self, image: &[E], y: isize, px: isize, row: &mut [E]) {
        row.fill(E::default());
        let c = self.channels;
        for ky in 0..self.patch {
            let Some(source) = self.source_row(image, y + ky as isize) else { continue };
            for (col, place) in row.chunks_exact_mut(self.depth::<E>()).enumerate() {
                let x = (col * self.step) as isize + px;
                let skip = (-x).clamp(0, self.patch as isize) as usize;
                let from = (x + skip as isize).max(0) as usize;
                let count = self.width.saturating_sub(from).min(self.patch - skip);
                place[(ky * self.patch + skip) * c..][..count * c]
                    .copy_from_slice(&source[(from * c).min(source.len())..][..count * c]);
            }
        }
    }
}

/// Of the pixels 0..`size` whose padded coordinate has the remainder `r` by `stride`: the first one, its quotient, and
/// their number.
fn phase(r: usize, stride: usize, padding: usize, size: usize) -> (usize, usize, usize) {
    let first = (r + stride - padding % stride) % stride;
    let count = size.saturating_sub(first).div_ceil(stride);
    (first, (first + padding) / stride, count)
}
