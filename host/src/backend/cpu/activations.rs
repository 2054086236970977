//! Norm and quantisation of rows: floats in, INT8 values with their unit out.

use rayon::prelude::*;
use tercet_core::activation::{PEAK_MIN, RowUnit};
use tercet_core::packed::Rows128;
use tercet_core::simd::Simd;

use super::threads::Threads;
use crate::math;

/// Quantised rows of a step.
#[derive(Debug)]
pub(super) struct Activations {
    /// `(rows_max, stride)`; the tail of each row is zero.
    values: Vec<i8>,
    /// `(rows_max,)`
    units: Vec<RowUnit>,
    /// Weighted rows before rounding, `(rows_max, stride)`.
    products: Vec<f32>,
    /// Elements from row to row, for the widest row.
    stride: usize,
    /// Rows and columns quantised last.
    shape: (usize, usize),
}

impl Activations {
    pub(super) fn new(rows_max: usize, cols_max: usize) -> Self {
        let stride = Rows128::padded_cols(cols_max);
        Self {
            values: vec![0; rows_max * stride],
            units: vec![RowUnit { unit: 0.0, sum: 0 }; rows_max],
            products: vec![0.0; rows_max * stride],
            stride,
            shape: (0, 0),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.shape.0
    }

    /// Values of rows `first..first + count`, `(count, stride)`.
    pub(super) fn values(&self, first: usize, count: usize) -> &[i8] {
        &self.values[first * self.stride..(first + count) * self.stride]
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// `(rows,)`
    pub(super) fn units(&self) -> &[RowUnit] {
        &self.units[..self.shape.0]
    }

    /// Normalises (when there is a norm) and quantises every row of `x`, `(rows, cols)`.
    pub(super) fn quantize(
        &mut self,
        threads: &Threads,
        simd: Simd,
        x: &[f32],
        cols: usize,
        norm: Option<Norm<'_>>,
    ) {
        let rows = x.len() / cols;
        self.shape = (rows, cols);
        let padded = Rows128::padded_cols(cols);
        let one =
            |((values, unit), (products, x)): ((&mut [i8], &mut RowUnit), (&mut [f32], _))| {
                *unit = match norm {
                    Some(norm) => {
                        norm.quantize(simd, x, &mut products[..cols], &mut values[..padded])
                    }
                    None => simd.quantize_row(x, &mut values[..padded]),
                };
            };
        let values = self.values.par_chunks_mut(self.stride).zip(&mut self.units);
        let rest = self.products.par_chunks_mut(self.stride).zip(x.par_chunks(cols));
        threads.install(|| values.zip(rest).with_min_len(4).for_each(one));
    }
}

/// RMS norm in front of a quantisation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm<'a> {
    /// `(cols,)`
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

impl Norm<'_> {
    /// `1 / sqrt(mean(x²) + eps)`, in the canonical order of `sum_of_squares`.
    #[inline(always)]
    fn inverse_rms(self, x: &[f32]) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^24 columns")]
        let mean = math::sum_of_squares(x) / x.len() as f32;
        1.0 / (mean + self.eps).sqrt()
    }

    /// `quantize(weight · x · inverse_rms)` without ever multiplying by `inverse_rms`.
    ///
    /// The factor is the same for the whole row, so it cancels between a value and the peak: the
    /// codes come from `weight · x` alone and need no sum. It returns in the unit:
    /// `unit = (peak / 127) · inverse_rms`. The least peak of the canonical formula, 1e-5, is
    /// carried to the other side of the factor.
    fn quantize(self, simd: Simd, x: &[f32], products: &mut [f32], values: &mut [i8]) -> RowUnit {
        let inverse_rms = simd.vectorize(
            #[inline(always)]
            || {
                for (product, (x, weight)) in products.iter_mut().zip(x.iter().zip(self.weight)) {
                    *product = x * weight;
                }
                self.inverse_rms(x)
            },
        );
        // The last bound never counts, except in a row of NaN, whose unit comes out as NaN.
        let peak = simd.peak(products).max(PEAK_MIN / inverse_rms).max(f32::MIN_POSITIVE);
        let row = simd.quantize_row_at(products, peak, values);
        RowUnit { unit: row.unit * inverse_rms, sum: row.sum }
    }

    /// `out = (x · inverse_rms) · weight`, for the head, which reads floats.
    pub(super) fn apply(self, simd: Simd, x: &[f32], out: &mut [f32]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let inverse_rms = self.inverse_rms(x);
                for (out, (x, weight)) in out.iter_mut().zip(x.iter().zip(self.weight)) {
                    *out = x * inverse_rms * weight;
                }
            },
        );
    }
}
