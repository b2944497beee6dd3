//! The forward pass and the input's gradient: rows of output pixels times packed weights.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::conv::{self, ConvShape};
use super::super::overwritten;
use super::grid::{Filling, Layout, NOWHERE};
use super::pack::{self, Line, Weights, elements, elements_mut, zeroed};
use super::tiles::{Block, DEPTH, ROWS, TILE, Tiles};

/// Fewer input channels than this fill so little of a tile that gathering whole patches is cheaper.
const FEW_CHANNELS: usize = 9;
/// Sides of a block of sums: 2 x 2 tiles.
pub const SIDE: usize = 2 * ROWS;

/// The input of a convolution, as it is or (few channels) as a pointwise convolution over its patches.
pub struct Input<'a> {
    x: &'a [f32],
    patches_of: Option<ConvShape>,
    /// The convolution that is left to do.
    pub shape: ConvShape,
    pub filling: Filling,
    /// Places between the first tap and each tap within a plane, and the tap's plane.
    pub taps: Vec<(usize, usize)>,
}

impl<'a> Input<'a> {
    pub fn new(shape: &ConvShape, x: &'a [f32]) -> Self {
        if shape.kernel == 1 || shape.in_channels >= FEW_CHANNELS {
            let pixels = shape.batch * shape.height * shape.width;
            let shape = if shape.is_pointwise() { pointwise(pixels, shape.in_channels, shape) } else { *shape };
            return Input::laid_out(shape, x, Layout::of(&shape), None);
        }
        let pixels = shape.batch * shape.out_height() * shape.out_width();
        let lowered = pointwise(pixels, shape.patch_len(), shape);
        let mut layout = Layout::of(&lowered);
        layout.images = layout.images.next_multiple_of(shape.out_width()); // patches come by rows of the output
        Input::laid_out(lowered, x, layout, Some(*shape))
    }

    fn laid_out(shape: ConvShape, x: &'a [f32], layout: Layout, patches_of: Option<ConvShape>) -> Self {
        let (k, s) = (shape.kernel, shape.stride);
        let at = |i: usize| ((i / k / s) * layout.cols + i % k / s, (i / k % s) * s + i % k % s);
        let taps: Vec<_> = (0..k * k).map(at).collect();
        let reach = taps.iter().map(|&(offset, _)| offset).max().unwrap_or(0);
        let filling = Filling {
            layout,
            height: shape.height,
            width: shape.width,
            channels: shape.in_channels,
            depth: shape.in_channels.next_multiple_of(DEPTH),
            padding: shape.padding,
            phases: s,
            plane: layout.plane(reach),
        };
        Input { x, patches_of, shape, filling, taps }
    }

    /// The images of task `task`, `images` of them; `columns` keeps gathered patches.
    fn images<'b>(&'b self, task: usize, images: usize, columns: &'b mut Vec<f32>) -> &'b [f32] {
        let first = task * self.filling.layout.images;
        if let Some(shape) = &self.patches_of {
            return conv::band_columns(shape, self.x, first / shape.out_width(), images, columns);
        }
        let len = self.shape.height * self.shape.width * self.shape.in_channels;
        &self.x[first * len..][..images * len]
    }

    /// Rounds the images of a task into `scratch.grid` and returns it.
    pub fn fill<'s>(&self, task: usize, images: usize, scratch: &'s mut Scratch, _: &Tiles) -> &'s [u16] {
        let grid = zeroed(&mut scratch.grid, self.filling.len());
        // SAFETY: `Tiles` shows that the CPU has what `tiles::available` asks for.
        unsafe { self.filling.fill(self.images(task, images, &mut scratch.columns), grid) };
        grid
    }
}

fn pointwise(pixels: usize, in_channels: usize, of: &ConvShape) -> ConvShape {
    let out_channels = of.out_channels;
    ConvShape { batch: pixels, height: 1, width: 1, in_channels, out_channels, kernel: 1, stride: 1, padding: 0 }
}

/// A thread's buffers, kept from task to task.
#[derive(Default)]
pub struct Scratch {
    pub grid: Vec<Line>,
    pub columns: Vec<f32>,
    pub x_columns: Vec<Line>,
    pub gradient: Vec<Line>,
    pub gradient_tiles: Vec<Line>,
}

