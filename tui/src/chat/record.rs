//! [`Record`]: a conversation as it is written to disk, with all that it takes to have it again.
//!
//! A session file is one JSON object. What answered (model, form, device, numbers) stands in a list
//! of *setups*, and every turn names its own: a conversation may change its model or its
//! instructions, or be resumed elsewhere. A turn's prompt is kept as token ids, as far as they do
//! not repeat what stood before; so [`replay`](crate::replay) needs neither today's template nor
//! today's date.

mod file;

use core::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tercet_host::backend::TokenId;
use tercet_host::event::StopReason;
use tercet_host::measure::machine::utc_now;
use tercet_host::package::{Package, Source};
use tercet_host::sampler::Sampling;
use tercet_host::text::Message;

use crate::answer::message;
use crate::args::{DeviceArgs, Head, Kv};
use crate::clean::OneLine;

pub use file::RECORD_BYTES_MAX;
pub(super) use file::ReadError;
use file::{FORMAT, VERSION};

/// Longest title, in characters.
const TITLE_CHARS: usize = 60;

/// A conversation, and what it takes to have it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: String,
    version: u32,
    /// When it began, in UTC, as ISO 8601 writes it.
    pub created: String,
    /// When it was last saved.
    pub updated: String,
    setups: Vec<Setup>,
    turns: Vec<Turn>,
}

/// What answered: everything that an answer depends on, but for its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Version of the program.
    pub program: String,
    /// The model.
    pub model: ModelId,
    /// How messages become a prompt.
    pub form: Form,
    /// Instructions that stand before the conversation.
    pub system: Option<String>,
    /// Where it was computed.
    pub device: DeviceId,
    /// Positions of the context.
    pub context: usize,
    /// Number type of the key/value cache.
    pub kv: Kv,
    /// How the head's weights were held.
    pub head: Head,
    /// Whether a GPU was to give the same bits whatever is reused; a CPU always does.
    pub deterministic: bool,
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelId {
    /// As the user named it.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// [`content_hash`](tercet_host::content_hash::content_hash), once it is known.
    pub content_hash: Option<String>,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Inside the program.
    BuiltIn,
    /// On disk: an absolute path.
    Path(String),
}

/// How messages become a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// By the model's chat template, which has this SHA-256.
    Template(String),
    /// By a form of the program's.
    BuiltIn {
        /// Its name.
        name: String,
        /// SHA-256 of its template.
        template: String,
    },
    /// As text that the model continues.
    Completion,
}

/// Where answers were computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceId {
    /// What it is.
    pub kind: DeviceKind,
    /// What its maker calls it.
    pub name: String,
    /// Instructions of the CPU that were used; answers do not depend on them.
    pub simd: Option<String>,
    /// Threads of the CPU that were used; answers do not depend on them.
    pub threads: Option<usize>,
}

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// One message and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Which of [`Record::setups`] answered; [`Record::push`] fills it in.
    pub setup: usize,
    /// What the user said.
    pub user: String,
    /// The prompt; [`Record::push`] fills it in.
    pub prompt: Prompt,
    /// The answer, as the model wrote it, up to where it was stopped.
    pub answer: String,
    /// Token ids of the answer, without the one that ended it.
    pub tokens: Vec<TokenId>,
    /// Seed of the choices.
    pub seed: u64,
    /// How tokens were chosen.
    #[serde(with = "SamplingFields")]
    pub sampling: Sampling,
    /// Most tokens that the answer could have had; `None` where nothing but the context bounded it.
    pub max_tokens: Option<usize>,
    /// Texts that would have ended the answer.
    pub stop_texts: Vec<String>,
    /// Why the answer ended.
    #[serde(with = "reason")]
    pub stop_reason: StopReason,
    /// How long it took.
    pub numbers: Numbers,
}

/// A turn that was taken out of its record, to be put back if no other takes its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Popped {
    turn: Turn,
    prompt: Vec<TokenId>,
    setup: Setup,
}

impl Popped {
    /// The turn.
    #[must_use]
    pub fn turn(&self) -> &Turn {
        &self.turn
    }
}

/// Token ids of a prompt, less what stood before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Its length, in tokens.
    tokens: usize,
    /// Tokens at its beginning that are those of the turn before: of that turn's prompt, then of
    /// its answer.
    shared: usize,
    /// The other tokens.
    rest: Vec<TokenId>,
    /// Turns that were part of it and have been taken out of the record since.
    dropped: usize,
}

