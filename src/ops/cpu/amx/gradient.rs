//! The weights' gradient: for each tap, the transpose of the input times the output's gradient, over all pixels.

use rayon::prelude::*;

use super::super::conv::ConvShape;
use super::grid::Filling;
use super::pack::{elements, elements_mut, to_b_tiles, to_columns, zeroed};
use super::product::{Input, SCRATCH, SIDE, Scratch};
use super::tiles::{Block, DEPTH, ROWS, TILE, Tiles};

/// Steps (of 32 places) between two visits to a block of sums: their operands stay in L1.
const RUN_STEPS: usize = 10;

/// The sizes of the sums of one thread, (taps, inputs, outputs): the last two in whole tiles.
#[derive(Clone, Copy)]
struct Sizes {
    taps: usize,
    inputs: usize,
    outputs: usize,
}

/// As [`super::super::conv::weight_gradient`].
pub fn weight_gradient(shape: &ConvShape, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let input = Input::new(shape, x);
    let s = &input.shape;
    let layout = input.filling.layout;
    let sizes = Sizes {
        taps: input.taps.len(),
        inputs: s.in_channels.next_multiple_of(ROWS),
        outputs: s.out_channels.next_multiple_of(ROWS),
    };
    let output = Filling {
        layout,
        height: s.out_height(),
        width: s.out_width(),
        channels: s.out_channels,
        depth: sizes.outputs,
        padding: 0,
        phases: 1,
        plane: layout.plane(0),
    };
    // One partial sum a thread, each over a fixed run of tasks, added up in order.
    let tasks = s.batch.div_ceil(layout.images);
    let tasks_per_run = tasks.div_ceil(rayon::current_num_threads()).max(1);
    let image_len = output.height * output.width * output.channels;
    let partials: Vec<Vec<f32>> = gradient
        .par_chunks(tasks_per_run * layout.images * image_len)
        .enumerate()
        .map(|(run, gradient)| {
            let mut sums = vec![0.0; sizes.taps * sizes.inputs * sizes.outputs];
            for (task, gradient) in gradient.chunks(layout.images * image_len).enumerate() {
                let images = gradient.len() / image_len;
                SCRATCH.with_borrow_mut(|scratch| {
                    let tiles = Tiles::configure();
                    prepare(&input, &output, run * tasks_per_run + task, images, gradient, scratch, &tiles);
                    add_task(&input, &output, images, scratch, sizes, &mut sums, &tiles);
                });
            }
            sums
        })
        .collect();
    gather(s, sizes, &partials)
}

/// Elements from one channel to the next in the transposed input. An odd number of lines, so that the rows of a tile
/// fall into different sets of the cache.
fn column_stride(filling: &Filling) -> usize {
    ((filling.plane / DEPTH) | 1) * DEPTH
}

/// Brings a task's input and gradient into tile order: channels of places, and places in pairs.
fn prepare(
    input: &Input,
    output: &Filling,
    task: usize,
    images: usize,
    gradient: &[f32],
    scratch: &mut Scratch,
    tiles: &Tiles,
) {
    let (filling, stride) = (&input.filling, column_stride(&input.filling));
    input.fill(task, images, scratch, tiles);
    let planes = elements(&scratch.grid).chunks_exact(filling.plane * filling.depth);
    let columns = zeroed(&mut scratch.x_columns, filling.phases * filling.phases * filling.depth * stride);
    let rounded = zeroed(&mut scratch.gradient, output.len());
    let gradient_tiles = zeroed(&mut scratch.gradient_tiles, output.len());
    // SAFETY: `Tiles` shows that the CPU has what `tiles::available` asks for.
    unsafe {
        for (plane, columns) in planes.zip(columns.chunks_exact_mut(filling.depth * stride)) {
            to_columns(plane, filling.depth, stride, columns);
        }
        output.fill(gradient, rounded);
        to_b_tiles(&rounded[..output.len()], output.depth, gradient_tiles);
    }
}

/// Adds a task's products to `sums` (taps, inputs, outputs).
fn add_task(
    input: &Input,
    output: &Filling,
    images: usize,
    scratch: &mut Scratch,
    sizes: Sizes,
    sums: &mut [f32],
    tiles: &Tiles,
) {
    let (filling, stride) = (&input.filling, column_stride(&input.filling));
    let columns = elements(&scratch.x_columns);
    let gradient = elements_mut(&mut scratch.gradient_tiles);
    let column_len = output.plane / DEPTH * TILE;
    let steps: Vec<usize> = (0..RUN_STEPS).map(|step| step * DEPTH * 2).collect();
    let all_steps = (images * filling.layout.rows * filling.layout.cols).div_ceil(DEPTH);
    for step in (0..all_steps).step_by(RUN_STEPS) {
        let steps = &steps[..RUN_STEPS.min(all_steps - step)];
        for o in (0..sizes.outputs).step_by(SIDE) {
            let wide = (sizes.outputs - o).div_ceil(ROWS).min(2);
            let b = &gradient[o / ROWS * column_len..][..wide * column_len];
            for i in (0..sizes.inputs).step_by(SIDE) {
                let high = (sizes.inputs - i).div_ceil(ROWS).min(2);
                for (tap, &(offset, plane)) in input.taps.iter().enumerate() {
                    let c = &mut sums[(tap * sizes.inputs + i) * sizes.outputs + o..];
                    let block = Block {
                        a: columns[(plane * filling.depth + i) * stride + step * DEPTH + offset..].as_ptr(),
                        a_second: ROWS * stride * 2,
                        a_stride: stride * 2,
                        steps,
                        b: b[step * TILE..].as_ptr(),
                        b_second: b[(wide - 1) * column_len + step * TILE..].as_ptr(),
                        c: c.as_mut_ptr(),
                        c_stride: sizes.outputs * 4,
                        accumulate: true,
                    };
                    // SAFETY: a channel's places reach beyond the last step at every tap, `b` holds the tiles of all
                    // steps, and `sums` whole tiles.
                    unsafe { block.run(tiles, high, wide) };
                }
            }
        }
    }
}

/// Adds the partial sums up, first to last, and brings them from (taps, inputs, outputs) to (outputs, taps, inputs).
fn gather(shape: &ConvShape, sizes: Sizes, partials: &[Vec<f32>]) -> Vec<f32> {
    let row_len = sizes.taps * shape.in_channels;
    let mut out = vec![0.0; shape.out_channels * row_len];
    // A line of outputs at a time: their rows are written side by side.
    out.par_chunks_mut(ROWS * row_len).enumerate().for_each(|(block, rows)| {
        for tap in 0..sizes.taps {
            for i in 0..shape.in_channels {
                let at = (tap * sizes.inputs + i) * sizes.outputs + block * ROWS;
                let mut total = [0.0; ROWS];
                for partial in partials {
                    total.iter_mut().zip(&partial[at..at + ROWS]).for_each(|(t, p)| *t += p);
                }
                for (row, total) in rows.chunks_exact_mut(row_len).zip(total) {
                    row[tap * shape.in_channels + i] = total;
                }
            }
        }
    });
    out
}
