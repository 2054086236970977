//! Linears over prepared rows: exact sums from `core` with two roundings after them, or dots of
//! floats.

use core::ops::Range;

use tercet_core::packed::{PackedTernary, Rows128};
use tercet_core::simd::{FloatRows, Simd};

use super::activations::Activations;
use super::buffer::zeros;
use super::threads::{PerThread, Threads};
use super::{CpuBackend, CpuLinear, CpuMatrix, CpuWeights};
use crate::backend::DeviceError;
use crate::layout::WeightLayout;
use crate::math;

/// Most rows of a step that one task of a prefill multiplies together: those of
/// [`CpuBackend::tile_rows`] where it is most.
const TILE_ROWS_MAX: usize = 128;
/// Features of a tile; the sums of its rows of two matrices stay in the second-level cache.
const TILE_FEATURES: usize = 128;
/// Most rows of a step that are multiplied by digits in base 3, each by itself. With AVX-512 a
/// thread unpacks some 45 billion weights a second and multiplies by digits some 160 billion.
const DIGIT_ROWS_MAX: usize = 4;
/// Features of a row that are finished together, in the first-level cache.
const STRETCH: usize = 256;
/// Most matrices that share an epilogue (gate and up).
const MATRICES_MAX: usize = 2;

/// What becomes of the values of a linear: `put(activate(first))`, of two matrices
/// `put(activate(first) · second)`. Inlined into loops over features, where the level's
/// instructions may be used.
pub(super) trait Finish: Sync {
    #[inline(always)]
    fn activate(&self, value: f32) -> f32 {
        value
    }

    /// Takes a value to its place in the output row.
    #[inline(always)]
    fn put(&self, value: f32, out: &mut f32) {
        *out = value;
    }
}

/// Products of a stretch of features of a job with some rows.
struct Products<'a> {
    matrices: Job<'a>,
    /// Per matrix: exact sums of a ternary one, `(batch, features)`; the bits of a float one's
    /// dots, `(features, batch)`.
    sums: [&'a [i32]; MATRICES_MAX],
    /// First feature of the stretch.
    first: usize,
    /// Rows in `sums`.
    batch: usize,
}

impl Products<'_> {
    /// Finishes row `row`, whose unit is `unit`; `out` is its stretch of the output row.
    fn finish(&self, simd: Simd, row: usize, unit: f32, out: &mut [f32], finish: &impl Finish) {
        simd.vectorize(
            #[inline(always)]
            || {
                let features = out.len();
                let mut values = [[0.0; STRETCH]; MATRICES_MAX];
                for (part, out) in out.chunks_mut(STRETCH).enumerate() {
                    let from = part * STRETCH;
                    for (matrix, values) in values[..self.matrices.len()].iter_mut().enumerate() {
                        let values = &mut values[..out.len()];
                        self.values(matrix, row, unit, from, features, values);
                    }
                    let [first, second] = values.each_ref().map(|values| &values[..out.len()]);
                    if self.matrices.len() == 1 {
                        out.iter_mut().zip(first).for_each(
                            #[inline(always)]
                            |(out, value)| finish.put(finish.activate(*value), out),
                        );
                    } else {
                        out.iter_mut().zip(first.iter().zip(second)).for_each(
                            #[inline(always)]
                            |(out, (first, second))| {
                                finish.put(finish.activate(*first) * second, out);
                            },
                        );
                    }
                }
            },
        );
    }

    /// The real values of a matrix, of the stretch's `features` those from `from` on.
    ///
    /// Ternary: `(Σ value·trit · row unit) · weight unit`; the sum is exact as a single, so these
    /// are the only two roundings. A bias is added last.
    #[inline(always)]
    fn values(
        &self,
        matrix: usize,
        row: usize,
        unit: f32,
        from: usize,
        features: usize,
        out: &mut [f32],
    ) {
        let (linear, sums) = (self.matrices[matrix], self.sums[matrix]);
        let ternary = match &linear.matrix {
            CpuMatrix::Rows128(matrix) => Some(matrix.unit),
            CpuMatrix::Base3(matrix) => Some(matrix.unit),
            CpuMatrix::Float(_) => None,
        };
        match ternary {
            Some(weight_unit) => {
                let sums = &sums[row * features + from..][..out.len()];
                for (out, sum) in out.iter_mut().zip(sums) {
                    #[allow(
                        clippy::cast_precision_loss,
                        reason = "exact: ModelConfig keeps rows narrow"
                    )]
                    let sum = *sum as f32;
                    *out = (sum * unit) * weight_unit;
                }
            }
            None => {
                let dots = sums[from * self.batch + row..].iter().step_by(self.batch);
                for (out, dot) in out.iter_mut().zip(dots) {
                    *out = f32::from_bits(dot.cast_unsigned());
                }
            }
        }
        if let Some(bias) = &linear.bias {
            for (out, bias) in out.iter_mut().zip(&bias[self.first + from..]) {
                *out += bias;
            }
        }
    }
}