impl Prompt {
    /// Its length, in tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Turns that were part of it and have been taken out of the record since: their messages are
    /// gone, so that only its tokens tell what it was.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

/// How long an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// From the request to the first token, in milliseconds; `None` where there was none.
    pub ttft_ms: Option<f64>,
    /// Tokens a second after the first; `None` for fewer than two tokens.
    pub tokens_per_second: Option<f64>,
}

/// The fields of [`Sampling`] as they are written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Sampling", deny_unknown_fields)]
struct SamplingFields {
    repetition_penalty: f32,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
}

/// [`StopReason`] by its name.
mod reason {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use tercet_host::event::StopReason;

    pub(super) fn serialize<S: Serializer>(reason: &StopReason, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(reason.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StopReason, D::Error> {
        let name = String::deserialize(from)?;
        StopReason::named(&name)
            .ok_or_else(|| D::Error::custom(format_args!("`{name}` is no reason to stop")))
    }
}

impl DeviceId {
    /// It, for people.
    #[must_use]
    pub fn line(&self) -> String {
        match (&self.simd, self.threads) {
            (Some(simd), Some(1)) => format!("CPU, {simd}, 1 thread"),
            (Some(simd), Some(threads)) => format!("CPU, {simd}, {threads} threads"),
            _ => self.name.clone(),
        }
    }
}

impl Turn {
    /// Brings `tokens` from prompt and answer of the turn before to those of this one.
    fn follow(&self, tokens: &mut Vec<TokenId>) {
        tokens.truncate(self.prompt.shared);
        tokens.extend_from_slice(&self.prompt.rest);
        tokens.extend_from_slice(&self.tokens);
    }
}

impl Form {
    /// The form in which `package` wants to be talked to.
    #[must_use]
    pub fn of(package: &Package) -> Self {
        let Some(chat) = &package.chat else { return Self::Completion };
        let template = chat.template().hash_hex();
        match chat.form() {
            Some(form) => Self::BuiltIn { name: form.name().to_owned(), template },
            None => Self::Template(template),
        }
    }
}

/// For a sentence.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(hash) => write!(f, "the template with SHA-256 {hash}"),
            Self::BuiltIn { name, template } => {
                write!(f, "the built-in form {name} with SHA-256 {template}")
            }
            Self::Completion => write!(f, "none"),
        }
    }
}

impl Place {
    /// Where `source` is.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        match source {
            Source::Builtin { .. } => Self::BuiltIn,
            Source::Path(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Self::Path(path.to_string_lossy().into_owned())
            }
        }
    }
}

impl Setup {
    /// The setup of a session with `package` from `source`: `context` positions on `device`, and
    /// what `args` say. Its content hash is not known yet.
    #[must_use]
    pub fn new(
        (package, source): (&Package, &Source),
        device: DeviceId,
        context: usize,
        args: &DeviceArgs,
        system: Option<&str>,
    ) -> Self {
        let name = package.checkpoint.name().to_owned();
        Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            model: ModelId { name, place: Place::of(source), content_hash: None },
            form: Form::of(package),
            system: system.map(str::to_owned),
            device,
            context,
            kv: args.kv,
            head: args.head,
            deterministic: args.deterministic,
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    /// A conversation that begins now.
    #[must_use]
    pub fn new() -> Self {
        let now = utc_now();
        Self {
            format: FORMAT.into(),
            version: VERSION,
            created: now.clone(),
            updated: now,
            setups: Vec::new(),
            turns: Vec::new(),
        }
    }

    /// The turns, oldest first.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// What answered.
    #[must_use]
    pub fn setups(&self) -> &[Setup] {
        &self.setups
    }

    /// The instructions of the last setup: those of a conversation that goes on.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.setups.last()?.system.as_deref()
    }

    /// The first line of the first message, cut at 60 characters, without control characters.
    #[must_use]
    pub fn title(&self) -> String {
        let text = self.turns.first().map_or("", |turn| turn.user.trim());
        let line = OneLine(text.lines().next().unwrap_or("").trim_end()).to_string();
        let mut title: String = line.chars().take(TITLE_CHARS).collect();
        if title.len() < line.len() {
            title.push('…');
        }
        title
    }

    /// What answers from now on.
    pub fn set_up(&mut self, setup: Setup) {
        self.drop_unused();
        if self.setups.last() != Some(&setup) {
            self.setups.push(setup);
        }
    }

