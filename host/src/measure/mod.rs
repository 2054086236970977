//! Measuring: a workload on an [`Ops`], timed; the machine beside it.
//!
//! A [`Stepper`] drives [`forward`] directly: several sequences at a time, a cache that is already
//! filled, logits for one position or all. Nothing is tokenised and nothing is decoded to text.

mod bandwidth;
mod estimate;
pub mod machine;
pub mod memory;
pub mod sampler;

use core::time::Duration;
use std::time::Instant;

pub use self::bandwidth::read_bandwidth;
pub use self::estimate::{session_bytes, upload_bytes};
use crate::backend::{Buffer, DeviceError, KvType, Limits, Ops, Row, TokenId};
use crate::forward::{Cancel, Pass, forward};
use crate::sampler::{Sampler, Sampling};

/// For which positions of a prompt logits are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// The last one, as answering needs.
    Last,
    /// All of them, as evaluation needs.
    All,
}

/// How the next token comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It was known before: nothing is chosen, only forward passes are timed.
    Given,
    /// The most likely one; choosing it is part of the time.
    Greedy,
}

/// What is run and timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Sequences, side by side; each has all of what follows.
    pub slots: usize,
    /// Positions that are in the cache before the clock starts.
    pub depth: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that follow, one step each. With a prompt and [`Next::Greedy`] the first of them
    /// comes from the prompt's logits, so there is one step fewer.
    pub generate: usize,
    /// Logits of the prompt.
    pub logits: Logits,
    /// Choice of the tokens that follow.
    pub next: Next,
}

impl Workload {
    /// Positions that each sequence needs.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.depth + self.prompt + self.generate
    }

    /// Tokens of all sequences that go into the timed part, prompt and generated.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.slots * (self.prompt + self.generate)
    }

    /// What a session for it must hold, with steps of at most `rows_max` prompt rows.
    #[must_use]
    pub fn limits(&self, rows_max: usize, kv: KvType) -> Limits {
        let rows_max = rows_max.max(self.slots);
        let logits_max = match self.logits {
            Logits::Last => self.slots,
            Logits::All => rows_max,
        };
        Limits { slots: self.slots, positions_max: self.positions(), rows_max, logits_max, kv }
    }
}

/// The times of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timing {
    /// From the first step to the end of the last.
    pub total: Duration,
    /// Per sequence: from the start to its first token; empty unless a prompt gives it.
    pub first_tokens: Vec<Duration>,
    /// Each step of one token per sequence, its choices included.
    pub steps: Vec<Duration>,
}

/// Runs workloads on one device. Token ids are pseudo-random or what follows from those that are,
/// the same in every run.
#[derive(Debug)]
pub struct Stepper<O> {
    ops: O,
    layers: usize,
    vocab: usize,
    rows_max: usize,
    rows: Vec<Row>,
    next: Vec<TokenId>,
    samplers: Vec<Sampler>,
}

impl<O: Ops> Stepper<O> {
    /// A stepper on buffers made for `limits`, which are those of its workloads.
    #[must_use]
    pub fn new(ops: O, layers: usize, vocab: usize, limits: Limits) -> Self {
        let samplers = (0..limits.slots).map(|_| Sampler::new(Sampling::GREEDY, 0)).collect();
        Self {
            ops,
            layers,
            vocab,
            rows_max: limits.rows_max,
            rows: Vec::with_capacity(limits.rows_max),
            next: vec![0; limits.slots],
            samplers,
        }
    }

    /// What it runs on.
    #[must_use]
    pub fn ops(&self) -> &O {
        &self.ops
    }

