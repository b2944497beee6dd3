//! How a set's features lie beside those of real images.

use serde::Serialize;

use crate::error::Result;
use crate::eval::Features;
use crate::eval::quality::{Gaussian, frechet_distance, overlap};

/// Real images beside which generated ones are counted: neighbours among more would take minutes.
pub const MOST_IMAGES: usize = 10_000;

#[derive(Clone, Debug, Serialize)]
pub struct Distances {
    pub frechet: f64,
    pub precision: f64,
    pub recall: f64,
    pub density: f64,
    pub coverage: f64,
}

/// The real images' side.
pub struct Reference {
    gaussian: Gaussian,
    /// At most [`MOST_IMAGES`] of the images.
    some: Features,
    neighbours: usize,
}

impl Reference {
    /// `features` are those of all real images that are compared with.
    pub fn new(features: &Features, neighbours: usize) -> Result<Self> {
        let some = places(features.len()).flat_map(|i| features.row(i).to_vec()).collect();
        let some = Features { values: some, dims: features.dims };
        Ok(Reference { gaussian: Gaussian::fit(features)?, some, neighbours })
    }

    pub fn distances(&self, features: &Features) -> Result<Distances> {
        let overlap = overlap(&self.some, features, self.neighbours)?;
        Ok(Distances {
            frechet: frechet_distance(&self.gaussian, &Gaussian::fit(features)?)?,
            precision: overlap.precision,
            recall: overlap.recall,
            density: overlap.density,
            coverage: overlap.coverage,
        })
    }
}

/// At most [`MOST_IMAGES`] of `n` places, evenly spaced.
pub fn places(n: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(n.div_ceil(MOST_IMAGES).max(1))
}
