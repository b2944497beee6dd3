//! Up-sampling and pooling by a factor of two.

use super::cpu::{Floats, resample as kernel, tensor};
use super::tape::{Tape, Value};
use crate::error::Result;
use crate::fail;

/// Nearest-neighbour up-sampling: (B, H, W, C) to (B, 2H, 2W, C).
pub fn upsample2x(tape: &Tape, x: &Value) -> Result<Value> {
    let (b, h, w, c) = x.nhwc()?;
    let out = tensor(kernel::upsample2x(&Floats::of(x.tensor())?, w, c), (b, 2 * h, 2 * w, c))?;
    Ok(tape.record(out, &[x], move |gradient| {
        let found = kernel::sum_blocks(&Floats::of(&gradient)?, (2 * h, 2 * w, c), 1.0);
        Ok(vec![Some(tensor(found, (b, h, w, c))?)])
    }))
}

/// Average pooling with kernel and stride 2: (B, H, W, C) to (B, H/2, W/2, C), rounded down.
pub fn avg_pool2x(tape: &Tape, x: &Value) -> Result<Value> {
    let (b, h, w, c) = x.nhwc()?;
    if h < 2 || w < 2 {
        fail!("avg_pool2x: input {:?} is smaller than its 2 x 2 kernel", x.dims());
    }
    let out = tensor(kernel::sum_blocks(&Floats::of(x.tensor())?, (h, w, c), 0.25), (b, h / 2, w / 2, c))?;
    Ok(tape.record(out, &[x], move |gradient| {
        let found = kernel::avg_pool2x_backward(&Floats::of(&gradient)?, (h, w, c));
        Ok(vec![Some(tensor(found, (b, h, w, c))?)])
    }))
}
