//! The meaning of each operation: loops, no cleverness.
//!
//! Every [`Simd`](crate::Simd) level equals these functions to the bit, for every byte that can
//! stand in the buffers. They are the definition that tests call, and far too slow for anything
//! else.

use crate::{
    activation::{PEAK_MIN, RowUnit},
    packed::{Layout, PackedBase3, PackedTernary},
};

/// `sums[row] = Σ_c trit(row, c) · values[c]`
///
/// `weights` is `(rows, cols)`, `values` at least `(cols,)`, `sums` `(rows,)`. Exact. A code that
/// is no trit counts as `code − ZERO_CODE`.
///
/// # Panics
///
/// When `values` is shorter than `cols` or `sums` is not `rows` long.
pub fn gemv<L: Layout>(weights: PackedTernary<'_, L>, values: &[i8], sums: &mut [i32]) {
    gemm(weights, values, values.len(), 1, sums);
}

/// `sums[row · batch + b] = Σ_c trit(row, c) · values[b · stride + c]`
///
/// `weights` is `(rows, cols)`, `values` `(batch, stride)` with `stride ≥ cols`, `sums`
/// `(rows, batch)`. Values are any `i8`, −128 included. Exact: `|sum| ≤ 2 · 128 · COLS_MAX < 2³¹`,
/// as a code is at most 2 away from `ZERO_CODE`.
///
/// # Panics
///
/// When `stride` is below `cols`, `values` is shorter than `batch · stride`, or `sums` is not
/// `rows · batch` long.
pub fn gemm<L: Layout>(
    weights: PackedTernary<'_, L>,
    values: &[i8],
    stride: usize,
    batch: usize,
    sums: &mut [i32],
) {
    let (rows, cols) = (weights.rows(), weights.cols());
    assert!(stride >= cols, "stride {stride} is below {cols} columns");
    assert!(
        batch.checked_mul(stride).is_some_and(|needed| needed <= values.len()),
        "{} values for batch {batch} of stride {stride}",
        values.len()
    );
    assert_eq!(Some(sums.len()), rows.checked_mul(batch), "sums must be (rows, batch)");
    for row in 0..rows {
        for b in 0..batch {
            let mut sum = 0;
            for col in 0..cols {
                let trit = i32::from(weights.code(row, col)) - i32::from(L::ZERO_CODE);
                sum += trit * i32::from(values[b * stride + col]);
            }
            sums[row * batch + b] = sum;
        }
    }
}

/// `sums[row] = Σ_c trit(row, c) · values[c]`
///
/// `weights` is `(rows, cols)`, `values` at least `(cols,)`, `sums` `(rows,)`. Exact.
///
/// # Panics
///
/// When `values` is shorter than `cols` or `sums` is not `rows` long.
pub fn gemv_base3(weights: PackedBase3<'_>, values: &[i8], sums: &mut [i32]) {
    let cols = weights.cols();
    assert!(values.len() >= cols, "{} values for {cols} columns", values.len());
    assert_eq!(sums.len(), weights.rows(), "a sum for every row");
    for (row, sum) in sums.iter_mut().enumerate() {
        *sum =
            (0..cols).map(|col| i32::from(weights.trit(row, col)) * i32::from(values[col])).sum();
    }
}

/// `max |x[c]|`, with NaN ignored and 0 for an empty or all-NaN row.
pub fn peak(x: &[f32]) -> f32 {
    let mut peak = 0.0;
    for x in x {
        // False for NaN.
        if x.abs() > peak {
            peak = x.abs();
        }
    }
    peak
}

/// [`quantize_row_at`] the row's own peak, at least [`PEAK_MIN`].
///
/// # Panics
///
/// As [`quantize_row_at`].
pub fn quantize_row(x: &[f32], values: &mut [i8]) -> RowUnit {
    quantize_row_at(x, peak(x).max(PEAK_MIN), values)
}

/// `values[c] = round_half_even(x[c] · (127 / peak))`, clamped to −127..=127; 0 for NaN, and 0
/// beyond `x.len()`. See [`activation`](crate::activation).
///
/// # Panics
///
/// When `peak` is not above 0 or `values` is shorter than `x`.
pub fn quantize_row_at(x: &[f32], peak: f32, values: &mut [i8]) -> RowUnit {
    assert!(peak > 0.0, "a peak of {peak} has no unit");
    assert!(values.len() >= x.len(), "{} values for {} numbers", values.len(), x.len());
    values.fill(0);
    let factor = 127.0 / peak;
    let mut sum = 0;
    for (value, x) in values.iter_mut().zip(x) {
        *value = round_half_even(x * factor).clamp(-127, 127) as i8;
        sum += i32::from(*value);
    }
    RowUnit { unit: peak / 127.0, sum }
}

/// The nearest integer, the even one of two; saturated to `i32`, 0 for NaN.
fn round_half_even(x: f32) -> i32 {
    let truncated = x as i32; // saturates; 0 for NaN
    let rest = x - truncated as f32; // exact for |x| < 2²³; 0 beyond; NaN for NaN
    if rest.abs() > 0.5 || (rest.abs() == 0.5 && truncated % 2 != 0) {
        truncated.saturating_add(if x > 0.0 { 1 } else { -1 })
    } else {
        truncated
    }
}

/// `Σ a[i] · b[i]`: element `i` is added to running lane `i % 32`, then the upper half of the lanes
/// is added to the lower half until one is left. Products and sums round separately.
///
/// # Panics
///
/// When the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "a dot product of different lengths");
    let mut lanes = [0.0; 32];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[i % 32] += a * b;
    }
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
