//! The Frechet distance between Gaussians that are fitted to features (Heusel et al. 2017, eq. 6).

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par, Side};

use crate::error::{Error, Result};
use crate::eval::Features;
use crate::fail;

/// Images whose features are widened to f64 at once.
const BLOCK: usize = 4096;

/// The mean and the covariance of features, in f64.
#[derive(Clone, Debug)]
pub struct Gaussian {
    mean: Vec<f64>,
    covariance: Mat<f64>,
}

impl Gaussian {
    /// Fits the mean and the sample covariance (n - 1). An error for fewer than two images.
    pub fn fit(features: &Features) -> Result<Self> {
        let (n, dims) = (features.len(), features.dims);
        if n < 2 {
            fail!("the Frechet distance needs at least 2 images of each side, found {n}; take more images");
        }
        let mut mean = vec![0.0; dims];
        for row in features.values.chunks_exact(dims) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= n as f64);
        let mut covariance = Mat::zeros(dims, dims);
        for block in features.values.chunks(BLOCK * dims) {
            let centred = Mat::from_fn(dims, block.len() / dims, |d, i| f64::from(block[i * dims + d]) - mean[d]);
            let (transposed, scale) = (centred.transpose(), 1.0 / (n - 1) as f64);
            matmul(covariance.as_mut(), Accum::Add, centred.as_ref(), transposed, scale, Par::rayon(0));
        }
        Ok(Gaussian { mean, covariance })
    }

    /// The sum of the variances.
    pub fn trace(&self) -> f64 {
        (0..self.mean.len()).map(|i| self.covariance[(i, i)]).sum()
    }
}

/// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), which is never below 0 but by rounding: about 1e-9 of the traces.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64> {
    if a.mean.len() != b.mean.len() {
        fail!("the Frechet distance compares features of one network: {} and {} values", a.mean.len(), b.mean.len());
    }
    let means: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b) * (a - b)).sum();
    // tr (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2): no root is taken of a rounded zero.
    let product = root(&a.covariance)? * root(&b.covariance)?;
    let values = product.singular_values().map_err(|_| diverged())?;
    Ok(means + a.trace() + b.trace() - 2.0 * values.iter().sum::<f64>())
}

/// The symmetric square root of a covariance matrix.
fn root(matrix: &Mat<f64>) -> Result<Mat<f64>> {
    let parts = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| diverged())?;
    let values = parts.S().column_vector();
    // Eigenvalues that are 0 come out as rounding, of either sign.
    let smallest = values.iter().fold(0.0, |most: f64, v| most.max(*v)) * f64::EPSILON * values.nrows() as f64;
    let vectors = parts.U();
    let scaled = Mat::from_fn(vectors.nrows(), vectors.ncols(), |i, j| {
        if values[j] > smallest { vectors[(i, j)] * values[j].sqrt() } else { 0.0 }
    });
    Ok(scaled * vectors.transpose())
}

fn diverged() -> Error {
    Error::Failed("the Frechet distance: the features' covariance has no eigenvalues; are they finite?".into())
}
