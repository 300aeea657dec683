//! The one place that calls the `gemm` crate: matrix views with strides, checked against their slices.

use gemm::Parallelism;

/// A matrix in a slice: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a> Mat<'a> {
    /// `[rows, cols]`, row after row.
    pub(super) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]` with `stride` elements from row to row.
    pub(super) fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "matrix view beyond its slice");
        Self { data, rows, cols, row: stride, col: 1 }
    }

    /// The transposed view.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// Where a product goes: `[rows, cols]` with `stride` elements from row to row.
///
/// A raw pointer, because heads of attention write interleaved columns of one buffer from several threads.
#[derive(Clone, Copy)]
pub(super) struct Out {
    data: *mut f32,
    stride: usize,
}

// SAFETY: an `Out` is only written through `product`, whose callers give each thread rows and columns of its own.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// Rows of `stride` elements in `data`.
    pub(super) fn new(data: &mut [f32], stride: usize) -> Self {
        Self { data: data.as_mut_ptr(), stride }
    }

    /// The same matrix from element `(row, col)` on.
    ///
    /// # Safety
    /// The element must lie inside the slice this was made from.
    pub(super) unsafe fn at(self, row: usize, col: usize) -> Self {
        // SAFETY: by the caller's promise the offset stays inside the allocation.
        Self { data: unsafe { self.data.add(row * self.stride + col) }, ..self }
    }

    /// Writes `rows`, `width` elements each, to the first columns of as many rows.
    ///
    /// # Safety
    /// They must lie inside the slice this was made from, and nobody else may read or write them meanwhile.
    pub(super) unsafe fn copy_rows(self, rows: &[f32], width: usize) {
        for (i, row) in rows.chunks_exact(width).enumerate() {
            // SAFETY: by the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), self.data.add(i * self.stride), width) };
        }
    }
}

/// `out = factor · a·b`, or `out += factor · a·b` where `add`; on all threads of the pool where `parallel`.
///
/// # Safety
/// `out` must hold `[a.rows, b.cols]` elements that nobody else reads or writes meanwhile.
pub(super) unsafe fn product_into(out: Out, add: bool, factor: f32, a: Mat<'_>, b: Mat<'_>, parallel: bool) {
    assert_eq!(a.cols, b.rows, "inner sizes of a product differ");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    let parallelism = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: `Mat` checked that its elements lie in its slice; the caller promises the same of `out`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data,
            1,
            out.stride as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            if add { 1.0 } else { 0.0 },
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// As [`product_into`] for a slice whose rows are `stride` apart.
pub(super) fn product(out: &mut [f32], stride: usize, add: bool, factor: f32, a: Mat<'_>, b: Mat<'_>, parallel: bool) {
    assert!(a.rows == 0 || b.cols == 0 || (a.rows - 1) * stride + b.cols <= out.len(), "product beyond its slice");
    let out = Out::new(out, stride);
    // SAFETY: the assertion above, and the slice is borrowed mutably for the whole call.
    unsafe { product_into(out, add, factor, a, b, parallel) }
}
