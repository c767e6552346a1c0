//! Products of `f32` matrices whose both sides change, as training has them. Knows strides, no layers.
//!
//! [`crate::gemm`] multiplies by weights that are packed once, for a few rows. Here both sides are new each time and
//! large, which is what the `gemm` library is for; it is wrapped because it takes pointers. A transposed matrix is a
//! pair of strides, never a copy. Each number of a result is one sum in one order, whatever the number of threads.

use std::ops::Range;

use gemm::Parallelism;

#[cfg(test)]
mod tests;

/// Multiplications below which threads cost more than they save.
const PARALLEL_FROM: usize = 1 << 20;

/// A matrix in memory of which rows, columns and order are chosen freely.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    start: usize,
    dims: (usize, usize),
    strides: (usize, usize),
}

impl<'a> View<'a> {
    /// Rows of `row_len` values, one after another.
    ///
    /// # Panics
    /// If `data` is not whole rows.
    pub fn rows(data: &'a [f32], row_len: usize) -> Self {
        let row_len = row_len.max(1);
        assert!(
            data.len().is_multiple_of(row_len),
            "expected whole rows of {row_len}"
        );
        Self {
            data,
            start: 0,
            dims: (data.len() / row_len, row_len),
            strides: (row_len, 1),
        }
    }

    /// Columns as rows.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            dims: (self.dims.1, self.dims.0),
            strides: (self.strides.1, self.strides.0),
            ..self
        }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn row_range(self, rows: Range<usize>) -> Self {
        assert!(
            rows.start <= rows.end && rows.end <= self.dims.0,
            "expected rows of the matrix"
        );
        Self {
            start: self.start + rows.start * self.strides.0,
            dims: (rows.len(), self.dims.1),
            ..self
        }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn col_range(self, cols: Range<usize>) -> Self {
        self.transposed().row_range(cols).transposed()
    }

    /// Rows and columns.
    pub fn dims(self) -> (usize, usize) {
        self.dims
    }

    /// The first value; all others are within the slice.
    fn ptr(&self) -> *const f32 {
        let (rows, cols) = self.dims;
        if rows > 0 && cols > 0 {
            let last = self.start + (rows - 1) * self.strides.0 + (cols - 1) * self.strides.1;
            assert!(last < self.data.len(), "expected all values inside the slice");
        }
        self.data[self.start.min(self.data.len())..].as_ptr()
    }
}

/// Where a product goes: rows of `stride` values, of which as many as the product has are written.
#[derive(Debug)]
pub struct Target<'a> {
    /// Rows one after another.
    pub data: &'a mut [f32],
    /// From a row to the next.
    pub stride: usize,
    /// Whether the product is added to what is there.
    pub adds: bool,
}

/// `target (+)= factor * left * right`, on the threads of the current rayon pool.
///
/// # Panics
/// If shapes contradict each other.
pub fn product(left: View<'_>, right: View<'_>, factor: f32, target: Target<'_>) {
    let (rows, inner) = left.dims;
    let work = rows * inner * right.dims.1;
    let parallelism = if work >= PARALLEL_FROM {
        // All threads of the pool.
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    run(left, right, factor, target, parallelism);
}

/// [`product`] on this thread alone, for callers that are one of many.
///
/// # Panics
/// If shapes contradict each other.
pub fn product_here(left: View<'_>, right: View<'_>, factor: f32, target: Target<'_>) {
    run(left, right, factor, target, Parallelism::None);
}

fn run(left: View<'_>, right: View<'_>, factor: f32, target: Target<'_>, parallelism: Parallelism) {
    let ((rows, inner), (right_rows, cols)) = (left.dims, right.dims);
    let Target { data, stride, adds } = target;
    assert_eq!(inner, right_rows, "expected equal inner lengths");
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(
        cols <= stride && (rows - 1) * stride + cols <= data.len(),
        "expected the target to hold the product"
    );
    let strides = |view: View<'_>| (view.strides.1 as isize, view.strides.0 as isize);
    let ((left_cs, left_rs), (right_cs, right_rs)) = (strides(left), strides(right));
    // SAFETY: `ptr` has checked that the views lie in their slices, the assertion that the product lies in the target,
    // which no one else holds.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            inner,
            data.as_mut_ptr(),
            1,
            stride as isize,
            adds,
            left.ptr(),
            left_cs,
            left_rs,
            right.ptr(),
            right_cs,
            right_rs,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}
