//! What linears read: rows normalised, and quantised where the linears are ternary.

use rayon::prelude::*;
use tercet_core::activation::{PEAK_MIN, RowUnit};
use tercet_core::simd::Simd;

use super::CpuBackend;
use crate::backend::Quantized;
use crate::config::LinearKind;
use crate::layout::padded_cols;
use crate::math;
use crate::model::Norm;

/// Rows of a step, ready for a linear.
#[derive(Debug)]
pub(super) struct Activations {
    /// `(rows_max, stride)`; the tail of each row is zero.
    values: Vec<i8>,
    /// `(rows_max,)`
    units: Vec<RowUnit>,
    /// Normed rows, or weighted rows before rounding, `(rows_max, stride)`.
    floats: Vec<f32>,
    /// Elements from row to row, for the widest row.
    stride: usize,
    /// Rows and columns prepared last.
    shape: (usize, usize),
}

impl Activations {
    pub(super) fn new(rows_max: usize, cols_max: usize) -> Self {
        let stride = padded_cols(cols_max);
        Self {
            values: vec![0; rows_max * stride],
            units: vec![RowUnit { unit: 0.0, sum: 0 }; rows_max],
            floats: vec![0.0; rows_max * stride],
            stride,
            shape: (0, 0),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.len() + size_of_val(&self.units[..]) + 4 * self.floats.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.shape.0
    }

    /// Values of rows `first..first + count`, `(count, stride)`.
    pub(super) fn values(&self, first: usize, count: usize) -> &[i8] {
        &self.values[first * self.stride..(first + count) * self.stride]
    }

    /// Floats of rows `first..first + count`, `(count, stride)`.
    pub(super) fn floats(&self, first: usize, count: usize) -> &[f32] {
        &self.floats[first * self.stride..(first + count) * self.stride]
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// `(rows,)`
    pub(super) fn units(&self) -> &[RowUnit] {
        &self.units[..self.shape.0]
    }

    /// What was prepared last, if that was for ternary linears.
    pub(super) fn quantized(&self, kind: LinearKind) -> Option<Quantized> {
        let (rows, cols) = self.shape;
        let row = |row: &[i8]| row[..cols].to_vec();
        (kind == LinearKind::Ternary).then(|| Quantized {
            values: self.values(0, rows).chunks(self.stride).flat_map(row).collect(),
            units: self.units().to_vec(),
        })
    }

    /// Normalises (when there is a norm) every row of `x`, `(rows, cols)`, and makes of it what
    /// linears of `kind` read: quantised values, or floats.
    pub(super) fn prepare(
        &mut self,
        backend: &CpuBackend,
        kind: LinearKind,
        x: &[f32],
        cols: usize,
        norm: Option<RowNorm<'_>>,
    ) {
        let CpuBackend { threads, simd, .. } = backend;
        self.shape = (x.len() / cols, cols);
        let padded = padded_cols(cols);
        let one = |((values, unit), (floats, x)): Row<'_>| {
            let (values, floats) = (&mut values[..padded], &mut floats[..cols]);
            match (kind, norm) {
                (LinearKind::Ternary, Some(norm)) => {
                    *unit = norm.quantize(*simd, x, floats, values)
                }
                (LinearKind::Ternary, None) => *unit = simd.quantize_row(x, values),
                (LinearKind::Float, Some(norm)) => norm.apply(*simd, x, floats),
                (LinearKind::Float, None) => floats.copy_from_slice(x),
            }
        };
        let values = self.values.par_chunks_mut(self.stride).zip(&mut self.units);
        let rest = self.floats.par_chunks_mut(self.stride).zip(x.par_chunks(cols));
        threads.install(|| values.zip(rest).with_min_len(4).for_each(one));
    }
}

/// One row: its values and unit, its floats, its source.
type Row<'a> = ((&'a mut [i8], &'a mut RowUnit), (&'a mut [f32], &'a [f32]));

/// A norm of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowNorm<'a> {
    pub(super) norm: &'a Norm,
    pub(super) eps: f32,
}

impl RowNorm<'_> {
    /// `1 / sqrt(mean(x²) + eps)`, in the canonical order of `sum_of_squares`.
    #[inline(always)]
    fn inverse_rms(self, x: &[f32]) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^24 columns")]
        let mean = math::sum_of_squares(x) / x.len() as f32;
        1.0 / (mean + self.eps).sqrt()
    }

    /// The quantised norm of a row; `products` is `(cols,)` of scratch.
    ///
    /// An RMS norm is quantised without ever multiplying by `inverse_rms`: the factor is the same
    /// for the whole row, so it cancels between a value and the peak, and the codes come from
    /// `weight · x` alone. It returns in the unit: `unit = (peak / 127) · inverse_rms`. The least
    /// peak of the canonical formula, 1e-5, is carried to the other side of the factor.
    fn quantize(self, simd: Simd, x: &[f32], products: &mut [f32], values: &mut [i8]) -> RowUnit {
        if self.norm.bias.is_some() {
            self.apply(simd, x, products);
            return simd.quantize_row(products, values);
        }
        let inverse_rms = simd.vectorize(
            #[inline(always)]
            || {
                let weights = &self.norm.weight;
                for (product, (x, weight)) in products.iter_mut().zip(x.iter().zip(weights)) {
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

    /// RMS norm: `out = (x · inverse_rms) · weight`. Layer norm:
    /// `out = ((x - mean) / sqrt(variance + eps)) · weight + bias`.
    pub(super) fn apply(self, simd: Simd, x: &[f32], out: &mut [f32]) {
        simd.vectorize(
            #[inline(always)]
            || match &self.norm.bias {
                None => {
                    let inverse_rms = self.inverse_rms(x);
                    for (out, (x, weight)) in out.iter_mut().zip(x.iter().zip(&self.norm.weight)) {
                        *out = x * inverse_rms * weight;
                    }
                }
                Some(bias) => {
                    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^24 columns")]
                    let mean = math::sum(x) / x.len() as f32;
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = x - mean;
                    }
                    // The mean square of what is left is the variance.
                    let inverse_deviation = self.inverse_rms(out);
                    let parameters = self.norm.weight.iter().zip(bias);
                    for (out, (weight, bias)) in out.iter_mut().zip(parameters) {
                        *out = *out * inverse_deviation * weight + bias;
                    }
                }
            },
        );
    }
}
