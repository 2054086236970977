//! One answer: prompt to tokens, tokens to a stream of text.

use core::ops::ControlFlow;

use tercet_host::backend::{Ops, TokenId};
use tercet_host::event::{Event, Finished};
use tercet_host::forward::Cancel;
use tercet_host::package::Package;
use tercet_host::session::{Request, Session};
use tercet_host::text::{Message, Tokenizer};

use crate::args::SamplingArgs;
use crate::engine;
use crate::failure::Failure;

/// The tokenizer, or the reason why there is no text.
///
/// # Errors
///
/// [`Failure::Data`] for a model without one.
pub fn tokenizer(package: &Package) -> Result<&Tokenizer, Failure> {
    package.tokenizer.as_ref().ok_or_else(|| Failure::Data {
        what: "the model has no tokenizer.json, so it cannot read text".into(),
        hint: "give token ids (`tercet run --ids`, `tercet eval logits --tokens`), or copy \
               tokenizer.json from the model's repository into the folder",
    })
}

/// Tokens of a conversation, in the model's chat form; without one, the last message as it is.
///
/// # Errors
///
/// [`Failure`] when the template or the tokenizer refuses it.
pub fn encode(package: &Package, messages: &[Message]) -> Result<Vec<TokenId>, Failure> {
    let tokenizer = tokenizer(package)?;
    match (&package.chat, messages.last()) {
        (Some(chat), _) => Ok(chat.encode(tokenizer, &engine::renderer(), messages)?),
        (None, Some(message)) => Ok(tokenizer.encode_text(&message.content)?),
        (None, None) => Ok(Vec::new()),
    }
}

/// A message of a role.
#[must_use]
pub fn message(role: &str, content: impl Into<String>) -> Message {
    Message { role: role.into(), content: content.into() }
}

/// Generates one answer; `show` gets its text, or its token ids where the model has no tokenizer,
/// piece by piece.
///
/// # Errors
///
/// [`Failure`] of the session, or the error that `show` returned.
pub fn generate<O: Ops>(
    session: &mut Session<O>,
    package: &Package,
    args: &SamplingArgs,
    (prompt, seed): (&[TokenId], u64),
    cancel: &Cancel,
    show: &mut dyn FnMut(Piece<'_>) -> Result<(), Failure>,
) -> Result<Finished, Failure> {
    let request = Request {
        prompt,
        max_tokens: args.max_tokens.unwrap_or(usize::MAX),
        sampling: engine::sampling(package, args),
        seed,
        stop_tokens: &package.stop_tokens,
        stop_texts: &args.stop,
    };
    let mut failed = None;
    let mut sink = |event: Event| {
        let shown = match &event {
            Event::Token { token, text, .. } => show(Piece { token: Some(*token), text }),
            Event::Finished(finished) => show(Piece { token: None, text: &finished.text }),
            _ => Ok(()),
        };
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let tokenizer = package.tokenizer.as_ref();
    let finished = session.generate(&request, tokenizer, cancel, &mut sink);
    match failed {
        Some(error) => Err(error),
        None => Ok(finished.map_err(tercet_host::error::Error::from)?),
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The token; `None` for characters that were held back to the end.
    pub token: Option<TokenId>,
    /// Characters that are complete now.
    pub text: &'a str,
}

/// One line of numbers about an answer.
#[must_use]
pub fn summary(finished: &Finished) -> String {
    let first = finished.prefill.as_secs_f64() * 1e3;
    let steps = finished.tokens.saturating_sub(1);
    #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
    let rate = steps as f64 / finished.decode.as_secs_f64();
    let rate = if steps > 0 { format!("{rate:.1} tokens/s, ") } else { String::new() };
    format!(
        "{} tokens, {rate}prompt of {} ({} reused) in {first:.1} ms, ended by {}",
        finished.tokens,
        finished.prompt_tokens,
        finished.reused_tokens,
        finished.reason.name().replace('_', " "),
    )
}
