//! The formulas of BitNet b1.58 in double precision, one loop each: what the operations mean.
//!
//! Written from the published definitions (BitNet b1.58, arXiv 2402.17764; Hugging Face
//! transformers 5.23.0 `modeling_bitnet.py` and `integrations/bitnet.py`), not from our own code.

use half::f16;

use crate::fixture::Trits;
use crate::random::Random;

/// `weight · x / sqrt(mean(x²) + eps)`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f64) -> Vec<f64> {
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    let root = (squares / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, weight)| f64::from(*x) / root * f64::from(*weight)).collect()
}

/// A row as INT8 codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// From -127 to 127.
    pub codes: Vec<i64>,
    /// Real size of code 1.
    pub unit: f64,
}

/// `codes = round_half_even(x · 127 / peak)`, `peak = max(max |x|, 1e-5)`, `unit = peak / 127`.
///
/// # Panics
///
/// When a value is so near a half that rounding in single precision would decide.
pub fn quantize(x: &[f64]) -> Quantized {
    let peak = x.iter().fold(1e-5, |peak: f64, x| peak.max(x.abs()));
    let code = |x: &f64| {
        let scaled = x * 127.0 / peak;
        let to_half = ((scaled - scaled.floor()) - 0.5).abs();
        assert!(to_half > 1e-3, "{scaled} is too near a half to tell its code");
        scaled.round_ties_even() as i64
    };
    Quantized { codes: x.iter().map(code).collect(), unit: peak / 127.0 }
}

/// What a ternary linear gives: exact sums, and what one is worth.
#[derive(Debug, Clone)]
pub struct Sums {
    /// `Σ_c code · trit`, `(rows,)`.
    pub sums: Vec<i64>,
    /// Real size of one: unit of the row times unit of the matrix.
    pub unit: f64,
}

impl Sums {
    /// The real values.
    pub fn values(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| *sum as f64 * self.unit).collect()
    }
}

/// The product of a quantised row with a ternary matrix.
pub fn linear(row: &Quantized, matrix: &Trits) -> Sums {
    let dot = |trits: &[i8]| {
        trits.iter().zip(&row.codes).map(|(trit, code)| i64::from(*trit) * code).sum()
    };
    let sums = matrix.trits.chunks_exact(matrix.cols).map(dot).collect();
    Sums { sums, unit: row.unit * matrix.unit }
}

/// Turns one head by its position: element `i` with element `i + head_dim / 2`.
pub fn rope(head: &mut [f64], position: usize, theta: f64) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * theta.powf(-(2.0 * i as f64) / head.len() as f64);
        let (low, high) = (head[i], head[i + half]);
        head[i] = low * angle.cos() - high * angle.sin();
        head[i + half] = high * angle.cos() + low * angle.sin();
    }
}

/// `x` rounded to half precision.
pub fn to_half(x: f64) -> f64 {
    f16::from_f64(x).to_f64()
}

/// `softmax(query · keys / √head_dim) · values` of one head over all `keys` and `values`.
pub fn attend(query: &[f64], keys: &[&[f64]], values: &[&[f64]]) -> Vec<f64> {
    let root = (query.len() as f64).sqrt();
    let score = |key: &&[f64]| query.iter().zip(*key).map(|(q, k)| q * k).sum::<f64>() / root;
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mix = |i: usize| weights.iter().zip(values).map(|(w, v)| w * v[i]).sum::<f64>() / total;
    (0..query.len()).map(mix).collect()
}

/// The activation of a gate, by its name in `config.json`.
///
/// # Panics
///
/// For a name that is none.
pub fn activation(name: &str, x: f64) -> f64 {
    match name {
        "silu" => x / (1.0 + (-x).exp()),
        "relu2" => x.max(0.0).powi(2),
        _ => panic!("no activation `{name}`"),
    }
}

/// A row whose codes are known: `x` with `quantize(norm(x)) == codes`, no value near a half.
///
/// `weight` are the weights of the norm in front, if there is one. A norm divides the row by one
/// number, which leaves the codes as they are.
pub fn row_with_codes(
    random: &mut Random,
    cols: usize,
    weight: Option<&[f32]>,
) -> (Vec<f32>, Vec<i64>) {
    let mut codes: Vec<i64> = (0..cols).map(|_| random.around_zero(126).into()).collect();
    let peak = random.below(cols);
    codes[peak] = if random.below(2) == 0 { 127 } else { -127 };
    let scale = f64::from(random.float()).exp() / 50.0;
    let value = |(col, code): (usize, &i64)| {
        let jitter = if col == peak { 0.0 } else { f64::from(random.float()) * 0.45 };
        let weight = weight.map_or(1.0, |weight| f64::from(weight[col]));
        ((*code as f64 + jitter) * scale / weight) as f32
    };
    let row = codes.iter().enumerate().map(value).collect();
    (row, codes)
}
