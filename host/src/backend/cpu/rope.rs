//! Rotary positions, half-split: element `i` turns with element `i + head_dim / 2`.

use crate::rotary;

/// Cosines and sines for the positions of a step.
#[derive(Debug)]
pub(super) struct Rope {
    /// `(head_dim / 2,)`: `theta^(-2i / head_dim)`.
    frequencies: Vec<f32>,
    /// `(rows_max, head_dim / 2)`
    cos: Vec<f32>,
    /// `(rows_max, head_dim / 2)`
    sin: Vec<f32>,
}

impl Rope {
    pub(super) fn new(head_dim: usize, theta: f64, rows_max: usize) -> Self {
        let frequencies = rotary::frequencies(head_dim, theta);
        let numbers = rows_max * frequencies.len();
        Self { frequencies, cos: vec![0.0; numbers], sin: vec![0.0; numbers] }
    }

    pub(super) fn bytes(&self) -> usize {
        4 * (self.frequencies.len() + self.cos.len() + self.sin.len())
    }

    /// Computes the angles of each row's position.
    pub(super) fn set_positions(&mut self, positions: impl Iterator<Item = usize>) {
        let pairs = self.frequencies.len();
        let rows = self.cos.chunks_exact_mut(pairs).zip(self.sin.chunks_exact_mut(pairs));
        for (position, (cos, sin)) in positions.zip(rows) {
            rotary::angles(position, &self.frequencies, cos, sin);
        }
    }

    /// Turns one head by the angles of row `row`.
    #[inline(always)]
    pub(super) fn turn(&self, row: usize, head: &mut [f32]) {
        let pairs = self.frequencies.len();
        let cos = &self.cos[row * pairs..(row + 1) * pairs];
        let sin = &self.sin[row * pairs..(row + 1) * pairs];
        let (low, high) = head.split_at_mut(pairs);
        for ((low, high), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
            (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
        }
    }
}
