//! One answer: prompt to tokens, tokens to a stream of text.

use core::ops::ControlFlow;
use core::time::Duration;

use serde_json::{Map, Value, json};
use tercet_host::backend::{Ops, TokenId};
use tercet_host::event::Event;
use tercet_host::forward::Cancel;
use tercet_host::package::Package;
use tercet_host::session::{Request, Session};
use tercet_host::text::{Message, Tokenizer};

use crate::args::SamplingArgs;
use crate::engine;
use crate::failure::Failure;
use crate::stats::Stats;

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
/// piece by piece. Returns its numbers.
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
) -> Result<Stats, Failure> {
    let request = Request {
        prompt,
        max_tokens: args.max_tokens.unwrap_or(usize::MAX),
        sampling: engine::sampling(package, args),
        seed,
        stop_tokens: &package.stop_tokens,
        stop_texts: &args.stop,
    };
    let mut failed = None;
    let mut stats = Stats::default();
    let mut sink = |event: Event| {
        stats.hear(&event);
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
        None => {
            finished.map_err(tercet_host::error::Error::from)?;
            Ok(stats)
        }
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

/// One line of numbers about an answer; empty before its end.
#[must_use]
pub fn summary(stats: &Stats) -> String {
    let Some(end) = stats.end() else { return String::new() };
    let rate = stats.rate().map_or_else(String::new, |rate| format!("{rate:.1} tokens/s, "));
    let prompt = stats.prompt();
    let s = if end.tokens == 1 { "" } else { "s" };
    format!(
        "{} token{s}, {rate}prompt of {} ({} reused) in {:.1} ms, ended by {}",
        end.tokens,
        prompt.total,
        prompt.reused,
        end.prefill.as_secs_f64() * 1e3,
        end.reason.name().replace('_', " "),
    )
}

/// The numbers of an answer for machines: `n_*` are counts, `*_ms` milliseconds, `*_ts` tokens per
/// second; `null` where there is nothing to measure. Empty before its end.
#[must_use]
pub fn numbers(stats: &Stats) -> Map<String, Value> {
    let Some(end) = stats.end() else { return Map::new() };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let numbers = [
        ("n_prompt", json!(stats.prompt().total)),
        ("n_reused", json!(stats.prompt().reused)),
        ("n_gen", json!(end.tokens)),
        ("prefill_ms", json!(ms(end.prefill))),
        ("prefill_ts", json!(stats.prefill_rate())),
        ("ttft_ms", json!(stats.ttft().map(ms))),
        ("decode_ms", json!(ms(end.decode))),
        ("decode_ts", json!(stats.rate())),
        ("itl_ms", json!(stats.gaps().percentiles())),
    ];
    numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}
