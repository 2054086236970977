//! The head: float rows times the vocabulary.

use rayon::prelude::*;
use tercet_core::simd::Simd;

use super::activations::Norm;
use super::ops::floats;
use super::threads::Threads;
use crate::backend::DeviceError;
use crate::config::ModelConfig;
use crate::floats::FloatType;
use crate::math;
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
            asking: floats("the head's input", logits_max, hidden)?,
            logits: floats("the logits", logits_max, vocab)?,
            by_token: floats("the logits", several, vocab)?,
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
        norm: Norm<'_>,
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
            simd.vectorize(
                #[inline(always)]
                || {
                    for (token, out) in (index * HEAD_ROWS..).zip(out.chunks_exact_mut(asked)) {
                        multiply_row(head.float, head.row(token), asking, out);
                    }
                },
            );
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

/// Rows that ask at a time for one row of the head: it is decoded once for all of them.
const ASKING: usize = 8;

/// `out[a] = dot(weights, asking[a])` for stored weights `(hidden,)` and `asking`,
/// `(out.len(), hidden)`.
#[inline(always)]
fn multiply_row(float: FloatType, weights: &[u8], asking: &[f32], out: &mut [f32]) {
    let hidden = asking.len() / out.len();
    for (out, asking) in out.chunks_mut(ASKING).zip(asking.chunks(ASKING * hidden)) {
        let mut lanes = [[0.0; math::DOT_LANES]; ASKING];
        let mut first = 0;
        for weights in weights.chunks(math::DOT_STRETCH * float.bytes()) {
            // The last stretch is padded with zeros, as `dot` pads.
            let mut decoded = [0.0; math::DOT_STRETCH];
            let count = weights.len() / float.bytes();
            float.decode(weights, &mut decoded[..count]);
            for (lanes, row) in lanes.iter_mut().zip(asking.chunks_exact(hidden)) {
                let row = &row[first..first + count];
                match row.first_chunk() {
                    Some(row) => math::add_products(&decoded, row, lanes),
                    None => {
                        let mut padded = [0.0; math::DOT_STRETCH];
                        padded[..count].copy_from_slice(row);
                        math::add_products(&decoded, &padded, lanes);
                    }
                }
            }
            first += count;
        }
        for (out, lanes) in out.iter_mut().zip(&lanes) {
            *out = math::sum(lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_row_is_multiplied_as_dot_multiplies() {
        let number = |i: usize| (i as f32 * 0.37).sin();
        for hidden in [1, 100, 128, 130, 512] {
            let weights: Vec<f32> = (0..hidden).map(number).collect();
            let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
            for asked in [1, 7, 8, 9, 20] {
                let asking: Vec<f32> = (0..asked * hidden).map(|i| number(i + 9)).collect();
                let mut out = vec![f32::NAN; asked];
                multiply_row(FloatType::F32, &bytes, &asking, &mut out);
                for (out, row) in out.iter().zip(asking.chunks_exact(hidden)) {
                    assert_eq!(*out, math::dot(&weights, row), "{hidden} {asked}");
                }
            }
        }
    }
}
