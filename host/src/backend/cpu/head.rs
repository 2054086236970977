//! The head: float rows times the vocabulary, in floats or in INT8.

use core::ops::Range;

use memmap2::MmapMut;
use rayon::prelude::*;
use tercet_core::Stored;
use tercet_core::simd::{FloatRows, Simd};

use super::CpuBackend;
use super::activations::RowNorm;
use super::buffer::zeros;
use crate::backend::{DeviceError, HeadType};
use crate::checkpoint::anonymous;
use crate::config::ModelConfig;
use crate::int8::round_row;
use crate::model::FloatMatrix;

/// The head's weights as they are multiplied.
#[derive(Debug)]
pub(super) enum HeadWeights<'c> {
    /// Where they are mapped.
    Stored(FloatMatrix<'c>),
    /// Rounded to INT8.
    Int8(Int8Head),
}

/// A head in INT8: `weight[token, col] ≈ unit[token] · code[token, col]`.
#[derive(Debug)]
pub(super) struct Int8Head {
    cols: usize,
    /// `(vocab, cols)`
    codes: MmapMut,
    /// `(vocab,)`
    units: Vec<f32>,
}

impl<'c> HeadWeights<'c> {
    /// The weights as `kind` wants them. `progress` hears rows done.
    pub(super) fn new(
        kind: HeadType,
        head: FloatMatrix<'c>,
        backend: &CpuBackend,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DeviceError> {
        Ok(match kind {
            HeadType::Stored => Self::Stored(head),
            HeadType::Int8 => Self::Int8(Int8Head::new(head, backend, progress)?),
        })
    }

    /// Bytes that a step reads.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Stored(head) => head.bytes.len(),
            Self::Int8(head) => head.codes.len() + 4 * head.units.len(),
        }
    }

    /// `out[t · asked + a] = Σ_c weight[t, c] · x[a, c]` for `tokens`; `x` is `(asked, cols)`. A
    /// dot of the order of [`Simd::dots`], then, in INT8, one product with the row's unit.
    fn multiply(&self, simd: Simd, tokens: Range<usize>, x: &[f32], asked: usize, out: &mut [f32]) {
        match self {
            Self::Stored(head) => {
                let x = FloatRows { values: x, stride: head.cols };
                simd.dots(head.stored(tokens), head.cols, x, asked, out);
            }
            Self::Int8(head) => {
                let cols = head.cols;
                let codes =
                    bytemuck::cast_slice(&head.codes[tokens.start * cols..tokens.end * cols]);
                let x = FloatRows { values: x, stride: cols };
                simd.dots(Stored::I8(codes), cols, x, asked, out);
                for (out, unit) in out.chunks_exact_mut(asked).zip(&head.units[tokens]) {
                    for out in out {
                        *out *= unit;
                    }
                }
            }
        }
    }
}

impl Int8Head {
    /// Rows that are rounded between two reports of progress.
    const STRETCH: usize = 4096;

    /// `unit = max |w| / 127`, `code = round_half_even(w · (127 / max |w|))`, row by row.
    fn new(
        head: FloatMatrix<'_>,
        backend: &CpuBackend,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DeviceError> {
        let FloatMatrix { rows, cols, .. } = head;
        let mut codes = anonymous(rows * cols).map_err(|_| DeviceError::OutOfMemory {
            what: "the INT8 head",
            needed: (rows * cols) as u64,
        })?;
        let mut units = vec![0.0; rows];
        let CpuBackend { threads, simd, .. } = backend;
        let stretches = codes.chunks_mut(Self::STRETCH * cols);
        for (index, (codes, units)) in stretches.zip(units.chunks_mut(Self::STRETCH)).enumerate() {
            let first = index * Self::STRETCH;
            let done = first + units.len();
            threads.install(|| {
                let rows = codes.par_chunks_mut(cols).zip(units).enumerate().with_min_len(16);
                rows.for_each_init(
                    || vec![0.0; cols],
                    |weights, (row, (codes, unit))| {
                        let codes = bytemuck::cast_slice_mut(codes);
                        *unit = round_row(*simd, &head, first + row, weights, codes);
                    },
                );
            });
            progress(done);
        }
        Ok(Self { cols, codes, units })
    }
}

/// Vocabulary rows of one task.
const HEAD_ROWS: usize = 64;

/// Buffers of the head.
#[derive(Debug)]
pub(super) struct Head {
    hidden: usize,
    vocab: usize,
    /// `(logits_max, hidden)`: normed rows that ask.
    asking: Vec<f32>,
    /// `(logits_max, vocab)`
    logits: Vec<f32>,
    /// `(vocab, asked)`, when more than one row asks.
    by_token: Vec<f32>,
    asked: usize,
}

impl Head {
    pub(super) fn bytes(&self) -> usize {
        4 * (self.asking.len() + self.logits.len() + self.by_token.len())
    }

    pub(super) fn new(logits_max: usize, config: &ModelConfig) -> Result<Self, DeviceError> {
        let ModelConfig { hidden, vocab, .. } = *config;
        let several = if logits_max > 1 { logits_max } else { 0 };
        Ok(Self {
            hidden,
            vocab,
            asking: zeros("the head's input", logits_max, hidden)?,
            logits: zeros("the logits", logits_max, vocab)?,
            by_token: zeros("the logits", several, vocab)?,
            asked: 0,
        })
    }

    /// Logits of the rows that asked last, `(asked, vocab)`.
    pub(super) fn logits_mut(&mut self) -> &mut [f32] {
        &mut self.logits[..self.asked * self.vocab]
    }

    /// `logits[a, t] = Σ_c head[t, c] · norm(asking[a])[c]`, each a dot of its own.
    ///
    /// # Panics
    ///
    /// When more rows ask than there is room for.
    pub(super) fn run<'h>(
        &mut self,
        backend: &CpuBackend,
        head: &HeadWeights<'_>,
        norm: RowNorm<'_>,
        asking: impl Iterator<Item = &'h [f32]>,
    ) {
        let Self { hidden, vocab, .. } = *self;
        let (threads, simd) = (&backend.threads, backend.simd);
        self.asked = 0;
        for row in asking {
            let place = self.asked * hidden..(self.asked + 1) * hidden;
            norm.apply(simd, row, &mut self.asking[place]);
            self.asked += 1;
        }
        let asked = self.asked;
        let asking = &self.asking[..asked * hidden];
        if asked == 0 {
            return;
        }
        let by_token = if asked == 1 { &mut self.logits } else { &mut self.by_token };
        threads.chunks(&mut by_token[..asked * vocab], HEAD_ROWS * asked, |index, out| {
            let first = index * HEAD_ROWS;
            head.multiply(simd, first..first + out.len() / asked, asking, asked, out);
        });
        if asked > 1 {
            let by_token = &self.by_token;
            let rows = self.logits[..asked * vocab].par_chunks_mut(vocab).enumerate();
            threads.install(|| {
                rows.for_each(|(row, out)| {
                    for (out, column) in out.iter_mut().zip(by_token.chunks_exact(asked)) {
                        *out = column[row];
                    }
                });
            });
        }
    }
}
