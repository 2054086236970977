//! How a row of real activations becomes INT8 values: the one rounding rule.
//!
//! ```text
//! peak      = max |x[c]|, at least PEAK_MIN
//! values[c] = round_half_even(x[c] · (127 / peak)), clamped to −127..=127; 0 for NaN
//! unit      = peak / 127
//! ```
//!
//! Four IEEE `f32` operations in this order, none contracted: the quotient `127 / peak`, the
//! product, the rounding, the quotient `peak / 127`. `x / (peak / 127)` would land on other
//! integers near halves. A row depends on nothing but itself, and every [`Simd`](crate::Simd) level
//! gives equal bits.
//!
//! Source: absmax quantisation per token as in BitNet b1.58 (arXiv 2402.17764) and microsoft/BitNet
//! 16da220 `gpu/model.py`, carried out in `f32`. That code divides the product's sum by
//! `127 / peak`; here it is multiplied by `unit`, which may differ in the last bit of a result.

/// Least peak of a row: a row of zeros gets unit `1e-5 / 127` instead of dividing by zero.
pub const PEAK_MIN: f32 = 1e-5;

/// Largest value; −128 is never produced.
pub(crate) const VALUE_MAX: f32 = 127.0;

/// What quantising a row yields besides its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowUnit {
    /// The real size of value 1, to multiply by: `peak / 127`.
    pub unit: f32,
    /// `Σ values`, which turns a sum over codes into a sum over trits.
    pub sum: i32,
}

/// 1.5 · 2²³: an `f32` of this binade has unit spacing, so adding a small number rounds it to an
/// integer, half to even, into the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// `max |x|`, NaN ignored, 0 for nothing. Plain loop, to be compiled once for each level.
///
/// Without the sign bit, floats are ordered as their bits are and NaN lies above infinity. So the
/// distance of the bits to infinity's is least for the greatest number, and wraps to beyond all
/// others for NaN: one associative integer minimum, the same in any lane order.
#[inline(always)]
pub(crate) fn peak(x: &[f32]) -> f32 {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    let nearest = x.iter().fold(INFINITY, |nearest, x| {
        let magnitude = x.to_bits() & !(1 << 31);
        nearest.min(INFINITY.wrapping_sub(magnitude))
    });
    f32::from_bits(INFINITY - nearest)
}

/// `values[c] = round(x[c] · factor)`, returns `Σ values`. Plain loop, to be compiled for each
/// level.
///
/// `x` and `values` are equally long, at most 2²² (the sum stays below 2²² · 127 < 2³¹).
#[inline(always)]
pub(crate) fn quantize(x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
    let mut sum = 0;
    for (value, x) in values.iter_mut().zip(x) {
        let product = x * factor;
        let product = if product.is_nan() { 0.0 } else { product };
        // Where the peak is the row's own, |product| ≤ 127·(1 + 2⁻²³)·(1 + 2⁻²⁴): the clamp cuts an
        // ulp. Where a caller's peak is smaller it cuts more. 127 is an integer, so clamping first
        // changes no rounding, and it puts the sum below into the binade that rounds: 127 < 2²².
        let clamped = product.clamp(-VALUE_MAX, VALUE_MAX);
        let rounded = (clamped + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
        *value = rounded as i8; // −127..=127
        sum += rounded;
    }
    sum
}
