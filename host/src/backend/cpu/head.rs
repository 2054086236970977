//! The head: float rows times the vocabulary.

use rayon::prelude::*;
use tercet_core::simd::{FloatRows, Simd};

use super::activations::RowNorm;
use super::buffer::zeros;
use super::threads::Threads;
use crate::backend::DeviceError;
use crate::config::ModelConfig;
use crate::model::FloatMatrix;

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

    /// `logits[a, t] = Σ_c head[t, c] · norm(asking[a])[c]`, each a `dot` of its own order.
    ///
    /// # Panics
    ///
    /// When more rows ask than there is room for.
    pub(super) fn run<'h>(
        &mut self,
        threads: &Threads,
        simd: Simd,
        head: &FloatMatrix<'_>,
        norm: RowNorm<'_>,
        asking: impl Iterator<Item = &'h [f32]>,
    ) {
        let Self { hidden, vocab, .. } = *self;
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
            let rows = head.stored(first..first + out.len() / asked);
            simd.dots(rows, hidden, FloatRows { values: asking, stride: hidden }, asked, out);
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
