//! [`Session`]: prefill, decode, choose, tell.

use std::time::Instant;

use crate::backend::{Buffer, DeviceError, Limits, Ops, OpsBytes, Row, TokenId};
use crate::config::ModelConfig;
use crate::event::{Event, Finished, Sink, StopReason};
use crate::forward::{Cancel, Pass, forward};
use crate::sampler::{Sampler, Sampling};
use crate::stop::StopTexts;
use crate::text::Tokenizer;

/// Why a prompt cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// Nothing to start from.
    #[error("the prompt has no tokens")]
    Empty,
    /// Longer than the context.
    #[error("the prompt has {prompt} tokens, the context holds {context} and the answer needs one")]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions of the session.
        context: usize,
    },
    /// A token that the model does not have.
    #[error("token id {token} is not below the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: TokenId,
        /// Size of the vocabulary.
        vocab: usize,
    },
}

impl PromptError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "give at least one token",
            Self::TooLong { .. } => {
                "shorten the prompt or raise --ctx; tercet never cuts a prompt by itself"
            }
            Self::Token { .. } => "the tokens belong to another model's tokenizer",
        }
    }
}

/// Why a session stopped with an error.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What is asked of the model.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Token ids, used as they are.
    pub prompt: &'a [TokenId],
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Seed of the choices.
    pub seed: u64,
    /// Tokens that end the answer.
    pub stop_tokens: &'a [TokenId],
    /// Texts that end the answer, and are not part of it.
    pub stop_texts: &'a [String],
}

/// One conversation on one device: owns the cache of slot 0.
#[derive(Debug)]
pub struct Session<O: Ops> {
    ops: O,
    layers: usize,
    vocab: usize,
    limits: Limits,
    /// Tokens whose keys and values are in the cache.
    cached: Vec<TokenId>,
    /// Rows of the step at hand.
    rows: Vec<Row>,
}

impl<O: Ops> Session<O> {
    /// A session on buffers made for `limits`.
    #[must_use]
    pub fn new(ops: O, config: &ModelConfig, limits: Limits) -> Self {
        Self {
            ops,
            layers: config.layers,
            vocab: config.vocab,
            limits,
            cached: Vec::with_capacity(limits.positions_max),
            rows: Vec::with_capacity(limits.rows_max),
        }
    }

    /// Positions of the context.
    #[must_use]
    pub fn context(&self) -> usize {
        self.limits.positions_max
    }

    /// Tokens in the cache.
    #[must_use]
    pub fn cached(&self) -> &[TokenId] {
        &self.cached
    }

    /// Bytes of its buffers.
    #[must_use]
    pub fn bytes(&self) -> OpsBytes {
        self.ops.bytes()
    }

    /// Forgets the conversation.
    pub fn clear(&mut self) {
        self.cached.clear();
    }

    /// Answers a prompt, telling `sink` as it goes. What the prompt shares with the conversation
    /// before it is not computed again.
    ///
    /// The tokens depend on the prompt, the sampling and the seed; not on the chunks of the
    /// prefill, on what was reused, or on `sink`.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; the session stays usable.
    pub fn generate(
        &mut self,
        request: &Request<'_>,
        tokenizer: Option<&Tokenizer>,
        cancel: &Cancel,
        sink: &mut dyn Sink,
    ) -> Result<Finished, SessionError> {
        let start = Instant::now();
        let prompt = request.prompt;
        self.check(prompt)?;
        if prompt.len() >= self.limits.positions_max {
            let context = self.limits.positions_max;
            return Err(PromptError::TooLong { prompt: prompt.len(), context }.into());
        }
        let mut answer = Answer {
            sampler: Sampler::new(request.sampling, request.seed),
            stream: tokenizer.map(Tokenizer::stream),
            stop_texts: StopTexts::new(request.stop_texts),
            tokens: 0,
        };
        for &token in prompt {
            answer.sampler.observe(token);
        }

        let (reused, whole) = self.prefill(prompt, cancel, sink)?;
        let prefill = start.elapsed();
        let reason = if whole {
            self.decode(request, &mut answer, start, cancel, sink)?
        } else {
            StopReason::Cancelled
        };
        let finished = Finished {
            reason,
            tokens: answer.tokens,
            text: answer.rest(reason),
            prompt_tokens: prompt.len(),
            reused_tokens: reused,
            prefill,
            decode: start.elapsed().saturating_sub(prefill),
        };
        // The answer is over: there is nothing left to stop.
        let _ = sink.event(Event::Finished(finished.clone()));
        Ok(finished)
    }

