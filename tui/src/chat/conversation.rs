//! [`Conversation`]: turns, the one being answered, and what the commands do to them. Pure: it
//! knows neither the engine nor the terminal.

use tercet_host::backend::TokenId;
use tercet_host::event::{Event, Finished};
use tercet_host::sampler::Sampling;
use tercet_host::text::Message;

use super::worker::Question;
use crate::answer::message;
use crate::args::SamplingArgs;
use crate::engine;

/// A message and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// What the user said.
    pub user: String,
    /// What the model said.
    pub answer: String,
    /// The answer's tokens, without the one that ended it.
    pub tokens: Vec<TokenId>,
    /// Seed of the choices.
    pub seed: u64,
    /// How tokens were chosen.
    pub sampling: Sampling,
    /// Most tokens of the answer, as asked.
    pub max_tokens: Option<usize>,
    /// Texts that would have ended it.
    pub stop: Vec<String>,
    /// How it ended, and its numbers.
    pub finished: Finished,
}

/// The turn being answered.
#[derive(Debug, Clone)]
struct Open {
    user: String,
    answer: String,
    tokens: Vec<TokenId>,
    seed: u64,
    sampling: Option<Sampling>,
    /// The answer that this one shall replace.
    instead: Option<Turn>,
}

/// A conversation and how it goes on.
#[derive(Debug, Clone)]
pub struct Conversation {
    system: Option<String>,
    turns: Vec<Turn>,
    open: Option<Open>,
    /// How answers are chosen from now on.
    pub options: SamplingArgs,
}

impl Conversation {
    /// An empty one.
    #[must_use]
    pub fn new(system: Option<String>, options: SamplingArgs) -> Self {
        Self { system, turns: Vec::new(), open: None, options }
    }

    /// One that was had before.
    #[must_use]
    pub fn resumed(system: Option<String>, turns: Vec<Turn>, options: SamplingArgs) -> Self {
        Self { system, turns, open: None, options }
    }

    /// The instructions before the first message.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Turns that have been answered.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Number of the turn that is being answered or would be next.
    #[must_use]
    pub fn next_turn(&self) -> usize {
        self.turns.len()
    }

    /// Whether an answer is being given.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Forgets all turns; other instructions may follow.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.open = None;
    }

    /// Sets the instructions, and forgets all turns.
    pub fn set_system(&mut self, system: Option<String>) {
        self.clear();
        self.system = system;
    }

    /// Forgets the oldest turns, at most `count`. Returns how many there were.
    pub fn drop_oldest(&mut self, count: usize) -> usize {
        let count = count.min(self.turns.len());
        self.turns.drain(..count);
        count
    }

    /// Asks something new.
    pub fn ask(&mut self, user: String) -> Question {
        let seed = engine::seed(&self.options);
        self.begin(user, seed, None)
    }

    /// Asks the last message again, for another answer. `None` when there is none.
    pub fn regenerate(&mut self) -> Option<Question> {
        let last = self.turns.pop()?;
        // The same seed would give the same answer.
        let seed = match self.options.seed {
            Some(_) => last.seed.wrapping_add(1),
            None => engine::seed(&self.options),
        };
        Some(self.begin(last.user.clone(), seed, Some(last)))
    }

    /// Asks `user` in place of the last message. `None` when there is none.
    pub fn edit(&mut self, user: String) -> Option<Question> {
        let last = self.turns.pop()?;
        let seed = engine::seed(&self.options);
        Some(self.begin(user, seed, Some(last)))
    }

    /// Takes the last turn back. Returns its message.
    pub fn undo(&mut self) -> Option<String> {
        Some(self.turns.pop()?.user)
    }

    fn begin(&mut self, user: String, seed: u64, instead: Option<Turn>) -> Question {
        let answered = self.turns.iter().flat_map(|turn| {
            [message("user", turn.user.as_str()), message("assistant", turn.answer.as_str())]
        });
        let system = self.system.iter().map(|text| message("system", text.as_str()));
        let messages: Vec<Message> =
            system.chain(answered).chain([message("user", user.as_str())]).collect();
        let (answer, tokens, sampling) = (String::new(), Vec::new(), None);
        self.open = Some(Open { user, answer, tokens, seed, sampling, instead });
        Question { messages, options: self.options.clone(), seed }
    }

    /// Notes how the answer's tokens are chosen.
    pub fn begun(&mut self, sampling: Sampling) {
        if let Some(open) = &mut self.open {
            open.sampling = Some(sampling);
        }
    }

    /// Hears what the session tells of the answer.
    pub fn hear(&mut self, event: &Event) -> Heard {
        let Some(open) = &mut self.open else { return Heard::Nothing };
        match event {
            Event::Token { token, text, .. } => {
                open.tokens.push(*token);
                open.answer.push_str(text);
                Heard::Nothing
            }
            Event::Finished(finished) => {
                open.answer.push_str(&finished.text);
                self.finish(finished)
            }
            _ => Heard::Nothing,
        }
    }

    fn finish(&mut self, finished: &Finished) -> Heard {
        let Some(open) = self.open.take() else { return Heard::Nothing };
        let Open { user, answer, tokens, seed, sampling, instead } = open;
        let Some(sampling) = sampling.filter(|_| finished.tokens > 0) else {
            // Stopped before its first token: as if it had not been asked.
            self.turns.extend(instead);
            return Heard::Unanswered(user);
        };
        self.turns.push(Turn {
            user,
            answer,
            tokens,
            seed,
            sampling,
            max_tokens: self.options.max_tokens,
            stop: self.options.stop.clone(),
            finished: finished.clone(),
        });
        Heard::Answered
    }

    /// The answer cannot be had: what was before is there again. Returns the message.
    pub fn refused(&mut self) -> Option<String> {
        let open = self.open.take()?;
        self.turns.extend(open.instead);
        Some(open.user)
    }
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