/// Scratch of a linear whose rows are too few to split by rows and too many for one pass.
#[derive(Debug)]
pub(super) struct LinearScratch {
    /// Per matrix: the sums of [`Products`], piece by piece of every thread's features.
    sums: [Vec<i32>; MATRICES_MAX],
}

impl LinearScratch {
    pub(super) fn new(
        backend: &CpuBackend,
        layout: WeightLayout,
        rows_max: usize,
        features_max: usize,
    ) -> Self {
        let rows = rows_max.min(backend.tile_rows(layout));
        Self { sums: core::array::from_fn(|_| vec![0; rows * features_max]) }
    }

    pub(super) fn bytes(&self) -> usize {
        4 * self.sums.iter().map(Vec::len).sum::<usize>()
    }
}

/// Room for codes of matrices in base 3, which several rows are multiplied by.
#[derive(Debug)]
pub(super) struct UnpackScratch {
    /// Codes of at most [`TILE_FEATURES`] features.
    codes: PerThread<Vec<u8>>,
    bytes: usize,
    /// How the model's matrices are held.
    layout: WeightLayout,
}

impl UnpackScratch {
    pub(super) fn new(
        backend: &CpuBackend,
        weights: &CpuWeights<'_>,
        rows_max: usize,
    ) -> Result<Self, DeviceError> {
        let each = unpacked_bytes(weights.base3_cols_max(), rows_max);
        let codes = PerThread::new(&backend.threads, || zeros("unpacked weights", 1, each))?;
        Ok(Self { codes, bytes: backend.threads() * each, layout: weights.layout() })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes of the codes that a thread unpacks at a time, for steps of at most `rows_max` rows;
/// `cols_max` are the columns of the widest matrix in base 3, if there is one.
pub(crate) fn unpacked_bytes(cols_max: Option<usize>, rows_max: usize) -> usize {
    match cols_max {
        Some(cols) if rows_max > DIGIT_ROWS_MAX => {
            TILE_FEATURES * WeightLayout::Rows128.row_bytes(cols)
        }
        _ => 0,
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
    pub(super) unpack: &'a UnpackScratch,
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

    fn tile_rows(&self) -> usize {
        self.backend.tile_rows(self.unpack.layout)
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
        } else if rows < self.tile_rows() * self.threads().count() {
            self.few_rows(jobs, scratch, out, finish);
        } else {
            self.many_rows(jobs, out, finish);
        }
    }

    /// Products of `features` of `linear` with `batch` rows from `first`, as [`Products`] has
    /// them. `batch` is at most a tile; if it is more than [`DIGIT_ROWS_MAX`] and the matrix in
    /// base 3, `features` are at most [`TILE_FEATURES`].
    fn multiply(
        &self,
        linear: &CpuLinear<'_>,
        features: Range<usize>,
        first: usize,
        batch: usize,
        sums: &mut [i32],
    ) {
        let simd = self.backend.simd;
        let values = self.acts.values(first, batch);
        let units = &self.acts.units()[first..first + batch];
        match &linear.matrix {
            CpuMatrix::Rows128(matrix) => {
                let weights = matrix.view().row_range(features);
                match units {
                    [unit] => simd.gemv(weights, values, unit.sum, sums),
                    _ => self.gemm(weights, first, batch, sums),
                }
            }
            CpuMatrix::Base3(matrix) => {
                let weights = matrix.view().row_range(features);
                if batch <= DIGIT_ROWS_MAX {
                    let sums = sums.chunks_exact_mut(weights.rows());
                    for (row, (unit, sums)) in units.iter().zip(sums).enumerate() {
                        let values = self.acts.values(first + row, 1);
                        simd.gemv_base3(weights, values, unit.sum, sums);
                    }
                    return;
                }
                let bytes = weights.rows() * WeightLayout::Rows128.row_bytes(weights.cols());
                let mut codes = self.unpack.codes.own();
                let weights = simd.unpack_base3(weights, &mut codes[..bytes]);
                self.gemm(weights.expect("cut to fit"), first, batch, sums);
            }
            CpuMatrix::Float(matrix) => {
                let x = FloatRows {
                    values: self.acts.floats(first, batch),
                    stride: self.acts.stride(),
                };
                let dots = bytemuck::cast_slice_mut::<i32, f32>(sums);
                simd.dots(matrix.stored(features), matrix.cols, x, batch, dots);
            }
        }
    }

    /// As [`multiply`](Self::multiply), of a ternary matrix and several rows.
    fn gemm(
        &self,
        weights: PackedTernary<'_, Rows128>,
        first: usize,
        batch: usize,
        sums: &mut [i32],
    ) {
        let mut value_sums = [0; TILE_ROWS_MAX];
        for (sum, unit) in value_sums.iter_mut().zip(&self.acts.units()[first..first + batch]) {
            *sum = unit.sum;
        }
        let (values, stride) = (self.acts.values(first, batch), self.acts.stride());
        self.backend.simd.gemm_batch_major(weights, values, stride, &value_sums[..batch], sums);
    }

    fn one_row(&self, jobs: &[Job<'_>], out: &mut [f32], finish: &impl Finish) {
        let chunk = self.threads().chunk_of(out.len(), 16);
        let unit = self.acts.units()[0].unit;
        self.threads().chunks(out, chunk, |index, out| {
            let mut sums = [[0; STRETCH]; MATRICES_MAX];
            let range = index * chunk..index * chunk + out.len();
            for (matrices, features, place) in pieces(jobs, range) {
                let out = &mut out[place..place + features.len()];
                for (part, out) in out.chunks_mut(STRETCH).enumerate() {
                    let first = features.start + part * STRETCH;
                    for (matrix, sums) in matrices.iter().zip(&mut sums) {
                        let sums = &mut sums[..out.len()];
                        self.multiply(matrix, first..first + out.len(), 0, 1, sums);
                    }
                    let sums = sums.each_ref().map(|sums| &sums[..]);
                    let products = Products { matrices, sums, first, batch: 1 };
                    products.finish(self.backend.simd, 0, unit, out, finish);
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
        let mut chunk = self.threads().chunk_of(features, 16);
        if self.unpack.layout == WeightLayout::Base3 && rows > DIGIT_ROWS_MAX {
            chunk = chunk.min(TILE_FEATURES);
        }
        let [sums, more_sums] = &mut scratch.sums;
        let tile_rows = self.tile_rows();
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
                for start in (0..features).step_by(chunk) {
                    let range = start..features.min(start + chunk);
                    for (matrices, piece, place) in pieces(jobs, range) {
                        let place = start + place;
                        let sums = sums.map(|sums| &sums[place * batch..]);
                        let products = Products { matrices, sums, first: piece.start, batch };
                        let out = &mut out[place..place + piece.len()];
                        products.finish(self.backend.simd, row, unit, out, finish);
                    }
                }
            });
        }
    }

    fn many_rows(&self, jobs: &[Job<'_>], out: &mut [f32], finish: &impl Finish) {
        let width = out.len() / self.acts.rows();
        let tile_rows = self.tile_rows();
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
                    let products = Products { matrices, sums, first: from, batch };
                    let place = place + from - features.start;
                    for (row, out) in out.chunks_mut(width).enumerate() {
                        let unit = self.acts.units()[first + row].unit;
                        let out = &mut out[place..place + count];
                        products.finish(self.backend.simd, row, unit, out, finish);
                    }
                }
            }
        });
    }
}

/// Writes the value.
#[derive(Debug)]
pub(super) struct Store;

impl Finish for Store {}

/// Adds the value to what is there.
#[derive(Debug)]
pub(super) struct Add;

impl Finish for Add {
    #[inline(always)]
    fn put(&self, value: f32, out: &mut f32) {
        *out += value;
    }
}

/// `max(x, 0)`
#[derive(Debug)]
pub(super) struct Relu;

impl Finish for Relu {
    #[inline(always)]
    fn activate(&self, value: f32) -> f32 {
        value.max(0.0)
    }
}

/// `max(x, 0)²`
#[derive(Debug)]
pub(super) struct Relu2;

impl Finish for Relu2 {
    #[inline(always)]
    fn activate(&self, value: f32) -> f32 {
        value.max(0.0) * value.max(0.0)
    }
}

/// `x / (1 + exp(-x))`
#[derive(Debug)]
pub(super) struct Silu;

impl Finish for Silu {
    #[inline(always)]
    fn activate(&self, value: f32) -> f32 {
        value / (1.0 + math::exp(-value))
    }
}
