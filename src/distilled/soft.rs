//! Soft labels: a probability for each class, for one or several views of each image.

use std::sync::Arc;

/// The soft labels of a set's images.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftLabels {
    /// (N, views, classes): probabilities at temperature 1, so that each row sums to 1. A teacher's logits are their
    /// logarithms, up to a constant.
    pub values: Arc<Vec<f32>>,
    /// K, at least 1. View 0 is the image itself, views 1 to K - 1 are augmented, as `eval::view` has them.
    pub views: usize,
}

/// How far from 1 a row may sum up to, for the rounding of half precision.
const SLACK: f64 = 0.01;

impl SoftLabels {
    /// Checks that there are `images` x `views` rows of `classes` probabilities. Errors are sentences.
    pub fn check(&self, images: usize, classes: usize) -> Result<(), String> {
        let expected = images.checked_mul(self.views).and_then(|rows| rows.checked_mul(classes));
        if self.views == 0 || classes == 0 || expected != Some(self.values.len()) {
            return Err(format!(
                "there are {} soft label values, expected one for each of {images} images, {} views and {classes} classes",
                self.values.len(),
                self.views
            ));
        }
        for (row, values) in self.values.chunks_exact(classes).enumerate() {
            let of = || format!("the soft label of image {}", row / self.views);
            if let Some(strange) = values.iter().find(|v| !v.is_finite() || **v < 0.0) {
                return Err(format!("{} has the probability {strange}; {LOGITS}", of()));
            }
            let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
            if (sum - 1.0).abs() > SLACK {
                return Err(format!("{} sums up to {sum:.4}, expected 1; {LOGITS}", of()));
            }
        }
        Ok(())
    }

    /// The probabilities of image `image`'s view `view`: (classes).
    pub fn row(&self, image: usize, view: usize, classes: usize) -> &[f32] {
        &self.values[(image * self.views + view) * classes..][..classes]
    }

    /// The likeliest class of each image's view 0, the first of equals.
    pub fn likeliest(&self, classes: usize) -> Vec<usize> {
        let best = |row: &[f32]| (1..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
        self.values.chunks_exact(self.views * classes).map(|rows| best(&rows[..classes])).collect()
    }

    /// Those of the images at `indices`, in that order.
    pub fn subset(&self, indices: &[usize], classes: usize) -> SoftLabels {
        let rows = self.views * classes;
        let values = indices.iter().flat_map(|&i| &self.values[i * rows..][..rows]).copied().collect();
        SoftLabels { values: Arc::new(values), views: self.views }
    }
}

const LOGITS: &str = "soft labels are probabilities: if these are logits, apply softmax to them first";
