//! Convolutions in bf16 on the CPU's matrix unit (AMX), on f32 tensors: operands are rounded on the way into the order
//! that tiles want, sums stay in f32.
//!
//! A task is a stack of images small enough for the caches: its input is rounded into a padded `grid`, from which every
//! tap of the kernel reads its tiles in place, so that no im2col matrix is made.

mod gradient;
mod grid;
mod pack;
mod product;
mod tiles;

pub use gradient::weight_gradient;
pub use product::{forward, input_gradient};
pub use tiles::available;
