//! Which examples a step sees: a pure function of the seed and the step.

use std::cell::RefCell;

use crate::rng::Rng;

/// Full batches from one shuffled pass over the data after another; a batch may span two passes.
pub struct Batches {
    seed: u64,
    examples: usize,
    batch_size: usize,
    /// The pass drawn last, and its order.
    order: RefCell<(u64, Vec<u32>)>,
}

impl Batches {
    /// `examples` must not be 0.
    pub fn new(seed: u64, examples: usize, batch_size: usize) -> Self {
        Batches { seed, examples, batch_size, order: RefCell::new((u64::MAX, Vec::new())) }
    }

    /// The examples of step `step`.
    pub fn at(&self, step: u64) -> Vec<usize> {
        let first = step * self.batch_size as u64;
        (first..first + self.batch_size as u64).map(|place| self.example(place)).collect()
    }

    fn example(&self, place: u64) -> usize {
        let (pass, offset) = (place / self.examples as u64, place % self.examples as u64);
        let mut order = self.order.borrow_mut();
        if order.0 != pass {
            *order = (pass, Rng::stream(self.seed, "batch", pass as u32, 0).permutation(self.examples));
        }
        order.1[offset as usize] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_holds_each_example_once_and_any_step_can_be_asked_alone() {
        let batches = Batches::new(3, 10, 4);
        let mut seen: Vec<usize> = (0..5).flat_map(|step| batches.at(step)).collect();
        assert_eq!(batches.at(2), seen[8..12]);
        assert_eq!(Batches::new(3, 10, 4).at(4), seen[16..20]);
        let mut second = seen.split_off(10);
        seen.sort_unstable();
        second.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(second, (0..10).collect::<Vec<_>>());
    }
}
