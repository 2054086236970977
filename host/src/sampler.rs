//! [`Sampler`]: from logits to a token, reproducibly.

use core::cmp::Ordering;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use crate::backend::{DeviceError, TokenId};
use crate::math;

/// How tokens are chosen. The filters apply in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides (multiplies, where negative) the logit of every token already in the context; 1 is
    /// off (Keskar et al., arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Divides the logits; 0 takes the largest one always.
    pub temperature: f32,
    /// Keeps the `k` most likely tokens; 0 is off.
    pub top_k: usize,
    /// Keeps the most likely tokens that together reach probability `p`; 1 is off.
    pub top_p: f32,
    /// Keeps tokens at least `p` times as likely as the most likely one; 0 is off.
    pub min_p: f32,
}

impl Sampling {
    /// Always the most likely token; of equals, the one with the least id.
    pub const GREEDY: Self =
        Self { repetition_penalty: 1.0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

    /// Whether every number is in its range.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let finite = |x: f32| x.is_finite() && x >= 0.0;
        finite(self.temperature)
            && finite(self.repetition_penalty)
            && self.repetition_penalty > 0.0
            && (0.0..=1.0).contains(&self.top_p)
            && self.top_p > 0.0
            && (0.0..=1.0).contains(&self.min_p)
    }
}

/// A policy with its random state.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha12Rng,
    /// Tokens in the context, sorted, each once.
    seen: Vec<TokenId>,
    candidates: Vec<(f32, TokenId)>,
}

impl Sampler {
    /// A sampler whose choices depend on `seed`, the logits and nothing else.
    #[must_use]
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        let random = ChaCha12Rng::seed_from_u64(seed);
        Self { sampling, random, seen: Vec::new(), candidates: Vec::new() }
    }

    /// Whether it takes the largest logit, whatever is in the context.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.sampling.temperature == 0.0 && self.sampling.repetition_penalty == 1.0
    }

    /// Its policy.
    pub(crate) fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Tokens in the context, ascending; empty where there is no penalty.
    pub(crate) fn seen(&self) -> &[TokenId] {
        &self.seen
    }

    /// The number in `0..1` that the next choice takes, for a device that makes the choice.
    pub(crate) fn draw(&mut self) -> f64 {
        uniform(&mut self.random)
    }

    /// Counts a token of the context, for the repetition penalty.
    pub fn observe(&mut self, token: TokenId) {
        if self.sampling.repetition_penalty != 1.0
            && let Err(place) = self.seen.binary_search(&token)
        {
            self.seen.insert(place, token);
        }
    }

    /// The next token, from logits `(vocab,)`.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotFinite`] for a logit that is NaN or infinite: damaged weights must not end
    /// as text.
    pub fn choose(&mut self, logits: &[f32]) -> Result<TokenId, DeviceError> {
        if let Some(token) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(DeviceError::NotFinite { got: logits[token], token });
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().copied().zip(0..));
        for &token in &self.seen {
            let Some((logit, _)) = candidates.get_mut(token as usize) else { continue };
            let penalty = self.sampling.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }

        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if temperature == 0.0 {
            let best = candidates.iter().copied().reduce(|best, next| {
                if by_likelihood(&next, &best) == Ordering::Less { next } else { best }
            });
            return Ok(best.map_or(0, |(_, token)| token));
        }

        if top_k != 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_likelihood);
            candidates.truncate(top_k);
        }
        let largest = candidates.iter().fold(f32::NEG_INFINITY, |max, next| max.max(next.0));
        let mut total = 0.0_f64;
        for (logit, _) in candidates.iter_mut() {
            *logit = math::exp((*logit - largest) / temperature);
            total += f64::from(*logit);
        }

        let mut by_likelihood = Descending { items: candidates, sorted: 0 };
        let (mut kept, mut count) = (total, by_likelihood.items.len());
        if top_p < 1.0 || min_p > 0.0 {
            (kept, count) = (0.0, 0);
            while let Some((weight, _)) = by_likelihood.get(count) {
                if count > 0 && (kept >= f64::from(top_p) * total || weight < min_p) {
                    break;
                }
                kept += f64::from(weight);
                count += 1;
            }
        }

        let mut left = uniform(&mut self.random) * kept;
        for place in 0..count - 1 {
            let Some((weight, token)) = by_likelihood.get(place) else { break };
            left -= f64::from(weight);
            if left < 0.0 {
                return Ok(token);
            }
        }
        Ok(by_likelihood.get(count - 1).map_or(0, |(_, token)| token))
    }
}

/// 53 random bits, a number in `0..1`.
#[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn uniform(random: &mut ChaCha12Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Candidates from the most likely down, sorted only as far as somebody looks: a vocabulary has
/// 128,000 tokens and the nucleus a few dozen.
struct Descending<'a> {
    items: &'a mut [(f32, TokenId)],
    sorted: usize,
}

impl Descending<'_> {
    fn get(&mut self, place: usize) -> Option<(f32, TokenId)> {
        while place >= self.sorted && self.sorted < self.items.len() {
            let rest = &mut self.items[self.sorted..];
            let more = (3 * self.sorted).max(64).min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, by_likelihood);
            }
            rest[..more].sort_unstable_by(by_likelihood);
            self.sorted += more;
        }
        self.items.get(place).copied()
    }
}

/// More likely first; of equals, the smaller id.
fn by_likelihood(a: &(f32, TokenId), b: &(f32, TokenId)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
