//! What a session tells: a closed list of events, and where they go.

use core::ops::ControlFlow;
use core::time::Duration;

use crate::backend::TokenId;

/// One thing that happened, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Part of the prompt is in the cache.
    Prefill {
        /// Tokens done, those reused included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Tokens that were in the cache already.
        reused: usize,
    },
    /// A token was chosen.
    Token {
        /// Its id.
        token: TokenId,
        /// The characters it completed; may be empty.
        text: String,
        /// Its place in the sequence.
        position: usize,
        /// Time since the token before, or since the start of the prefill for the first one.
        elapsed: Duration,
    },
    /// The answer is complete; nothing follows.
    Finished(Finished),
}

/// How an answer ended, and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub reason: StopReason,
    /// Characters held back until now: the end of an incomplete one, or what might have become a
    /// stop text.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    pub reused_tokens: usize,
    /// Tokens generated, the one that ended the answer included.
    pub tokens: usize,
    /// Time from the start to the logits of the last prompt token.
    pub prefill: Duration,
    /// Time from there to the end.
    pub decode: Duration,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model ended its turn.
    EndOfTurn,
    /// One of the stop texts appeared; it is not part of the answer.
    StopText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// Somebody asked it to stop.
    Cancelled,
}

impl StopReason {
    /// A word for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfTurn => "end_of_turn",
            Self::StopText => "stop_text",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }

    /// The reason that has this [`name`](Self::name).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all =
            [Self::EndOfTurn, Self::StopText, Self::MaxTokens, Self::ContextFull, Self::Cancelled];
        all.into_iter().find(|reason| reason.name() == name)
    }
}

/// Hears the events of a session.
pub trait Sink {
    /// Takes one event; `Break` asks the session to stop.
    fn event(&mut self, event: Event) -> ControlFlow<()>;
}

impl<F: FnMut(Event) -> ControlFlow<()>> Sink for F {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        self(event)
    }
}
