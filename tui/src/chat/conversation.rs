//! [`Conversation`]: turns, the one being answered, and what the commands do to them. Pure: it
//! knows neither the engine nor the terminal.

use core::time::Duration;

use tercet_host::backend::TokenId;
use tercet_host::event::{Event, Finished, StopReason};
use tercet_host::sampler::Sampling;
use tercet_host::text::Message;

use super::record::{Numbers, Popped, Prompt, Record, Setup, Turn};
use super::worker::Question;
use crate::answer::message;
use crate::args::SamplingArgs;
use crate::engine;
use crate::stats::Stats;

/// The turn being answered.
#[derive(Debug, Clone)]
struct Open {
    question: Question,
    user: String,
    prompt: Vec<TokenId>,
    answer: String,
    tokens: Vec<TokenId>,
    sampling: Option<Sampling>,
    /// The turn that this one shall replace.
    instead: Option<Popped>,
}

/// What an event meant for the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It goes on.
    Nothing,
    /// A turn is complete.
    Answered,
    /// The answer was stopped before its first token; the message is not part of the conversation.
    Unanswered(String),
}

/// A conversation and how it goes on.
#[derive(Debug, Clone)]
pub struct Conversation {
    record: Record,
    /// What answers now; `None` until there is a model.
    setup: Option<Setup>,
    system: Option<String>,
    open: Option<Open>,
    /// How answers are chosen from now on.
    pub options: SamplingArgs,
}

impl Conversation {
    /// An empty one.
    #[must_use]
    pub fn new(system: Option<String>, options: SamplingArgs) -> Self {
        Self { record: Record::new(), setup: None, system, open: None, options }
    }

    /// Goes on with one that was had before, and with its instructions.
    pub fn resume(&mut self, record: Record) {
        self.system = record.system().map(str::to_owned);
        self.record = record;
        self.open = None;
        self.set_up_system();
    }

