//! Angles of rotary positions, the same on every device.

/// `(head_dim / 2,)`: `theta^(-2i / head_dim)`.
pub(crate) fn frequencies(head_dim: usize, theta: f64) -> Vec<f32> {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "head_dim is small, and frequencies are singles in the reference"
    )]
    let frequency = |i: usize| theta.powf(-((2 * i) as f64) / head_dim as f64) as f32;
    (0..head_dim / 2).map(frequency).collect()
}

/// Cosines and sines of `position`, one per frequency.
///
/// The angle is the product of two singles, as in the reference (transformers 5.23.0
/// `modeling_bitnet.py`, `BitNetRotaryEmbedding`); its cosine is rounded once, from double
/// precision, so it does not depend on the system's `cosf`.
pub(crate) fn angles(position: usize, frequencies: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    for (frequency, (cos, sin)) in frequencies.iter().zip(cos.iter_mut().zip(sin)) {
        #[allow(clippy::cast_precision_loss, reason = "positions are below 2^24")]
        let angle = f64::from(position as f32 * frequency);
        #[allow(clippy::cast_possible_truncation, reason = "rounded to a single")]
        {
            *cos = angle.cos() as f32;
            *sin = angle.sin() as f32;
        }
    }
}
