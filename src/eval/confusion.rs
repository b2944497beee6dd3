//! The classes that students mistake for each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RunResult;
use crate::data::ImageSet;

/// Pairs that a result lists.
const LISTED: usize = 20;

/// Mistakes of one student on the test images: (class, class that it said, images), sorted; pairs without any are left out.
pub type Mistakes = Vec<(u16, u16, u32)>;

/// Test images of one class that students take for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    pub class: usize,
    pub name: String,
    /// What the students say.
    pub predicted: usize,
    pub predicted_name: String,
    /// Percent of the class's test images, mean over runs.
    pub share: f64,
}

/// The pairs of classes with the largest shares, at most twenty, over the runs whose mistakes are known.
pub(super) fn most_confused(test: &ImageSet, results: &[RunResult]) -> Vec<Confusion> {
    let known: Vec<&Mistakes> = results.iter().filter_map(|result| result.mistakes.as_ref()).collect();
    let mut sums = BTreeMap::new();
    for &(class, predicted, images) in known.iter().copied().flatten() {
        *sums.entry((usize::from(class), usize::from(predicted))).or_insert(0) += images;
    }
    let totals: Vec<usize> = test.by_class().iter().map(Vec::len).collect();
    let mut pairs: Vec<Confusion> = sums
        .into_iter()
        .filter(|((class, predicted), _)| totals.get(*class).is_some_and(|&n| n > 0) && *predicted < totals.len())
        .map(|((class, predicted), images)| Confusion {
            class,
            name: test.classes[class].name.clone(),
            predicted,
            predicted_name: test.classes[predicted].name.clone(),
            share: 100.0 * f64::from(images) / (totals[class] * known.len()) as f64,
        })
        .collect();
    pairs.sort_by(|a, b| b.share.total_cmp(&a.share)); // stable: equals stay in order of class
    pairs.truncate(LISTED);
    pairs
}
