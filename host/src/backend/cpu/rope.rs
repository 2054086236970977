//! Rotary positions, half-split: element `i` turns with element `i + head_dim / 2`.

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
        let pairs = head_dim / 2;
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "head_dim is small, and frequencies are singles in the reference"
        )]
        let frequencies =
            (0..pairs).map(|i| theta.powf(-((2 * i) as f64) / head_dim as f64) as f32).collect();
        Self { frequencies, cos: vec![0.0; rows_max * pairs], sin: vec![0.0; rows_max * pairs] }
    }

    /// Computes the angles of each row's position.
    ///
    /// The angle is the product of two singles, as in the reference (transformers 5.23.0
    /// `modeling_bitnet.py`, `BitNetRotaryEmbedding`); its cosine is rounded once, from double
    /// precision, so it does not depend on the system's `cosf`.
    pub(super) fn set_positions(&mut self, positions: impl Iterator<Item = usize>) {
        let pairs = self.frequencies.len();
        let rows = self.cos.chunks_exact_mut(pairs).zip(self.sin.chunks_exact_mut(pairs));
        for (position, (cos, sin)) in positions.zip(rows) {
            for (frequency, (cos, sin)) in self.frequencies.iter().zip(cos.iter_mut().zip(sin)) {
                #[allow(clippy::cast_precision_loss, reason = "positions are below 2^24")]
                let angle = f64::from(position as f32 * frequency);
                #[allow(clippy::cast_possible_truncation, reason = "rounded to a single")]
                {
                    *cos = angle.cos() as f32;
                    *sin = angle.sin() as f32;
                }
            }
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
