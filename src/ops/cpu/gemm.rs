//! Matrix products of f32 slices on one thread; callers split the work over threads themselves.

/// A matrix inside a slice: element (i, j) stands at `values[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major with `row_stride` elements from one row to the next.
    pub fn rows(values: &'a [f32], row_stride: usize) -> Self {
        Matrix { values, row_stride, col_stride: 1 }
    }

    /// The transpose of a row-major matrix with `row_stride`.
    pub fn transposed(values: &'a [f32], row_stride: usize) -> Self {
        Matrix { values, row_stride: 1, col_stride: row_stride }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.values.len()
    }
}

/// `out (m x n, row-major, row stride `out_stride`) = beta out + alpha a (m x k) b (k x n)`.
///
/// # Panics
/// If a matrix does not fit its slice; callers derive all sizes from tensor shapes that they have checked.
#[allow(clippy::too_many_arguments)]
pub fn gemm(
    out: &mut [f32],
    out_stride: usize,
    (m, n, k): (usize, usize, usize),
    a: Matrix,
    b: Matrix,
    alpha: f32,
    beta: f32,
) {
    assert!(a.holds(m, k) && b.holds(k, n), "gemm: an operand is smaller than {m} x {k} or {k} x {n}");
    assert!(m == 0 || n == 0 || (m - 1) * out_stride + n <= out.len(), "gemm: the output is smaller than {m} x {n}");
    // SAFETY: the assertions above keep every access inside the three slices, and `out` is borrowed mutably.
    #[rustfmt::skip]
    unsafe {
        gemm::gemm(
            m, n, k,
            out.as_mut_ptr(), 1, out_stride as isize, beta != 0.0,
            a.values.as_ptr(), a.col_stride as isize, a.row_stride as isize,
            b.values.as_ptr(), b.col_stride as isize, b.row_stride as isize,
            beta, alpha, false, false, false,
            gemm::Parallelism::None,
        );
    };
}
