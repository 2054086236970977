//! Linears over prepared rows: exact sums from `core` with two roundings after them, or dots of
//! floats.

use core::ops::Range;

use tercet_core::simd::{FloatRows, Simd};

use super::activations::Activations;
use super::threads::Threads;
use super::{CpuBackend, CpuLinear, CpuMatrix};
use crate::config::Activation;
use crate::math;

/// Most rows of a step that one task of a prefill multiplies together: those of
/// [`CpuBackend::tile_rows`] at the level that takes most.
const TILE_ROWS_MAX: usize = 128;
/// Features of a tile; the sums of its rows of two matrices stay in the nearest caches.
const TILE_FEATURES: usize = 64;
/// Features of one row whose sums stay in the first cache until they are used.
const ONE_ROW_FEATURES: usize = 256;
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
    pub(super) fn new(backend: &CpuBackend, rows_max: usize, features_max: usize) -> Self {
        let rows = rows_max.min(backend.tile_rows());
        Self { sums: core::array::from_fn(|_| vec![0; rows * features_max]) }
    }
}

/// What one stretch of an output row is made of: matrices of one shape that share an epilogue.
pub(super) type Job<'a> = &'a [&'a CpuLinear<'a>];

/// `out[b, ..] = finish(jobs[0] · acts), finish(jobs[1] · acts), ..` for every row `b` of a step:
/// the features of the jobs stand side by side and fill the row.
///
/// The sums are exact, or dots of one order, so the result does not depend on how the work is
/// split. However many jobs there are, threads meet once (a few rows: twice a tile), because a
/// meeting costs as much as a small matrix:
/// - one row: threads share the features;
/// - a few rows: threads share the features, then the rows for the epilogue;
/// - many rows: threads share the rows.
#[derive(Debug)]
pub(super) struct Linear<'a> {
    pub(super) backend: &'a CpuBackend,
    pub(super) acts: &'a Activations,
}

/// The parts of the features `range` of `jobs`, by job: the job, its own features among them, and
/// where these begin in `range`.
fn pieces<'a>(
    jobs: &'a [Job<'a>],
    range: Range<usize>,
) -> impl Iterator<Item = (Job<'a>, Range<usize>, usize)> {
    let mut end = 0;
    jobs.iter().filter_map(move |job| {
        let start = end;
        end += job[0].rows();
        let (from, to) = (range.start.max(start), range.end.min(end));
        (from < to).then(|| (*job, from - start..to - start, from - range.start))
    })
}

impl Linear<'_> {
    fn threads(&self) -> &Threads {
        &self.backend.threads
    }

    pub(super) fn run(
        &self,
        jobs: &[Job<'_>],
        scratch: &mut LinearScratch,
        out: &mut [f32],
        finish: &impl Finish,
    ) {
        let alike = |job: &Job<'_>| (1..=MATRICES_MAX).contains(&job.len());
        assert!(jobs.iter().all(alike), "one or two matrices a job");
        let rows = self.acts.rows();
        if rows == 1 {
            self.one_row(jobs, out, finish);
        } else if rows < self.backend.tile_rows() * self.threads().count() {
            self.few_rows(jobs, scratch, out, finish);
        } else {
            self.many_rows(jobs, out, finish);
        }
    }

    /// Products of `features` of `linear` with `batch` rows from `first`, into `(features, batch)`.
    /// `batch` is at most a tile.
    fn multiply(
        &self,
        linear: &CpuLinear<'_>,
        features: Range<usize>,
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
                let mut value_sums = [0; TILE_ROWS_MAX];
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

    fn one_row(&self, jobs: &[Job<'_>], out: &mut [f32], finish: &impl Finish) {
        let chunk = self.threads().chunk_of(out.len(), 16);
        let unit = self.acts.units()[0].unit;
        self.threads().chunks(out, chunk, |index, out| {
            let mut sums = [[0; ONE_ROW_FEATURES]; MATRICES_MAX];
            let range = index * chunk..index * chunk + out.len();
            for (matrices, features, place) in pieces(jobs, range) {
                let out = &mut out[place..place + features.len()];
                for (part, out) in out.chunks_mut(ONE_ROW_FEATURES).enumerate() {
                    let first = features.start + part * ONE_ROW_FEATURES;
                    for (matrix, sums) in matrices.iter().zip(&mut sums) {
                        self.multiply(
                            matrix,
                            first..first + out.len(),
                            0,
                            1,
                            &mut sums[..out.len()],
                        );
                    }
                    let sums = sums.each_ref().map(|sums| &sums[..]);
                    finish.finish(&Sums { matrices, sums, first, batch: 1, row: 0, unit }, out);
                }
            }
        });
    }

    fn few_rows(
        &self,
        jobs: &[Job<'_>],
        scratch: &mut LinearScratch,
        out: &mut [f32],
        finish: &impl Finish,
    ) {
        let rows = self.acts.rows();
        let features = out.len() / rows;
        let chunk = self.threads().chunk_of(features, 16);
        let [sums, more_sums] = &mut scratch.sums;
        let tile_rows = self.backend.tile_rows();
        for first in (0..rows).step_by(tile_rows) {
            let batch = tile_rows.min(rows - first);
            let sums = &mut sums[..features * batch];
            let more_sums = &mut more_sums[..features * batch];
            self.threads().chunk_pairs(sums, more_sums, chunk * batch, |index, mut sums| {
                let range = index * chunk..index * chunk + sums[0].len() / batch;
                for (matrices, features, place) in pieces(jobs, range) {
                    for (matrix, sums) in matrices.iter().zip(sums.each_mut()) {
                        let sums = &mut sums[place * batch..(place + features.len()) * batch];
                        self.multiply(matrix, features.clone(), first, batch, sums);
                    }
                }
            });
            let sums = [&*sums, &*more_sums];
            let out = &mut out[first * features..(first + batch) * features];
            self.threads().chunks(out, features, |row, out| {
                let unit = self.acts.units()[first + row].unit;
                for (matrices, features, place) in pieces(jobs, 0..features) {
                    let sums = sums.map(|sums| &sums[place * batch..]);
                    let sums = Sums { matrices, sums, first: 0, batch, row, unit };
                    finish.finish(&sums, &mut out[place..place + features.len()]);
                }
            });
        }
    }

    fn many_rows(&self, jobs: &[Job<'_>], out: &mut [f32], finish: &impl Finish) {
        let width = out.len() / self.acts.rows();
        let tile_rows = self.backend.tile_rows();
        self.threads().chunks(out, tile_rows * width, |tile, out| {
            let first = tile * tile_rows;
            let batch = out.len() / width;
            let mut tile_sums = [[0; TILE_ROWS_MAX * TILE_FEATURES]; MATRICES_MAX];
            for (matrices, features, place) in pieces(jobs, 0..width) {
                for from in features.clone().step_by(TILE_FEATURES) {
                    let count = TILE_FEATURES.min(features.end - from);
                    for (matrix, sums) in matrices.iter().zip(&mut tile_sums) {
                        let sums = &mut sums[..count * batch];
                        self.multiply(matrix, from..from + count, first, batch, sums);
                    }
                    let sums = tile_sums.each_ref().map(|sums| &sums[..]);
                    for (row, out) in out.chunks_mut(width).enumerate() {
                        let unit = self.acts.units()[first + row].unit;
                        let sums = Sums { matrices, sums, first: from, batch, row, unit };
                        finish.finish(&sums, &mut out[place + from..place + from + count]);
                    }
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
