//! What a network sees in images: the values that its last layer reads.

/// Features of `len()` images, `dims` values each.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// (N, dims), row by row.
    pub values: Vec<f32>,
    pub dims: usize,
}

impl Features {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.values.len() / self.dims.max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The features of image `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dims..][..self.dims]
    }
}