    /// The conversation as it is written to disk.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The same, to be changed by who writes it.
    pub fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    /// The instructions before the first message.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Turns that have been answered.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        self.record.turns()
    }

    /// Number of the turn that is being answered or would be next.
    #[must_use]
    pub fn next_turn(&self) -> usize {
        self.turns().len()
    }

    /// Whether an answer is being given.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Notes what answers from now on.
    pub fn set_up(&mut self, setup: Setup) {
        self.setup = Some(setup);
        self.set_up_system();
    }

    fn set_up_system(&mut self) {
        if let Some(setup) = &mut self.setup {
            setup.system.clone_from(&self.system);
        }
    }

    /// Notes the hash of the model's content, for the turns that the model has answered and will.
    pub fn set_content_hash(&mut self, hash: &str) {
        if let Some(setup) = &mut self.setup {
            self.record.set_content_hash(&setup.model, hash);
            setup.model.content_hash = Some(hash.to_owned());
        }
    }

    /// Forgets all turns.
    pub fn clear(&mut self) {
        self.record = Record::new();
        self.open = None;
    }

    /// Sets the instructions, and forgets all turns.
    pub fn set_system(&mut self, system: Option<String>) {
        self.clear();
        self.system = system;
        self.set_up_system();
    }

    /// Forgets the oldest turns, at most `count`. Returns how many.
    pub fn drop_oldest(&mut self, count: usize) -> usize {
        let count = count.min(self.next_turn());
        self.record.drop_oldest(count);
        count
    }

    /// Asks something new.
    pub fn ask(&mut self, user: String) -> Question {
        let seed = engine::seed(&self.options);
        self.begin(user, seed, None)
    }

    /// Asks the last message again, for another answer. `None` when there is none.
    pub fn regenerate(&mut self) -> Option<Question> {
        let last = self.record.pop()?;
        // The same seed would give the same answer.
        let seed = match self.options.seed {
            Some(_) => last.turn().seed.wrapping_add(1),
            None => engine::seed(&self.options),
        };
        Some(self.begin(last.turn().user.clone(), seed, Some(last)))
    }

    /// Asks `user` in place of the last message. `None` when there is none.
    pub fn edit(&mut self, user: String) -> Option<Question> {
        let last = self.record.pop()?;
        let seed = engine::seed(&self.options);
        Some(self.begin(user, seed, Some(last)))
    }

    /// Takes the last turn back. Returns its message.
    pub fn undo(&mut self) -> Option<String> {
        Some(self.record.pop()?.turn().user.clone())
    }

    fn put_back(&mut self, instead: Option<Popped>) {
        if let Some(turn) = instead {
            self.record.put_back(turn);
        }
    }

    fn begin(&mut self, user: String, seed: u64, instead: Option<Popped>) -> Question {
        let answered = self.turns().iter().flat_map(|turn| {
            [message("user", turn.user.as_str()), message("assistant", turn.answer.as_str())]
        });
        let system = self.system.iter().map(|text| message("system", text.as_str()));
        let messages: Vec<Message> =
            system.chain(answered).chain([message("user", user.as_str())]).collect();
        let question = Question { messages, options: self.options.clone(), seed };
        self.open = Some(Open {
            question: question.clone(),
            user,
            prompt: Vec::new(),
            answer: String::new(),
            tokens: Vec::new(),
            sampling: None,
            instead,
        });
        question
    }

    /// Notes the tokens of the prompt, and how the answer's are chosen.
    pub fn begun(&mut self, prompt: Vec<TokenId>, sampling: Sampling) {
        if let Some(open) = &mut self.open {
            open.prompt = prompt;
            open.sampling = Some(sampling);
        }
    }

    /// Hears what the session tells of the answer; `stats` have heard it already.
    pub fn hear(&mut self, event: &Event, stats: &Stats) -> Heard {
        let Some(open) = &mut self.open else { return Heard::Nothing };
        match event {
            Event::Token { token, text, .. } => {
                open.tokens.push(*token);
                open.answer.push_str(text);
                Heard::Nothing
            }
            Event::Finished(finished) => {
                open.answer.push_str(&finished.text);
                self.finish(finished, stats)
            }
            _ => Heard::Nothing,
        }
    }

    fn finish(&mut self, finished: &Finished, stats: &Stats) -> Heard {
        let Some(open) = self.open.take() else { return Heard::Nothing };
        let nothing_said = finished.reason == StopReason::Cancelled && open.answer.is_empty();
        let (Some(sampling), Some(setup), false) = (open.sampling, &self.setup, nothing_said)
        else {
            // As if it had not been asked.
            self.put_back(open.instead);
            return Heard::Unanswered(open.user);
        };
        self.record.set_up(setup.clone());
        let turn = Turn {
            setup: 0,
            user: open.user,
            prompt: Prompt::default(),
            answer: open.answer,
            tokens: open.tokens,
            seed: open.question.seed,
            sampling,
            max_tokens: open.question.options.max_tokens,
            stop_texts: open.question.options.stop,
            stop_reason: finished.reason,
            numbers: Numbers {
                ttft_ms: stats.ttft().map(|time| time.as_secs_f64() * 1e3),
                tokens_per_second: stats.rate(),
            },
        };
        self.record.push(turn, &open.prompt);
        Heard::Answered
    }

    /// Whether a turn is being replaced: it is not in the record, and comes back if its
    /// replacement does not.
    #[must_use]
    pub fn is_replacing(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.instead.is_some())
    }

    /// Ends the answer that is being given, if one is: what is there of it stays, as after a stop.
    /// Returns whether that changed the record.
    pub fn interrupt(&mut self, stats: &Stats) -> bool {
        let Some(open) = &self.open else { return false };
        let finished = Finished {
            reason: StopReason::Cancelled,
            text: String::new(),
            prompt_tokens: open.prompt.len(),
            reused_tokens: 0,
            tokens: open.tokens.len(),
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        };
        self.finish(&finished, stats) == Heard::Answered
    }

    /// The answer cannot be had: what was before is there again. Returns the message.
    pub fn refused(&mut self) -> Option<String> {
        let open = self.open.take()?;
        self.put_back(open.instead);
        Some(open.user)
    }
}
