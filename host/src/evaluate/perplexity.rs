//! Perplexity over consecutive windows of a text.

use crate::backend::{Ops, TokenId};
use crate::error::Error;
use crate::math;
use crate::session::Session;

/// How the text is cut.
#[derive(Debug, Clone, Copy)]
pub struct PerplexityOptions {
    /// Tokens of a window; no window sees another.
    pub window: usize,
    /// Most windows; the rest of the text is left out.
    pub windows_max: usize,
}

/// A perplexity with what it was measured on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// `exp` of the mean over windows of each window's mean cross-entropy.
    pub perplexity: f64,
    /// Whole windows measured.
    pub windows: usize,
    /// Predictions measured: `windows * (window - 1)`.
    pub predictions: usize,
}

/// The perplexity of `tokens`, cut into whole windows. `progress` hears windows done and in all.
///
/// In each window every token but the first is predicted from those before it. Returns `None` when
/// the text does not fill one window.
///
/// # Errors
///
/// [`Error::Prompt`] and [`Error::Device`].
pub fn perplexity<O: Ops>(
    session: &mut Session<O>,
    vocab: usize,
    tokens: &[TokenId],
    options: PerplexityOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Perplexity>, Error> {
    let windows: Vec<_> =
        tokens.chunks_exact(options.window.max(2)).take(options.windows_max).collect();
    let mut sum = 0.0;
    for (done, window) in windows.iter().enumerate() {
        let mut loss = 0.0;
        let mut next = window.iter().skip(1);
        session.logits(window, |logits| {
            for (logits, &token) in logits.chunks_exact(vocab).zip(&mut next) {
                loss += cross_entropy(logits, token);
            }
        })?;
        #[allow(clippy::cast_precision_loss, reason = "windows are short")]
        let predictions = (window.len() - 1) as f64;
        sum += loss / predictions;
        progress(done as u64 + 1, windows.len() as u64);
    }
    #[allow(clippy::cast_precision_loss, reason = "few windows")]
    let mean = sum / windows.len() as f64;
    Ok((!windows.is_empty()).then(|| Perplexity {
        perplexity: mean.exp(),
        windows: windows.len(),
        predictions: windows.iter().map(|window| window.len() - 1).sum(),
    }))
}

/// `-ln softmax(logits)[token]`, summed in double precision.
fn cross_entropy(logits: &[f32], token: TokenId) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(math::exp(logit - largest))).sum();
    sum.ln() + f64::from(largest) - f64::from(logits[token as usize])
}

#[cfg(test)]
mod tests {
    use super::cross_entropy;

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        assert!((cross_entropy(&[3.0; 8], 5) - 8_f64.ln()).abs() < 1e-6);
        assert!(cross_entropy(&[50.0, 0.0], 0) < 1e-6);
        assert!((cross_entropy(&[50.0, 0.0], 1) - 50.0).abs() < 1e-6);
    }
}
