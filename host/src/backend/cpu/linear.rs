//! Linears over prepared rows: exact sums from `core` with two roundings after them, or dots of
//! floats.

use rayon::prelude::*;
use tercet_core::simd::{FloatRows, Simd};

use super::activations::Activations;
use super::threads::Threads;
use super::{CpuBackend, CpuLinear, CpuMatrix};
use crate::config::Activation;
use crate::math;

/// Rows of a step that one task of a prefill multiplies together.
const TILE_ROWS: usize = 32;
/// Features of a tile; the sums of `TILE_ROWS` rows of two matrices stay in the first cache.
const TILE_FEATURES: usize = 64;
/// Most matrices that share an epilogue (gate and up).
const MATRICES_MAX: usize = 2;

/// Turns exact sums into floats and combines them.
///
pub(super) trait Finish: Sync {
    /// Called per stretch of features of one row: `sums.value(matrix, i)` is the real value of its
    /// `i`-th feature, `out[i]` its place in the output row.
    fn finish(&self, sums: &Sums<'_>, out: &mut [f32]);
}

/// Products of a stretch of features of one row, `1..=MATRICES_MAX` matrices.
pub(super) struct Sums<'a> {
    matrices: &'a [&'a CpuLinear<'a>],
    /// Per matrix: `(features, batch)` of this stretch: exact sums of a ternary matrix, the bits of
    /// a float one's dots.
    sums: [&'a [i32]; MATRICES_MAX],
    /// First feature of the stretch.
    first: usize,
    /// Rows in `sums`.
    batch: usize,
    /// Which of them.
    row: usize,
    /// Unit of the row.
    unit: f32,
}

impl Sums<'_> {
    /// The real value of a feature of the stretch.
    ///
    /// Ternary: `(Σ value·trit · row unit) · weight unit`; the sum is exact as a single, so these
    /// are the only two roundings. A bias is added last.
    #[inline(always)]
    pub(super) fn value(&self, matrix: usize, feature: usize) -> f32 {
        let linear = self.matrices[matrix];
        let sum = self.sums[matrix][feature * self.batch + self.row];
        let value = match &linear.matrix {
            #[allow(clippy::cast_precision_loss, reason = "exact: ModelConfig keeps rows narrow")]
            CpuMatrix::Ternary(matrix) => (sum as f32 * self.unit) * matrix.unit,
            CpuMatrix::Float(_) => f32::from_bits(sum.cast_unsigned()),
        };
        match &linear.bias {
            Some(bias) => value + bias[self.first + feature],
            None => value,
        }
    }
}

/// Scratch of a linear whose rows are too few to split by rows and too many for one pass.
#[derive(Debug)]
pub(super) struct LinearScratch {
    /// Per matrix: sums or the bits of dots, `(features, batch)`.
    sums: [Vec<i32>; MATRICES_MAX],
}

impl LinearScratch {
    pub(super) fn new(rows_max: usize, features_max: usize) -> Self {
        let rows = rows_max.min(TILE_ROWS);
        Self { sums: core::array::from_fn(|_| vec![0; rows * features_max]) }
    }
}

/// `out[b, first + r] = finish(matrices · acts)` for every row `b` of a step.
///
/// `out` is `(rows, out_stride)`; the features of the matrices stand at `offset..` of each row. All
/// matrices have the same shape. The sums are exact, so the result does not depend on how the work
/// is split:
/// - one row: threads share the features;
/// - a few rows: threads share the features, then the rows for the epilogue;
/// - many rows: threads share the rows.
#[derive(Debug)]
pub(super) struct Linear<'a> {
    pub(super) backend: &'a CpuBackend,
    pub(super) acts: &'a Activations,
    pub(super) out_stride: usize,
    pub(super) offset: usize,
}

