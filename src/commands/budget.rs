//! How many images a class a time limit allows.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::progress::duration;
use crate::stages::{Generator, Sampling};
use crate::{interrupt, usage};

/// Share of the time left that is planned with: the rest goes to writing.
const USABLE_SHARE: f64 = 0.95;

/// Images a class that can be drawn until `limit` after `start`: one batch is drawn, timed and thrown away.
pub fn images_within(
    (limit, start): (Duration, Instant),
    generator: &Generator,
    sampling: &Sampling,
    batch_size: usize,
    classes: &[u32],
) -> Result<u32> {
    let batch: Vec<(u32, u32)> = classes.iter().cycle().take(batch_size).map(|&class| (class, 0)).collect();
    let before = Instant::now();
    generator.sample(&batch, sampling, &interrupt::check)?;
    let seconds_per_image = before.elapsed().as_secs_f64() / batch_size as f64;
    let left = limit.saturating_sub(start.elapsed()).as_secs_f64() * USABLE_SHARE;
    let images = (left / seconds_per_image) as usize;
    if images < classes.len() {
        usage!(
            "--budget {}: leaves time for {images} images, which must be one at least for each of {} classes; allow more \
             time, or lower --steps",
            duration(limit.as_secs_f64()),
            classes.len()
        );
    }
    Ok((images / classes.len()) as u32)
}
