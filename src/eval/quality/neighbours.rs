//! Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), and nearest neighbours.
//!
//! A ball stands around each image of a set; its radius is the distance to the image's k-th nearest neighbour in its own
//! set. Distances are computed in f64, from |a|^2 + |b|^2 - 2 a b after the real images' mean is taken away.

use faer::linalg::matmul::matmul;
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, Par};
use rayon::prelude::*;

use crate::error::Result;
use crate::eval::Features;
use crate::fail;

/// Rows of a block of distances.
const BLOCK: usize = 256;

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

/// Points in f64, a column each, and their squared lengths.
struct Points {
    columns: Mat<f64>,
    squares: Vec<f64>,
}

impl Points {
    fn new(features: &Features, origin: &[f64]) -> Self {
        let columns = Mat::from_fn(features.dims, features.len(), |d, i| f64::from(features.row(i)[d]) - origin[d]);
        let squares = (0..columns.ncols()).map(|i| columns.col(i).iter().map(|v| v * v).sum()).collect();
        Points { columns, squares }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    /// Calls `with` for each point (its index) with the squared distances to all points of `others`, in order. The rows of
    /// a block are worked on in parallel.
    fn distances<T: Send>(&self, others: &Points, with: impl Fn(usize, &mut [f64]) -> T + Sync) -> Vec<T> {
        let mut out = Vec::with_capacity(self.len());
        let mut products = Mat::zeros(others.len(), BLOCK);
        for start in (0..self.len()).step_by(BLOCK) {
            let rows = BLOCK.min(self.len() - start);
            let left = others.columns.transpose();
            let right = self.columns.subcols(start, rows);
            let mut products = products.as_mut().subcols_mut(0, rows);
            matmul(products.rb_mut(), Accum::Replace, left, right, -2.0, Par::rayon(0));
            let columns = products.par_col_iter_mut().enumerate().map(|(row, column)| {
                let square = self.squares[start + row];
                let mut distances: Vec<f64> =
                    column.iter().zip(&others.squares).map(|(p, s)| (p + square + s).max(0.0)).collect();
                with(start + row, &mut distances)
            });
            out.extend(columns.collect::<Vec<T>>());
        }
        out
    }

    /// The squared distance from each point to its k-th nearest neighbour among the others.
    fn radii(&self, k: usize) -> Vec<f64> {
        self.distances(self, |own, distances| {
            distances[own] = f64::INFINITY;
            *distances.select_nth_unstable_by(k - 1, f64::total_cmp).1
        })
    }
}

/// The mean of each feature.
fn mean(features: &Features) -> Vec<f64> {
    let mut mean = vec![0.0; features.dims];
    for row in features.values.chunks_exact(features.dims) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / features.len() as f64);
    }
    mean
}

/// The overlap of `generated` with `real` for balls of `k` neighbours. An error if a set has no k-th neighbour.
pub fn overlap(real: &Features, generated: &Features, k: usize) -> Result<Overlap> {
    for (what, set) in [("real", real), ("generated", generated)] {
        if set.len() <= k {
            fail!(
                "precision, recall, density and coverage need more than {k} images of each side, found {} {what} ones; \
                 take more images",
                set.len()
            );
        }
    }
    let origin = mean(real);
    let (real, generated) = (Points::new(real, &origin), Points::new(generated, &origin));
    let (real_radii, generated_radii) = (real.radii(k), generated.radii(k));
    // For each generated image: the number of real balls that it lies in.
    let inside: Vec<usize> =
        generated.distances(&real, |_, row| row.iter().zip(&real_radii).filter(|(d, r)| d < r).count());
    // For each real image: whether it lies in a generated ball, and whether its own ball holds a generated image.
    let reached: Vec<(bool, bool)> = real.distances(&generated, |own, row| {
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
    let origin = mean(among);
    let (of, among) = (Points::new(of, &origin), Points::new(among, &origin));
    of.distances(&among, |_, row| {
        let closest = |best: usize, i: usize| if row[i] < row[best] { i } else { best };
        let index = (1..row.len()).fold(0, closest);
        (index, row[index].sqrt())
    })
}
