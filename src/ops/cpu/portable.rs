//! Products on any processor: the one place that calls the `gemm` crate, which chooses AVX2 or NEON at run time.

use gemm::Parallelism;

/// `out = rows · panel`, or `out +=` where `add`: `[count, units]` with `stride` floats from row to row times `[units, width]`.
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply(
    rows: &[f32],
    stride: usize,
    count: usize,
    units: usize,
    panel: &[f32],
    width: usize,
    out: &mut [f32],
    out_stride: usize,
    add: bool,
) {
    assert!(units == 0 || (count - 1) * stride + units <= rows.len(), "rows beyond their slice");
    assert!(units * width <= panel.len() && (count - 1) * out_stride + width <= out.len(), "product beyond its slice");
    // SAFETY: the assertions above; `out` is borrowed mutably for the whole call.
    unsafe {
        gemm::gemm(
            count,
            width,
            units,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            add,
            rows.as_ptr(),
            1,
            stride as isize,
            panel.as_ptr(),
            1,
            width as isize,
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
