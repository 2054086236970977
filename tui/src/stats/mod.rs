//! [`Stats`]: the numbers of answers. One type computes them for the chat, for `run` and for
//! `--bench`, so that they cannot differ.
//!
//! | number | definition |
//! |---|---|
//! | time to first token | from the start of the prefill to the first token, its choice included |
//! | inter-token latency (ITL), gap | from one token to the next; the first token has none |
//! | tokens/s, mean | gaps divided by their sum: the first token does not count |
//! | tokens/s, now | the same of the last gaps: those of a second, at least 4, at most 256 |
//! | percentiles | of all gaps, linear between neighbours (numpy's default) |
//! | stall | a gap of more than 3 times the median, and of 10 ms more than it; needs 8 gaps |
//! | prefill tokens/s | tokens of the prompt that were not reused, by the time to their logits |
//!
//! The token that ends an answer is never shown, but was computed: it counts, and so does its gap.

pub mod histogram;
pub mod samples;
#[cfg(test)]
mod tests;
pub mod times;

use core::time::Duration;
use std::collections::VecDeque;

use tercet_host::event::{Event, Finished, StopReason};
use tercet_host::measure::Timing;

pub use self::histogram::Histogram;
pub use self::samples::{Oddity, Percentiles, Summary, oddities, summary};
pub use self::times::Times;

/// Gaps that are remembered in their order.
pub const RECENT: usize = 256;
/// Long gaps of which place and circumstances are remembered.
const LONGEST: usize = 32;
/// Time that the present rate looks back.
const NOW: Duration = Duration::from_secs(1);
/// Gaps that it looks at if fewer make up that time.
const NOW_GAPS: usize = 4;
/// A stall is this many times the median.
const STALL_TIMES: f64 = 3.0;
/// And this many milliseconds more than it: nobody sees less.
const STALL_MS: f64 = 10.0;
/// Fewer gaps have no stalls.
const STALL_GAPS: usize = 8;
/// Processors kept busy by others from which on numbers are not to be quoted, and stalls have a
/// suspect.
pub const NEIGHBOURS_MAX: f64 = 0.15;

/// Where a gap was, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Gap {
    time: Duration,
    /// The token that it led to, counted from 1 in its answer.
    token: usize,
    /// Processors that others kept busy at that time.
    neighbours: Option<f64>,
}

/// Why a gap was long, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// It was the first step after the prompt: buffers are touched, steps recorded.
    FirstStep,
    /// Other processes kept this many processors busy at that time.
    Neighbours(f64),
    /// Nothing is known.
    Unknown,
}

/// A gap that was much longer than the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stall {
    /// Its length.
    pub time: Duration,
    /// The token that it led to, counted from 1 in its answer.
    pub token: usize,
    /// Why.
    pub cause: Cause,
}

/// How an answer ended: [`Finished`] without its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct End {
    /// Why it ended.
    pub reason: StopReason,
    /// Tokens generated, the one that ended the answer included.
    pub tokens: usize,
    /// Time from the start to the logits of the last prompt token.
    pub prefill: Duration,
    /// Time from there to the end.
    pub decode: Duration,
}

/// How far a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prompt {
    /// Tokens in the cache, those reused included.
    pub done: usize,
    /// Tokens in all.
    pub total: usize,
    /// Tokens that were in the cache already.
    pub reused: usize,
}

/// The numbers of one answer, or of several that are heard one after the other. The tables of
/// times are of all of them; prompt, tokens and end are of the last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    first: Times,
    gaps: Times,
    /// The last gaps, oldest first.
    recent: VecDeque<Duration>,
    /// The longest gaps, longest first, earlier ones first among equals.
    longest: Vec<Gap>,
    prompt: Prompt,
    /// Tokens of the answer so far.
    tokens: usize,
    /// Time of the answer so far.
    elapsed: Duration,
    /// Time to the first token of the answer.
    ttft: Option<Duration>,
    /// Positions that the conversation takes.
    context: usize,
    end: Option<End>,
    neighbours: Option<f64>,
}

