//! Text on its way into a model and out of it.
//!
//! ```text
//! messages ── ChatTemplate::render ──▶ Rendered ── Tokenizer::encode_rendered ──▶ token ids
//! prompt ──────────────────────────────────────── Tokenizer::encode_text ─────▶ token ids
//! token ids ── TextStream::push ──▶ whole characters
//! ```
//!
//! Everything here reads files from strangers: a tokenizer and a template are data, and two rules
//! hold whatever they say. What a user typed never becomes a control token, and a template gives
//! either the bytes that `transformers` would give or an error.
//!
//! [`ChatFormat`] ties the pieces together for one model.

#![forbid(unsafe_code)]

mod chat;
mod forms;
mod jail;
mod jinja;
mod protect;
mod stream;
mod template;
mod tokenizer;
mod vetting;

pub use chat::{ChatFormat, TextError};
pub use forms::BuiltinForm;
pub use jail::render_child_main;
pub(crate) use jinja::utc_now;
pub use stream::TextStream;
pub use template::{ChatTemplate, Message, Rendered, Renderer, TemplateContext, TemplateError};
pub use tokenizer::{Tokenizer, TokenizerError, expects_panic};

/// The number of an entry in a tokenizer's vocabulary; below 2^24 for every [`Tokenizer`].
pub type TokenId = u32;
