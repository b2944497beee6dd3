//! How fast training goes: the learning rate by step, and the number of steps that a time limit allows.

use std::time::Instant;

/// Steps that are run before timing starts: buffers and caches are filled then.
const WARM_UP_STEPS: u64 = 3;
/// Seconds of steps that are timed before the total is fixed.
const TIMED_SECONDS: f64 = 8.0;
/// Share of the time left that is planned with: the rest goes to checkpoints, validation and pictures.
const USABLE_SHARE: f64 = 0.93;

/// Linear warm-up over `warmup` steps to `peak`, then half a cosine to 0 at `total`; a pure function of the step.
pub fn learning_rate(step: u64, peak: f64, warmup: u64, total: u64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
}

/// Fixes the total number of steps once the first steps have been timed against a deadline.
pub struct Budget {
    deadline: Option<Instant>,
    timed_from: Option<(u64, Instant)>,
}

impl Budget {
    /// `deadline`: `None` where the configured number of steps is all that counts, or the total is fixed already.
    pub fn new(deadline: Option<Instant>) -> Self {
        Budget { deadline, timed_from: None }
    }

    /// Call before step `step`; returns the number of steps in all that fit, once, when it is known.
    pub fn fit(&mut self, step: u64, first: u64) -> Option<u64> {
        let deadline = self.deadline?;
        let now = Instant::now();
        if step < first + WARM_UP_STEPS {
            return None;
        }
        let Some((from, start)) = self.timed_from else {
            self.timed_from = Some((step, now));
            return None;
        };
        let (steps, seconds) = (step - from, (now - start).as_secs_f64());
        if steps == 0 || (seconds < TIMED_SECONDS && now < deadline) {
            return None;
        }
        self.deadline = None;
        let left = deadline.saturating_duration_since(now).as_secs_f64() * USABLE_SHARE;
        Some(step + (left / (seconds / steps as f64)) as u64)
    }
}