impl Stats {
    /// Hears what a session tells. What follows an end belongs to the next answer.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Prefill { done, total, reused } => {
                self.begin();
                self.prompt = Prompt { done: *done, total: *total, reused: *reused };
                self.context = *done;
            }
            Event::Token { position, elapsed, .. } => {
                self.begin();
                self.token(*elapsed);
                self.context = position.saturating_add(1);
            }
            Event::Finished(finished) => self.finished(finished),
            _ => {}
        }
    }

    /// Hears a whole run of a measurement, in which every sequence has a time to its first token
    /// and all of them share the steps.
    pub fn hear_run(&mut self, run: &Timing) {
        self.start_over();
        for first in &run.first_tokens {
            self.first.push(*first);
            self.ttft = Some(*first);
            self.tokens = 1;
        }
        // Without a prompt the step has a token before it as well: it was given.
        self.tokens = self.tokens.max(1);
        for step in &run.steps {
            self.token(*step);
        }
        self.elapsed = run.total;
    }

    /// Notes how many processors other processes keep busy: holds for the gaps that are heard from
    /// now on.
    pub fn note_neighbours(&mut self, cores: Option<f64>) {
        self.neighbours = cores;
    }

    /// Starts the next answer if the last one has ended.
    fn begin(&mut self) {
        if self.end.is_some() {
            self.start_over();
        }
    }

    fn start_over(&mut self) {
        self.prompt = Prompt::default();
        self.tokens = 0;
        self.elapsed = Duration::ZERO;
        self.ttft = None;
        self.end = None;
    }

    /// One more token of the answer, `elapsed` after the one before it or after the start.
    fn token(&mut self, elapsed: Duration) {
        self.tokens += 1;
        self.elapsed = self.elapsed.saturating_add(elapsed);
        if self.tokens == 1 {
            self.first.push(elapsed);
            self.ttft = Some(elapsed);
            return;
        }
        self.gaps.push(elapsed);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(elapsed);
        let gap = Gap { time: elapsed, token: self.tokens, neighbours: self.neighbours };
        let place = self.longest.partition_point(|other| other.time >= gap.time);
        if place < LONGEST {
            self.longest.truncate(LONGEST - 1);
            self.longest.insert(place, gap);
        }
    }

    fn finished(&mut self, finished: &Finished) {
        self.begin();
        let &Finished { reason, tokens, prefill, decode, .. } = finished;
        let (total, reused) = (finished.prompt_tokens, finished.reused_tokens);
        self.prompt = Prompt { total, reused, ..self.prompt };
        if tokens == self.tokens + 1 {
            // The token that ended the answer was not told of: the time that is left is its own.
            self.token(prefill.saturating_add(decode).saturating_sub(self.elapsed));
        }
        self.end = Some(End { reason, tokens, prefill, decode });
    }

    /// Times to the first token, of every answer.
    #[must_use]
    pub fn first_tokens(&self) -> &Times {
        &self.first
    }

    /// Times from token to token, of every answer.
    #[must_use]
    pub fn gaps(&self) -> &Times {
        &self.gaps
    }

    /// Time to the first token of the last answer; `None` before there is one.
    #[must_use]
    pub fn ttft(&self) -> Option<Duration> {
        self.ttft
    }

    /// Tokens of the last answer, the one that ended it included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The last prompt.
    #[must_use]
    pub fn prompt(&self) -> Prompt {
        self.prompt
    }

    /// Positions that the conversation takes: those of the prompt, and of the tokens after it.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// How the last answer ended; `None` while there is none or it goes on.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Mean of tokens per second after the first one; `None` before there is a second.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.gaps.per_second()
    }

    /// Tokens per second now, when the last token was `waiting` ago: once that is longer than a
    /// gap, it counts as one, so that the number falls while nothing comes.
    #[must_use]
    pub fn rate_now(&self, waiting: Duration) -> Option<f64> {
        let (mut time, mut gaps) = (Duration::ZERO, 0_u32);
        for gap in self.recent.iter().rev() {
            if time >= NOW && gaps as usize >= NOW_GAPS {
                break;
            }
            time = time.saturating_add(*gap);
            gaps += 1;
        }
        if gaps == 0 || time.is_zero() {
            return None;
        }
        if waiting > time / gaps {
            (time, gaps) = (time.saturating_add(waiting), gaps + 1);
        }
        Some(f64::from(gaps) / time.as_secs_f64())
    }

    /// Tokens of the prompt per second, those reused left out; `None` before the first token, and
    /// where all were reused.
    #[must_use]
    pub fn prefill_rate(&self) -> Option<f64> {
        // Until the end is told, the first token's choice is part of the time.
        let time = self.end.map(|end| end.prefill).or(self.ttft)?.as_secs_f64();
        let computed = self.prompt.total.saturating_sub(self.prompt.reused);
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        (computed > 0 && time > 0.0).then(|| computed as f64 / time)
    }

    /// The last gaps, oldest first; at most [`RECENT`].
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = Duration> + ExactSizeIterator + '_ {
        self.recent.iter().copied()
    }

    /// Counts of all gaps; `None` when there are none.
    #[must_use]
    pub fn histogram(&self, buckets_max: usize) -> Option<Histogram> {
        Histogram::new(&self.gaps, buckets_max)
    }

    /// Gaps longer than this are stalls; `None` while there are too few to tell.
    #[must_use]
    pub fn stall_limit(&self) -> Option<Duration> {
        let median = self.gaps.quantile(0.5).filter(|_| self.gaps.len() >= STALL_GAPS)?;
        let limit = (STALL_TIMES * median).max(median + STALL_MS);
        Duration::try_from_secs_f64(limit / 1e3).ok()
    }

    /// How many stalls there were, judged by the median of all gaps so far.
    #[must_use]
    pub fn stall_count(&self) -> usize {
        self.stall_limit().map_or(0, |limit| self.gaps.longer_than(limit))
    }

    /// The longest stalls, longest first; at most 32.
    pub fn stalls(&self) -> impl Iterator<Item = Stall> + '_ {
        let limit = self.stall_limit().unwrap_or(Duration::MAX);
        self.longest.iter().take_while(move |gap| gap.time > limit).map(|gap| Stall {
            time: gap.time,
            token: gap.token,
            cause: match gap.neighbours {
                // What happens there every time explains more than what happens to be.
                _ if gap.token == 2 => Cause::FirstStep,
                Some(cores) if cores >= NEIGHBOURS_MAX => Cause::Neighbours(cores),
                _ => Cause::Unknown,
            },
        })
    }
}