thread_local! {
    pub static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One pass over a grid: which weights meet which places, and where the sums go.
struct Pass {
    /// Bytes from a place to what each step reads for it.
    steps: Vec<usize>,
    weights: Vec<Line>,
    targets: Vec<u32>,
}

impl Pass {
    /// `taps`: (first place that is read, tap of the weights).
    fn new(filling: &Filling, taps: &[(usize, usize)], weights: &Weights, targets: Vec<u32>) -> Self {
        let depth_blocks = filling.depth / DEPTH;
        let steps: Vec<usize> = taps
            .iter()
            .flat_map(|(place, _)| (0..depth_blocks).map(move |d| 2 * (place * filling.depth + d * DEPTH)))
            .collect();
        let chosen: Vec<usize> = taps.iter().map(|&(_, tap)| tap).collect();
        let blocks = weights.size().1.div_ceil(ROWS);
        let mut packed = Vec::new();
        zeroed(&mut packed, blocks * steps.len() * TILE);
        if !steps.is_empty() {
            elements_mut(&mut packed).par_chunks_mut(steps.len() * TILE).enumerate().for_each(|(block, tiles)| {
                // SAFETY: `products` selects this module only where `tiles::available` holds.
                unsafe { weights.pack(block, &chosen, tiles) }
            });
        }
        Pass { steps, weights: packed, targets }
    }

    /// All output pixels of a task whose `grid` is filled.
    fn run(&self, grid: &[u16], depth: usize, output: &mut Output, tiles: &Tiles) {
        let places = self.targets.iter().rposition(|&t| t != NOWHERE).map_or(0, |last| last + 1);
        let places = places.min(output.places);
        let weights = elements(&self.weights);
        let column_len = self.steps.len() * TILE;
        let mut sums = Sums([0.0; SIDE * SIDE]);
        for column in (0..output.channels).step_by(SIDE) {
            let b = &weights[column / ROWS * column_len..];
            let columns = (output.channels - column).div_ceil(ROWS).min(2);
            let b = &b[..columns * column_len];
            for q in (0..places).step_by(SIDE) {
                let targets = &self.targets[q..places.min(q + SIDE)];
                if targets.iter().all(|&t| t == NOWHERE) {
                    continue;
                }
                let block = Block {
                    a: grid[q * depth..].as_ptr(),
                    a_second: ROWS * depth * 2,
                    a_stride: depth * 2,
                    steps: &self.steps,
                    b: b.as_ptr(),
                    b_second: b[(columns - 1) * column_len..].as_ptr(),
                    c: sums.0.as_mut_ptr(),
                    c_stride: SIDE * 4,
                    accumulate: false,
                };
                // SAFETY: a plane reaches a block beyond the last place at every tap, `b` holds the steps' tiles of
                // each column, and `sums` a block.
                unsafe {
                    block.run(tiles, targets.len().div_ceil(ROWS), columns);
                    output.write(&sums, targets, column);
                }
            }
        }
    }
}

#[repr(C, align(64))]
struct Sums([f32; SIDE * SIDE]);

/// The output of one task.
struct Output<'a> {
    values: &'a mut [MaybeUninit<f32>],
    channels: usize,
    /// Places of the images that the task has.
    places: usize,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

impl Output<'_> {
    /// Writes a block of sums, plus bias and residual, to `targets`, from channel `first`.
    #[target_feature(enable = "avx512f")]
    fn write(&mut self, sums: &Sums, targets: &[u32], first: usize) {
        use std::arch::x86_64::{_mm512_add_ps, _mm512_mask_storeu_ps};
        for (&target, sums) in targets.iter().zip(sums.0.chunks_exact(SIDE)) {
            if target == NOWHERE {
                continue;
            }
            for (channel, sums) in (first..self.channels).step_by(ROWS).zip(sums.chunks_exact(ROWS)) {
                let count = ROWS.min(self.channels - channel);
                let range =
                    target as usize * self.channels + channel..target as usize * self.channels + channel + count;
                let mut sum = pack::load(sums);
                if let Some(bias) = self.bias {
                    sum = _mm512_add_ps(sum, pack::load(&bias[channel..channel + count]));
                }
                if let Some(residual) = self.residual {
                    sum = _mm512_add_ps(sum, pack::load(&residual[range.clone()]));
                }
                let out = &mut self.values[range];
                // SAFETY: the mask leaves out what lies beyond the slice.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().cast(), pack::lanes(count), sum) };
            }
        }
    }
}

/// Runs `passes` over all tasks. `pixels`: output pixels an image; `channels`: theirs.
fn run(
    input: &Input,
    passes: &[Pass],
    (pixels, channels): (usize, usize),
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    out: &mut [MaybeUninit<f32>],
) {
    let layout = input.filling.layout;
    let task_len = layout.images * pixels * channels;
    out.par_chunks_mut(task_len).enumerate().for_each(|(task, values)| {
        SCRATCH.with_borrow_mut(|scratch| {
            let tiles = Tiles::configure();
            let images = values.len() / (pixels * channels);
            let grid = input.fill(task, images, scratch, &tiles);
            let places = images * layout.rows * layout.cols;
            let residual = residual.map(|r| &r[task * task_len..][..values.len()]);
            let mut output = Output { values, channels, places, bias, residual };
            passes.iter().for_each(|pass| pass.run(grid, input.filling.depth, &mut output, &tiles));
        });
    });
}

