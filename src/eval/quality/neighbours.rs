//! Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), and nearest neighbours.
//!
//! A ball stands around each image of a set; its radius is the distance to the image's k-th nearest neighbour in its own
//! set.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::error::Result;
use crate::eval::Features;
use crate::fail;

/// Images that are compared at once with all others, which so come from memory less often.
const BLOCK: usize = 8;
/// Sums side by side.
const LANES: usize = 16;

/// How the balls of generated and of real images overlap. Each is a share of images, but for density, which has no upper
/// bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Of the generated images, those inside a real image's ball: are they realistic?
    pub precision: f64,
    /// Of the real images, those inside a generated image's ball: is everything drawn?
    pub recall: f64,
    /// Real balls that a generated image lies in, over k, on average; about 1 where both sets are alike.
    pub density: f64,
    /// Of the real images, those whose ball holds a generated image.
    pub coverage: f64,
}

/// Calls `with` for each row of `of` (its index) with its squared distances from all rows of `among`, in order.
fn distances<T: Send>(of: &Features, among: &Features, with: impl Fn(usize, &mut [f64]) -> T + Sync) -> Vec<T> {
    let blocks = (0..of.len().div_ceil(BLOCK)).into_par_iter().flat_map_iter(|block| {
        let rows = block * BLOCK..((block + 1) * BLOCK).min(of.len());
        let mut found = vec![0.0; rows.len() * among.len()];
        for (other, values) in among.values.chunks_exact(among.dims).enumerate() {
            for (place, row) in rows.clone().enumerate() {
                found[place * among.len() + other] = squared_distance(of.row(row), values);
            }
        }
        let with = &with;
        rows.enumerate().map(move |(place, row)| with(row, &mut found[place * among.len()..][..among.len()]))
    });
    blocks.collect()
}

/// From the differences in f64, so that it is 0 for equal points and the same in both directions: balls are compared with
/// distances exactly, ties included.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; LANES]; // which vector code may keep side by side
    let mut add = |a: &[f32], b: &[f32]| {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            let difference = f64::from(a) - f64::from(b);
            *sum += difference * difference;
        }
    };
    let (wholes, rest) = a.as_chunks::<LANES>();
    let (other_wholes, other_rest) = b.as_chunks::<LANES>();
    wholes.iter().zip(other_wholes).for_each(|(a, b)| add(a, b));
    add(rest, other_rest);
    sums.iter().sum()
}

/// The squared distance from each image to its k-th nearest neighbour among the others.
fn radii(features: &Features, k: usize) -> Vec<f64> {
    distances(features, features, |own, distances| {
        distances[own] = f64::INFINITY;
        *distances.select_nth_unstable_by(k - 1, f64::total_cmp).1
    })
}

/// The overlap of `generated` with `real` for balls of `k` neighbours. An error if a set has no k-th neighbour
/// or a feature is not finite.
pub fn overlap(real: &Features, generated: &Features, k: usize) -> Result<Overlap> {
    for (what, set) in [("real", real), ("generated", generated)] {
        if set.len() <= k {
            fail!(
                "precision, recall, density and coverage need more than {k} images of each side, found {} {what} ones; \
                 take more images",
                set.len()
            );
        }
        if let Some(place) = set.values.iter().position(|v| !v.is_finite()) {
            fail!("the features of {what} image {} are not finite; the network went astray", place / set.dims);
        }
    }
    let (real_radii, generated_radii) = (radii(real, k), radii(generated, k));
    // For each generated image: the number of real balls that it lies in.
    let inside: Vec<usize> =
        distances(generated, real, |_, row| row.iter().zip(&real_radii).filter(|(d, r)| d < r).count());
    // For each real image: whether it lies in a generated ball, and whether its own ball holds a generated image.
    let reached: Vec<(bool, bool)> = distances(real, generated, |own, row| {
        let recalled = row.iter().zip(&generated_radii).any(|(d, r)| d < r);
        (recalled, row.iter().any(|d| *d < real_radii[own]))
    });
    let share = |count: usize, of: usize| count as f64 / of as f64;
    Ok(Overlap {
        precision: share(inside.iter().filter(|&&n| n > 0).count(), inside.len()),
        recall: share(reached.iter().filter(|(recalled, _)| *recalled).count(), reached.len()),
        density: share(inside.iter().sum(), k * inside.len()),
        coverage: share(reached.iter().filter(|(_, covered)| *covered).count(), reached.len()),
    })
}

/// For each image of `of`, its nearest image among `among` (the first of equals) and the distance.
pub fn nearest(of: &Features, among: &Features) -> Vec<(usize, f64)> {
    distances(of, among, |_, row| {
        let closest = |best: usize, i: usize| if row[i] < row[best] { i } else { best };
        let index = (1..row.len()).fold(0, closest);
        (index, row[index].sqrt())
    })
}
