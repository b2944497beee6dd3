//! What generated images are like beside real ones, in the features of a network: docs/quality.md.

mod frechet;
mod neighbours;

pub use frechet::{Gaussian, frechet_distance};
pub use neighbours::{Overlap, nearest, overlap};