/// As [`conv::forward`].
pub fn forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let input = Input::new(shape, x);
    let s = &input.shape;
    let weights = Weights {
        values: weight,
        outputs: s.out_channels,
        taps: s.kernel * s.kernel,
        inputs: s.in_channels,
        transposed: false,
    };
    let place = |(tap, &(offset, plane)): (usize, &(usize, usize))| (plane * input.filling.plane + offset, tap);
    let taps: Vec<_> = input.taps.iter().enumerate().map(place).collect();
    let size = (s.out_height(), s.out_width());
    let pass = Pass::new(&input.filling, &taps, &weights, input.filling.layout.targets(size, 1, (0, 0)));
    let len = s.batch * size.0 * size.1 * s.out_channels;
    // SAFETY: every output pixel is the target of a place.
    unsafe { overwritten(len, |out| run(&input, &[pass], (size.0 * size.1, s.out_channels), bias, residual, out)) }
}

/// As [`conv::input_gradient`].
pub fn input_gradient(shape: &ConvShape, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
    if shape.stride == 1 && shape.padding < shape.kernel && shape.out_channels < FEW_CHANNELS {
        return forward(&shape.transposed(), gradient, &conv::flipped(shape, weight), None, None);
    }
    let weights = Weights {
        values: weight,
        outputs: shape.out_channels,
        taps: shape.kernel * shape.kernel,
        inputs: shape.in_channels,
        transposed: true,
    };
    let pixels = (shape.height * shape.width, shape.in_channels);
    let len = shape.batch * pixels.0 * pixels.1;
    if shape.stride == 1 && shape.padding < shape.kernel {
        let input = Input::new(&shape.transposed(), gradient);
        let s = &input.shape;
        let taps: Vec<_> = input.taps.iter().map(|&(offset, _)| offset).zip((0..weights.taps).rev()).collect();
        let targets = input.filling.layout.targets((s.out_height(), s.out_width()), 1, (0, 0));
        let pass = Pass::new(&input.filling, &taps, &weights, targets);
        let pixels = (s.out_height() * s.out_width(), s.out_channels);
        // SAFETY: every input pixel is the target of a place.
        return unsafe { overwritten(len, |out| run(&input, &[pass], pixels, None, None, out)) };
    }
    let (input, passes) = strided_gradient(shape, gradient, &weights);
    // SAFETY: zeros first, for no place stands for a pixel that the kernel never met.
    unsafe {
        overwritten(len, |out| {
            out.fill(MaybeUninit::new(0.0));
            run(&input, &passes, pixels, None, None, out);
        })
    }
}

/// The gradient of a strided convolution's input: of the padded input's pixels, those with one remainder of their
/// coordinates meet the same taps, so they are one convolution of stride 1 over the gradient.
///
/// Y = s J + r, and the taps k = s a + r reach it from the outputs J - a.
fn strided_gradient<'a>(shape: &ConvShape, gradient: &'a [f32], weights: &Weights) -> (Input<'a>, Vec<Pass>) {
    let (k, s) = (shape.kernel, shape.stride);
    let margin = k.div_ceil(s) - 1;
    let (height, width) = (shape.out_height(), shape.out_width());
    let layout = Layout::new(shape.batch, height + 2 * margin, width + 2 * margin);
    let padded = ConvShape {
        height,
        width,
        in_channels: shape.out_channels,
        out_channels: shape.in_channels,
        kernel: margin + 1,
        stride: 1,
        padding: margin,
        batch: shape.batch,
    };
    let input = Input::laid_out(padded, gradient, layout, None);
    let pass = |remainder: usize| {
        let (ry, rx) = (remainder / s, remainder % s);
        let along = |r: usize| (r..k).step_by(s).enumerate();
        let taps: Vec<_> = along(ry)
            .flat_map(|(a, ky)| along(rx).map(move |(b, kx)| ((a, b), ky * k + kx)))
            .map(|((a, b), tap)| ((margin - a) * layout.cols + margin - b, tap))
            .collect();
        let first = |r: usize| r as isize - shape.padding as isize;
        let targets = layout.targets((shape.height, shape.width), s, (first(ry), first(rx)));
        Pass::new(&input.filling, &taps, weights, targets)
    };
    let passes = (0..s * s).map(pass).filter(|pass| !pass.steps.is_empty()).collect();
    (input, passes)
}