    /// Fills the cache up to the workload's depth. Once is enough: a run starts there and leaves
    /// what is before it alone.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub fn fill(&mut self, workload: &Workload, cancel: &Cancel) -> Result<Pass, DeviceError> {
        let Self { vocab, rows_max, .. } = *self;
        let all = (0..workload.slots)
            .flat_map(|slot| (0..workload.depth).map(move |position| (slot, position)));
        let mut rows = all
            .map(|(slot, position)| row(slot, position, token(slot, position, vocab), false))
            .peekable();
        while rows.peek().is_some() {
            self.rows.clear();
            self.rows.extend(rows.by_ref().take(rows_max));
            if forward(&mut self.ops, self.layers, &self.rows, cancel)? == Pass::Cancelled {
                return Ok(Pass::Cancelled);
            }
        }
        Ok(Pass::Done)
    }

    /// Runs the workload once. `None` when it was cancelled.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub fn run(
        &mut self,
        workload: &Workload,
        cancel: &Cancel,
    ) -> Result<Option<Timing>, DeviceError> {
        let mut timing = Timing::default();
        let start = Instant::now();
        if self.prompt(workload, start, &mut timing, cancel)? == Pass::Cancelled {
            return Ok(None);
        }
        let first = workload.depth + workload.prompt;
        if workload.prompt == 0 {
            for (slot, next) in self.next.iter_mut().enumerate() {
                *next = token(slot, first, self.vocab);
            }
        }
        let chosen = usize::from(workload.prompt > 0 && workload.next == Next::Greedy);
        for step in chosen..workload.generate {
            let position = first + step - chosen;
            let before = Instant::now();
            self.rows.clear();
            for slot in 0..workload.slots {
                let token = match workload.next {
                    Next::Given => token(slot, position, self.vocab),
                    Next::Greedy => self.next[slot],
                };
                self.rows.push(row(slot, position, token, true));
            }
            if forward(&mut self.ops, self.layers, &self.rows, cancel)? == Pass::Cancelled {
                return Ok(None);
            }
            match workload.next {
                Next::Given => self.ops.finish()?,
                Next::Greedy if workload.slots == 1 && step + 1 < workload.generate => {
                    self.next[0] = self.ops.choose_ahead(&mut self.samplers[0], 0, position + 1)?;
                }
                Next::Greedy => {
                    for slot in 0..workload.slots {
                        self.next[slot] = self.ops.choose(slot, &mut self.samplers[slot])?;
                    }
                }
            }
            timing.steps.push(before.elapsed());
        }
        timing.total = start.elapsed();
        Ok(Some(timing))
    }

    /// Steps the prompts, slot after slot, in full steps.
    fn prompt(
        &mut self,
        workload: &Workload,
        start: Instant,
        timing: &mut Timing,
        cancel: &Cancel,
    ) -> Result<Pass, DeviceError> {
        let Workload { slots, depth, prompt, logits, .. } = *workload;
        let mut done = 0;
        while done < slots * prompt {
            self.rows.clear();
            while self.rows.len() < self.rows_max && done < slots * prompt {
                let (slot, place) = (done / prompt, done % prompt);
                let asks = logits == Logits::All || place + 1 == prompt;
                let position = depth + place;
                self.rows.push(row(slot, position, token(slot, position, self.vocab), asks));
                done += 1;
            }
            if forward(&mut self.ops, self.layers, &self.rows, cancel)? == Pass::Cancelled {
                return Ok(Pass::Cancelled);
            }
            self.ops.finish()?;
            if workload.next == Next::Greedy && workload.generate > 0 {
                let asking = self.rows.iter().filter(|row| row.logits).enumerate();
                for (asked, row) in asking {
                    if row.position + 1 == depth + prompt {
                        let sampler = &mut self.samplers[row.slot];
                        self.next[row.slot] = self.ops.choose(asked, sampler)?;
                        timing.first_tokens.push(start.elapsed());
                    }
                }
            }
        }
        Ok(Pass::Done)
    }

    /// Looks at the logits of the last step: a model that computes nonsense must not be measured.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotFinite`] for a logit that is NaN or infinite.
    pub fn check_logits(&mut self) -> Result<(), DeviceError> {
        let logits = self.ops.read(Buffer::Logits)?;
        match logits.iter().position(|logit| !logit.is_finite()) {
            Some(place) => {
                Err(DeviceError::NotFinite { got: logits[place], token: place % self.vocab })
            }
            None => Ok(()),
        }
    }
}

fn row(slot: usize, position: usize, token: TokenId, logits: bool) -> Row {
    Row { slot, position, token, logits }
}

/// A token that depends on its place alone (SplitMix64's finalizer).
fn token(slot: usize, position: usize, vocab: usize) -> TokenId {
    let mut x = ((slot as u64) << 32 | position as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    u32::try_from((x ^ x >> 31) % vocab as u64).expect("ids are below the vocabulary, 2^24")
}