    /// Logits of every token of `tokens`, each seeing those before it; `take` gets them in
    /// stretches of whole rows, `(rows, vocab)`. Starts a new conversation.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; [`PromptError::TooLong`] when there are more tokens than positions.
    pub fn logits(
        &mut self,
        tokens: &[TokenId],
        mut take: impl FnMut(&[f32]),
    ) -> Result<(), SessionError> {
        self.check(tokens)?;
        if tokens.len() > self.limits.positions_max {
            let context = self.limits.positions_max;
            return Err(PromptError::TooLong { prompt: tokens.len(), context }.into());
        }
        self.clear();
        let chunk = self.limits.rows_max.min(self.limits.logits_max);
        for tokens in tokens.chunks(chunk) {
            self.step(tokens, |_| true, &Cancel::default())?;
            let logits = self.ops.read(Buffer::Logits)?;
            if let Some(token) = logits.iter().position(|logit| !logit.is_finite()) {
                let (got, token) = (logits[token], token % self.vocab);
                return Err(DeviceError::NotFinite { got, token }.into());
            }
            take(&logits);
        }
        Ok(())
    }

    fn check(&self, tokens: &[TokenId]) -> Result<(), PromptError> {
        if tokens.is_empty() {
            return Err(PromptError::Empty);
        }
        match tokens.iter().find(|token| **token as usize >= self.vocab) {
            Some(&token) => Err(PromptError::Token { token, vocab: self.vocab }),
            None => Ok(()),
        }
    }

    /// Brings the prompt into the cache and makes the logits of its last token. Returns the tokens
    /// reused and whether it ran to the end.
    fn prefill(
        &mut self,
        prompt: &[TokenId],
        cancel: &Cancel,
        sink: &mut dyn Sink,
    ) -> Result<(usize, bool), SessionError> {
        let shared = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token is always computed: its logits are not kept.
        let reused = shared.min(prompt.len() - 1);
        self.cached.truncate(reused);
        let total = prompt.len();
        let mut go_on = sink.event(Event::Prefill { done: reused, total, reused }).is_continue();
        for tokens in prompt[reused..].chunks(self.limits.rows_max) {
            let last = total - 1;
            if !go_on || self.step(tokens, |position| position == last, cancel)? == Pass::Cancelled
            {
                return Ok((reused, false));
            }
            let done = self.cached.len();
            go_on = sink.event(Event::Prefill { done, total, reused }).is_continue();
        }
        Ok((reused, go_on))
    }

    /// Chooses and steps until something ends the answer.
    fn decode(
        &mut self,
        request: &Request<'_>,
        answer: &mut Answer<'_>,
        start: Instant,
        cancel: &Cancel,
        sink: &mut dyn Sink,
    ) -> Result<StopReason, SessionError> {
        let mut last = start;
        loop {
            if answer.tokens == request.max_tokens {
                return Ok(StopReason::MaxTokens);
            }
            // What follows unless the answer ends with this token.
            let position = self.cached.len();
            let goes_on =
                answer.tokens + 1 < request.max_tokens && position < self.limits.positions_max;
            let token = if goes_on {
                self.ops.choose_ahead(&mut answer.sampler, 0, position)?
            } else {
                self.ops.choose(0, &mut answer.sampler)?
            };
            answer.sampler.observe(token);
            answer.tokens += 1;
            if request.stop_tokens.contains(&token) {
                return Ok(StopReason::EndOfTurn);
            }
            let text = answer.stream.as_mut().map_or_else(String::new, |stream| stream.push(token));
            let (text, stopped) = answer.stop_texts.push(text);
            let now = Instant::now();
            let elapsed = now - last;
            last = now;
            let go_on = sink.event(Event::Token { token, text, position, elapsed }).is_continue();
            if stopped {
                return Ok(StopReason::StopText);
            }
            if !go_on || cancel.requested() {
                return Ok(StopReason::Cancelled);
            }
            if position == self.limits.positions_max {
                return Ok(StopReason::ContextFull);
            }
            if answer.tokens < request.max_tokens
                && self.step(&[token], |_| true, cancel)? == Pass::Cancelled
            {
                return Ok(StopReason::Cancelled);
            }
        }
    }

    /// Steps `tokens` after what is cached.
    fn step(
        &mut self,
        tokens: &[TokenId],
        logits: impl Fn(usize) -> bool,
        cancel: &Cancel,
    ) -> Result<Pass, DeviceError> {
        let first = self.cached.len();
        self.rows.clear();
        self.rows.extend((first..).zip(tokens).map(|(position, &token)| Row {
            slot: 0,
            position,
            token,
            logits: logits(position),
        }));
        let pass = forward(&mut self.ops, self.layers, &self.rows, cancel)?;
        if pass == Pass::Done {
            self.cached.extend_from_slice(tokens);
        }
        Ok(pass)
    }
}

/// The state of one answer.
struct Answer<'a> {
    sampler: Sampler,
    stream: Option<crate::text::TextStream<'a>>,
    stop_texts: StopTexts<'a>,
    tokens: usize,
}

impl Answer<'_> {
    /// The characters that were held back.
    fn rest(self, reason: StopReason) -> String {
        if reason == StopReason::StopText {
            return String::new();
        }
        let last = self.stream.map_or_else(String::new, |stream| stream.finish());
        self.stop_texts.finish(last)
    }
}