impl Linear<'_> {
    fn threads(&self) -> &Threads {
        &self.backend.threads
    }

    pub(super) fn run(
        &self,
        matrices: &[&CpuLinear<'_>],
        scratch: &mut LinearScratch,
        out: &mut [f32],
        finish: &impl Finish,
    ) {
        assert!((1..=MATRICES_MAX).contains(&matrices.len()), "one or two matrices");
        let rows = self.acts.rows();
        if rows == 1 {
            self.one_row(matrices, scratch, out, finish);
        } else if rows < TILE_ROWS * self.threads().count() {
            self.few_rows(matrices, scratch, out, finish);
        } else {
            self.many_rows(matrices, out, finish);
        }
    }

    /// Products of `features` of `linear` with `batch` rows from `first`, into `(features, batch)`.
    /// `batch` is at most a tile.
    fn multiply(
        &self,
        linear: &CpuLinear<'_>,
        features: core::ops::Range<usize>,
        first: usize,
        batch: usize,
        sums: &mut [i32],
    ) {
        let simd = self.backend.simd;
        let stride = self.acts.stride();
        match &linear.matrix {
            CpuMatrix::Ternary(matrix) => {
                let codes = matrix.view().row_range(features);
                let values = self.acts.values(first, batch);
                let units = &self.acts.units()[first..first + batch];
                if let [unit] = units {
                    return simd.gemv(codes, values, unit.sum, sums);
                }
                let mut value_sums = [0; TILE_ROWS];
                for (sum, unit) in value_sums.iter_mut().zip(units) {
                    *sum = unit.sum;
                }
                simd.gemm(codes, values, stride, &value_sums[..batch], sums);
            }
            CpuMatrix::Float(matrix) => {
                let x = FloatRows { values: self.acts.floats(first, batch), stride };
                let dots = bytemuck::cast_slice_mut::<i32, f32>(sums);
                simd.dots(matrix.stored(features), matrix.cols, x, batch, dots);
            }
        }
    }

    fn one_row(
        &self,
        matrices: &[&CpuLinear<'_>],
        scratch: &mut LinearScratch,
        out: &mut [f32],
        finish: &impl Finish,
    ) {
        let features = matrices[0].rows();
        let out = &mut out[self.offset..self.offset + features];
        let chunk = self.threads().chunk_of(features, 16);
        let [first, second] = &mut scratch.sums;
        let unit = self.acts.units()[0].unit;
        let work = |index: usize, (out, [first, second]): (&mut [f32], [&mut [i32]; 2])| {
            let range = index * chunk..index * chunk + out.len();
            self.multiply(matrices[0], range.clone(), 0, 1, first);
            if let Some(matrix) = matrices.get(1) {
                self.multiply(matrix, range, 0, 1, second);
            }
            let (sums, first) = ([&*first, &*second], index * chunk);
            finish.finish(&Sums { matrices, sums, first, batch: 1, row: 0, unit }, out);
        };
        let sums = first[..features]
            .par_chunks_mut(chunk)
            .zip(second[..features].par_chunks_mut(chunk))
            .map(|(first, second)| [first, second]);
        self.threads().install(|| {
            out.par_chunks_mut(chunk).zip(sums).enumerate().for_each(|(index, parts)| {
                work(index, parts);
            });
        });
    }

    fn few_rows(
        &self,
        matrices: &[&CpuLinear<'_>],
        scratch: &mut LinearScratch,
        out: &mut [f32],
        finish: &impl Finish,
    ) {
        let features = matrices[0].rows();
        let rows = self.acts.rows();
        for first in (0..rows).step_by(TILE_ROWS) {
            let batch = TILE_ROWS.min(rows - first);
            for (matrix, sums) in matrices.iter().zip(&mut scratch.sums) {
                let chunk = self.threads().chunk_of(features, 16);
                let sums = &mut sums[..features * batch];
                self.threads().chunks(sums, chunk * batch, |index, sums| {
                    let range = index * chunk..index * chunk + sums.len() / batch;
                    self.multiply(matrix, range, first, batch, sums);
                });
            }
            let sums = [&scratch.sums[0][..], &scratch.sums[1][..]];
            let out = &mut out[first * self.out_stride..(first + batch) * self.out_stride];
            self.threads().chunks(out, self.out_stride, |row, out| {
                let unit = self.acts.units()[first + row].unit;
                let sums = Sums { matrices, sums, first: 0, batch, row, unit };
                finish.finish(&sums, &mut out[self.offset..self.offset + features]);
            });
        }
    }

    fn many_rows(&self, matrices: &[&CpuLinear<'_>], out: &mut [f32], finish: &impl Finish) {
        let features = matrices[0].rows();
        self.threads().chunks(out, TILE_ROWS * self.out_stride, |tile, out| {
            let first = tile * TILE_ROWS;
            let batch = out.len() / self.out_stride;
            let mut tile_sums = [[0; TILE_ROWS * TILE_FEATURES]; MATRICES_MAX];
            for from in (0..features).step_by(TILE_FEATURES) {
                let count = TILE_FEATURES.min(features - from);
                for (matrix, sums) in matrices.iter().zip(&mut tile_sums) {
                    let sums = &mut sums[..count * batch];
                    self.multiply(matrix, from..from + count, first, batch, sums);
                }
                let sums = [&tile_sums[0][..], &tile_sums[1][..]];
                for (row, out) in out.chunks_mut(self.out_stride).enumerate() {
                    let unit = self.acts.units()[first + row].unit;
                    let sums = Sums { matrices, sums, first: from, batch, row, unit };
                    let place = self.offset + from;
                    finish.finish(&sums, &mut out[place..place + count]);
                }
            }
        });
    }
}

/// Writes the value.
#[derive(Debug)]
pub(super) struct Store;

impl Finish for Store {
    #[inline(always)]
    fn finish(&self, sums: &Sums<'_>, out: &mut [f32]) {
        for (feature, out) in out.iter_mut().enumerate() {
            *out = sums.value(0, feature);
        }
    }
}

/// Adds the value to what is there.
#[derive(Debug)]
pub(super) struct Add;

impl Finish for Add {
    #[inline(always)]
    fn finish(&self, sums: &Sums<'_>, out: &mut [f32]) {
        for (feature, out) in out.iter_mut().enumerate() {
            *out += sums.value(0, feature);
        }
    }
}

/// `activation(gate) · up`, of two matrices; `activation(up)` of one.
#[derive(Debug)]
pub(super) struct Activate {
    pub(super) simd: Simd,
    pub(super) activation: Activation,
}

impl Finish for Activate {
    fn finish(&self, sums: &Sums<'_>, out: &mut [f32]) {
        self.simd.vectorize(
            #[inline(always)]
            || match self.activation {
                Activation::Relu => self.apply(sums, out, |x| x.max(0.0)),
                Activation::Relu2 => self.apply(sums, out, |x| x.max(0.0) * x.max(0.0)),
                Activation::Silu => self.apply(sums, out, |x| x / (1.0 + math::exp(-x))),
            },
        );
    }
}

impl Activate {
    #[inline(always)]
    fn apply(&self, sums: &Sums<'_>, out: &mut [f32], activation: impl Fn(f32) -> f32) {
        for (feature, out) in out.iter_mut().enumerate() {
            let first = activation(sums.value(0, feature));
            *out = if sums.matrices.len() == 1 { first } else { first * sums.value(1, feature) };
        }
    }
}
