//! Rows of weights rounded to INT8, the same on every device.

use tercet_core::simd::Simd;

use crate::model::FloatMatrix;

/// Rounds row `row` of `matrix` into `codes`, `(cols,)`, by way of `weights`, `(cols,)`. Returns
/// its unit: `max |w| / 127`, with `code = round_half_even(w · (127 / max |w|))`; NaN for a
/// row with a NaN in it.
pub(crate) fn round_row(
    simd: Simd,
    matrix: &FloatMatrix<'_>,
    row: usize,
    weights: &mut [f32],
    codes: &mut [i8],
) -> f32 {
    simd.widen(matrix.stored(row..row + 1), weights);
    if weights.iter().any(|weight| weight.is_nan()) {
        return f32::NAN;
    }
    // The least peak keeps `127 / peak` finite; rows of zeros (unused tokens) are common.
    simd.quantize_row_at(weights, simd.peak(weights).max(1e-30), codes).unit
}
