//! Measuring a model: its logits for others to compare, and its perplexity.

mod logits;
mod perplexity;
mod tokens;

pub use logits::write_logits;
pub use perplexity::{Perplexity, PerplexityOptions, perplexity};
pub use tokens::read_tokens;