    /// Adds the content hash of `model`, once it is known, wherever it answered.
    pub fn set_content_hash(&mut self, model: &ModelId, hash: &str) {
        for setup in self.setups.iter_mut().filter(|setup| setup.model == *model) {
            setup.model.content_hash = Some(hash.to_owned());
        }
    }

    /// Adds a turn that the last setup answered to the token ids `prompt`.
    ///
    /// # Panics
    ///
    /// Before [`Record::set_up`].
    pub fn push(&mut self, mut turn: Turn, prompt: &[TokenId]) {
        assert!(!self.setups.is_empty(), "a turn of a record that was not set up");
        turn.setup = self.setups.len() - 1;
        let mut before = Vec::new();
        self.turns.iter().for_each(|turn| turn.follow(&mut before));
        let shared = before.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let rest = prompt[shared..].to_vec();
        turn.prompt = Prompt { tokens: prompt.len(), shared, rest, dropped: 0 };
        self.turns.push(turn);
    }

    /// Takes the last turn out.
    pub fn pop(&mut self) -> Option<Popped> {
        let prompt = self.prompts().last()?;
        let turn = self.turns.pop()?;
        let setup = self.setups[turn.setup].clone();
        Some(Popped { turn, prompt, setup })
    }

    /// Puts a turn back that was taken out, with what answered it.
    pub fn put_back(&mut self, Popped { turn, prompt, setup }: Popped) {
        self.set_up(setup);
        let dropped = turn.prompt.dropped;
        self.push(turn, &prompt);
        if let Some(turn) = self.turns.last_mut() {
            turn.prompt.dropped = dropped;
        }
    }

    /// Takes the oldest `count` turns out. The prompts of the others stay what they were.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn drop_oldest(&mut self, count: usize) {
        let next = self.prompts().nth(count);
        self.turns.drain(..count);
        if let (Some(turn), Some(prompt)) = (self.turns.first_mut(), next) {
            // Nothing stands before it now.
            (turn.prompt.shared, turn.prompt.rest) = (0, prompt);
        }
        for turn in &mut self.turns {
            turn.prompt.dropped += count;
        }
    }

    /// The prompts of all turns, as token ids.
    pub fn prompts(&self) -> impl Iterator<Item = Vec<TokenId>> + '_ {
        let mut tokens = Vec::new();
        self.turns.iter().map(move |turn| {
            turn.follow(&mut tokens);
            tokens[..turn.prompt.tokens].to_vec()
        })
    }

    /// The messages that led to the answer of turn `number`: instructions, the turns before, and
    /// what the user said.
    #[must_use]
    pub fn messages(&self, number: usize) -> Vec<Message> {
        let Some(last) = self.turns.get(number) else { return Vec::new() };
        let system = self.setups.get(last.setup).and_then(|setup| setup.system.as_deref());
        let mut messages: Vec<_> = system.into_iter().map(|text| message("system", text)).collect();
        for turn in &self.turns[..number] {
            messages.push(message("user", &turn.user));
            messages.push(message("assistant", &turn.answer));
        }
        messages.push(message("user", &last.user));
        messages
    }

    /// Forgets setups that no turn names, but for the last one, which is that of turns to come; and
    /// joins those that have become equal.
    fn drop_unused(&mut self) {
        let count = self.setups.len();
        let used = |number| number + 1 == count || self.turns.iter().any(|t| t.setup == number);
        let mut kept: Vec<Setup> = Vec::new();
        let mut place = vec![0; count];
        for (number, setup) in self.setups.iter().enumerate() {
            if !used(number) {
                continue;
            }
            let mut known = kept.iter().position(|known| known == setup);
            if number + 1 == count && known.is_some_and(|known| known + 1 < kept.len()) {
                // The last one stays last, though it has been there before.
                known = None;
            }
            place[number] = known.unwrap_or(kept.len());
            if known.is_none() {
                kept.push(setup.clone());
            }
        }
        for turn in &mut self.turns {
            turn.setup = place[turn.setup];
        }
        self.setups = kept;
    }
}

/// The source of the model of a place.
#[must_use]
pub fn source_of(place: &Place) -> Source {
    match place {
        Place::BuiltIn => crate::builtin::source(),
        Place::Path(path) => Source::Path(PathBuf::from(path)),
    }
}

#[cfg(test)]
pub(super) mod tests;
