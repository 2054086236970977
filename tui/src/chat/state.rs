//! [`Chat`]: what the chat is, whichever way it is shown. Messages, commands and news go in; what
//! is to be done outside comes out as [`Effect`]s. Pure: no terminal, no files, no threads.

use core::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tercet_host::event::{Event, StopReason};
use tercet_host::package::Package;

use super::code;
use super::command::{self, Command, Copied, ExportKind, Input};
use super::conversation::{Conversation, Heard};
use super::record::{Record, Setup};
use super::transcript::{Entry, Transcript};
use super::worker::{Ask, News, Question, Ready, Refusal};
use crate::answer::summary;
use crate::args::{DeviceArgs, ModelArg};
use crate::clean::{Cleaner, clean};
use crate::engine;
use crate::stats::Stats;

/// What the engine is doing, as far as it has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A model is on its way: bytes done and in all.
    Loading(u64, u64),
    /// Nothing.
    Idle,
    /// It was asked, and reads the prompt: tokens done and in all, once they are known.
    Reading(Option<(usize, usize)>),
    /// It answers.
    Answering,
    /// It was asked to stop, and has not said so yet.
    Stopping,
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Effect {
    /// Ask the engine.
    Ask(Ask),
    /// Stop the answer.
    Stop,
    /// Save the session, which has changed.
    Save,
    /// From now on it is another session: the next one to be saved is new.
    Begin,
    /// Save the session to a file of the user's.
    SaveAs(Option<PathBuf>),
    /// Go on with a saved session, or list them.
    Load(Option<String>),
    /// Write the conversation to a file.
    Export(Option<PathBuf>, ExportKind),
    /// Put text on the clipboard.
    Copy(String),
    /// Let the user change this text, which was the last message, and ask it in its place.
    Revise(String),
    /// Give the user this text back, which was not answered.
    GiveBack(String),
    /// Show the numbers or not; `None` changes it to the opposite.
    ShowNumbers(Option<bool>),
    /// Leave.
    Quit,
}

/// A chat.
#[derive(Debug)]
pub struct Chat {
    /// Turns and options.
    pub conversation: Conversation,
    /// What is shown of them, and what the program had to say.
    pub transcript: Transcript,
    /// Numbers of the last answer, or of the one that is being given.
    pub stats: Stats,
    /// What the engine does.
    pub state: State,
    /// The model that is there.
    pub ready: Option<Ready>,
    /// Positions that the conversation takes in the model's cache, as far as is known.
    pub context_used: usize,
    /// When the last question was asked, or the last token came.
    pub since: Instant,
    /// What keys do, for help.
    pub keys: &'static str,
    /// Takes control sequences out of the answer that is being given.
    cleaner: Cleaner,
    device: DeviceArgs,
    /// The device and why it is used, for people.
    pub(super) device_line: String,
    pub(super) why_line: String,
}

impl Chat {
    /// A chat that waits for its model, which runs as `device` says; where that asks for quiet, the
    /// chat says nothing about itself unasked.
    #[must_use]
    pub fn new(conversation: Conversation, device: DeviceArgs) -> Self {
        Self {
            conversation,
            transcript: Transcript::default(),
            stats: Stats::default(),
            state: State::Loading(0, 0),
            ready: None,
            context_used: 0,
            since: Instant::now(),
            keys: "",
            cleaner: Cleaner::new(),
            device,
            device_line: String::new(),
            why_line: String::new(),
        }
    }

    /// Whether an answer is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Reading(_) | State::Answering | State::Stopping)
    }

    /// Whether an answer is on its way, or waits for a model.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_busy() || self.conversation.is_open()
    }

    /// What the user sent: a message or a command. `Err` gives the text back, with the reason in
    /// the transcript.
    ///
    /// # Errors
    ///
    /// The text, where nothing was done with it.
    pub fn say(&mut self, text: &str) -> Result<Vec<Effect>, String> {
        match command::read(text) {
            Ok(Input::Command(command)) => match self.command(command) {
                Ok(effects) => Ok(effects),
                Err(refusal) => {
                    self.error(&refusal.0, refusal.1);
                    Err(text.to_owned())
                }
            },
            Ok(Input::Message(message)) if message.trim().is_empty() => Ok(Vec::new()),
            Ok(Input::Message(_)) if self.is_asked() => {
                self.error("an answer is being given", "stop it first, with Esc or Ctrl-C");
                Err(text.to_owned())
            }
            Ok(Input::Message(message)) => Ok(vec![self.ask(message)]),
            Err(error) => {
                let hint = error.hint();
                self.error(&error.to_string(), &hint);
                Err(text.to_owned())
            }
        }
    }

    /// Asks something new.
    fn ask(&mut self, message: String) -> Effect {
        let turn = self.conversation.next_turn();
        self.transcript.push(turn, Entry::User(clean(&message)));
        let question = self.conversation.ask(message);
        self.begin(question)
    }

    /// Asks `message` in place of the last one; as something new where there is none.
    pub fn revise(&mut self, message: String) -> Effect {
        let shown = clean(&message);
        match self.conversation.edit(message.clone()) {
            None => self.ask(message),
            Some(question) => {
                let turn = self.conversation.next_turn();
                self.transcript.cut(turn);
                self.transcript.push(turn, Entry::User(shown));
                self.begin(question)
            }
        }
    }

    fn begin(&mut self, question: Question) -> Effect {
        self.cleaner = Cleaner::new();
        self.stats = Stats::default();
        self.since = Instant::now();
        self.transcript.scroll_to_end();
        if !matches!(self.state, State::Loading(..)) {
            self.state = State::Reading(None);
        }
        Effect::Ask(Ask::Answer(question))
    }

    /// Follows a command.
    fn command(&mut self, command: Command) -> Result<Vec<Effect>, (String, &'static str)> {
        let waits = !matches!(
            command,
            Command::Help
                | Command::Set(_)
                | Command::Raw(_)
                | Command::Stats(_)
                | Command::Copy(_)
                | Command::Quit
                | Command::System(None)
                | Command::Model(None)
                | Command::Load(None)
        );
        if waits && self.is_asked() {
            let what = format!("{} waits for the end of the answer", command.name());
            return Err((what, "stop it first, with Esc or Ctrl-C"));
        }
        let nothing = |what: &str| Err((what.to_owned(), "say something first"));
        let mut effects = Vec::new();
        match command {
            Command::Help => self.notice(&help(self.keys)),
            Command::Clear => {
                self.conversation.clear();
                self.forget();
                effects.push(Effect::Begin);
            }
            Command::System(None) => {
                let system = self.conversation.system();
                let line = match system {
                    Some(text) => format!("instructions: {text}"),
                    None => "no instructions; /system TEXT sets them".into(),
                };
                self.notice(&line);
            }
            Command::System(Some(text)) => {
                self.conversation.set_system(Some(text).filter(|text| !text.is_empty()));
                self.forget();
                self.notice("a new conversation, with these instructions");
                effects.push(Effect::Begin);
            }
            Command::Set(settings) => {
                for setting in &settings {
                    command::apply(setting, &mut self.conversation.options);
                }
                self.show_settings();
            }
            Command::Regen => match self.conversation.regenerate() {
                None => return nothing("there is no answer yet"),
                Some(question) => {
                    self.transcript.cut_answer(self.conversation.next_turn());
                    effects.push(self.begin(question));
                }
            },
            Command::Edit(text) => {
                let Some(last) = self.conversation.turns().last() else {
                    return nothing("there is no message yet");
                };
                effects.push(match text {
                    Some(text) => self.revise(text),
                    None => Effect::Revise(last.user.clone()),
                });
            }
            Command::Undo => match self.conversation.undo() {
                None => return nothing("there is nothing to take back"),
                Some(_) => {
                    self.transcript.cut(self.conversation.next_turn());
                    self.recount();
                    self.notice("the last message and its answer are taken back");
                    effects.push(Effect::Save);
                }
            },
            Command::Drop(count) => match self.conversation.drop_oldest(count) {
                0 => return nothing("there is nothing to forget"),
                dropped => {
                    self.transcript.drop_before(dropped);
                    self.recount();
                    self.notice(&match dropped {
                        1 => "the oldest message and its answer are forgotten".to_owned(),
                        more => {
                            format!("the {more} oldest messages and their answers are forgotten")
                        }
                    });
                    effects.push(Effect::Save);
                }
            },
            Command::Save(path) => effects.push(Effect::SaveAs(path)),
            Command::Load(name) => effects.push(Effect::Load(name)),
            Command::Export { path, kind } => effects.push(Effect::Export(path, kind)),
            Command::Model(None) => self.show_model(),
            Command::Model(Some(path)) => {
                self.state = State::Loading(0, 0);
                effects.push(Effect::Ask(Ask::Model(ModelArg { model: Some(path) })));
            }
            Command::Copy(what) => effects.push(Effect::Copy(self.copied(what)?)),
            Command::Raw(on) => {
                let raw = on.unwrap_or(!self.transcript.is_raw());
                self.transcript.set_raw(raw);
            }
            Command::Stats(on) => effects.push(Effect::ShowNumbers(on)),
            Command::Quit => effects.push(Effect::Quit),
        }
        Ok(effects)
    }

    /// The text that `/copy` means.
    fn copied(&self, what: Copied) -> Result<String, (String, &'static str)> {
        let last = self.conversation.turns().last();
        let Some(last) = last else {
            return Err(("there is no answer yet".into(), "say something first"));
        };
        match what {
            Copied::Last => Ok(last.answer.clone()),
            Copied::All => {
                let turns = self.conversation.turns().iter();
                Ok(turns.map(|turn| format!("> {}\n\n{}\n\n", turn.user, turn.answer)).collect())
            }
            Copied::Code(number) => {
                let blocks = code::blocks(&last.answer);
                let count = blocks.len();
                blocks.into_iter().nth(number - 1).ok_or_else(|| {
                    let what = format!("the last answer has {count} blocks of code");
                    (what, "/copy copies all of it")
                })
            }
        }
    }

    /// What the engine tells.
    pub fn hear(&mut self, news: News) -> Vec<Effect> {
        match news {
            News::Loading { done, total } => {
                self.state = State::Loading(done, total);
                Vec::new()
            }
            News::Note(line) => {
                self.notice(&line);
                Vec::new()
            }
            News::Ready(ready) => {
                self.arrive(ready);
                Vec::new()
            }
            News::Begun { prompt, sampling } => {
                let tokens = prompt.len();
                self.conversation.begun(prompt, sampling);
                if self.state != State::Stopping {
                    self.state = State::Reading(Some((0, tokens)));
                }
                Vec::new()
            }
            News::Heard(event) => self.event(&event),
            News::Refused(refusal) => self.refused(&refusal),
            News::NoModel { refusal, reloads } => {
                self.state = match (reloads, self.conversation.is_open()) {
                    (true, _) => State::Loading(0, 0),
                    (false, true) => State::Reading(None),
                    (false, false) => State::Idle,
                };
                self.error(&refusal.what, refusal.hint);
                Vec::new()
            }
            News::Hashed { package, hash } => self.hashed(&package, &hash),
            News::Ended => {
                self.state = State::Idle;
                vec![Effect::Quit]
            }
        }
    }

    fn arrive(&mut self, ready: Ready) {
        let asked = self.conversation.is_open();
        self.state = if asked { State::Reading(None) } else { State::Idle };
        self.context_used = 0;
        let system = self.conversation.system().map(str::to_owned);
        self.conversation.set_up(Setup::new(
            (&ready.package, &ready.source),
            ready.place.device.clone(),
            ready.context,
            &self.device,
            system.as_deref(),
        ));
        let other = self.answered_by_another(&ready);
        self.device_line = ready.place.device.line();
        self.why_line = ready.place.why.to_string();
        let notice = engine::form_notice(&ready.package, ready.form);
        self.ready = Some(ready);
        if !self.device.quiet {
            self.show_model();
            for line in notice.into_iter().chain(other) {
                self.notice(&line);
            }
        }
    }

    /// What to say where the conversation was had with another model so far.
    fn answered_by_another(&self, ready: &Ready) -> Option<String> {
        let record = self.conversation.record();
        let before = &record.setups().get(record.turns().last()?.setup)?.model;
        let name = ready.package.checkpoint.name();
        let is_same =
            before.name == name && before.place == super::record::Place::of(&ready.source);
        (!is_same)
            .then(|| format!("this conversation was had with {}; {name} goes on", before.name))
    }

    /// What the session tells of an answer.
    fn event(&mut self, event: &Event) -> Vec<Effect> {
        self.stats.hear(event);
        let turn = self.conversation.next_turn();
        let mut text = String::new();
        match event {
            Event::Prefill { done, total, .. } => {
                self.context_used = *done;
                if self.state != State::Stopping {
                    self.state = State::Reading(Some((*done, *total)));
                }
            }
            Event::Token { text: piece, position, .. } => {
                self.since = Instant::now();
                // The last one that fits is said, but no longer kept.
                let limit = self.ready.as_ref().map_or(usize::MAX, |ready| ready.context);
                self.context_used = (position + 1).min(limit);
                if self.state != State::Stopping {
                    self.state = State::Answering;
                }
                self.cleaner.push(piece, &mut text);
            }
            Event::Finished(finished) => {
                self.state = State::Idle;
                self.cleaner.push(&finished.text, &mut text);
                self.cleaner.finish(&mut text);
            }
            _ => {}
        }
        if !text.is_empty() {
            self.transcript.append(turn, &text);
        }
        if matches!(event, Event::Finished(_)) {
            self.transcript.close();
        }
        match self.conversation.hear(event, &self.stats) {
            Heard::Nothing => Vec::new(),
            Heard::Answered => {
                if !self.device.quiet {
                    let numbers = format!("[{}]", summary(&self.stats));
                    self.transcript.push(turn, Entry::Numbers(numbers));
                }
                if let Event::Finished(finished) = event
                    && finished.reason == StopReason::ContextFull
                {
                    let what = format!("the context of {} tokens is full", self.context_used);
                    self.error(&what, "/drop forgets the oldest turn, /clear all of them; --ctx N is a larger context");
                }
                vec![Effect::Save]
            }
            Heard::Unanswered(message) => {
                let effects = self.give_back(turn, message);
                self.notice("stopped before the first word");
                effects
            }
        }
    }

    /// Notes what the model's content is, unless another one answers by now.
    fn hashed(&mut self, package: &Arc<Package>, hash: &str) -> Vec<Effect> {
        let is_it = |ready: &Ready| Arc::ptr_eq(&ready.package, package);
        if !self.ready.as_ref().is_some_and(is_it) {
            return Vec::new();
        }
        self.conversation.set_content_hash(hash);
        vec![Effect::Save]
    }

    /// What was asked for cannot be had.
    fn refused(&mut self, refusal: &Refusal) -> Vec<Effect> {
        self.state = State::Idle;
        let turn = self.conversation.next_turn();
        let message = self.conversation.refused();
        let effects = message.map_or_else(Vec::new, |message| self.give_back(turn, message));
        self.error(&refusal.what, refusal.hint);
        if refusal.is_too_long {
            self.notice("/drop forgets the oldest turn, /clear starts a new conversation");
        }
        effects
    }

    /// Removes the question of turn `turn`, which has no answer, from the screen; the turn that it
    /// should have replaced is there again. What becomes of its `message` is up to the editor.
    fn give_back(&mut self, turn: usize, message: String) -> Vec<Effect> {
        self.transcript.close();
        self.transcript.cut(turn);
        self.recount();
        let Some(before) = self.conversation.turns().get(turn) else {
            return vec![Effect::GiveBack(message)];
        };
        self.transcript.push(turn, Entry::User(clean(&before.user)));
        self.transcript.push(turn, Entry::Answer(clean(&before.answer)));
        // Asked for another answer to the same: there is nothing to give back.
        if before.user == message { Vec::new() } else { vec![Effect::Revise(message)] }
    }

    /// Positions that the conversation takes, from what is recorded of it.
    fn recount(&mut self) {
        let last = self.conversation.turns().last();
        self.context_used = last.map_or(0, |turn| turn.prompt.tokens() + turn.tokens.len());
    }

    /// Asks for a stop of what is being done. `None` when there is nothing to stop.
    pub fn stop(&mut self) -> Option<Effect> {
        if self.is_busy() {
            self.state = State::Stopping;
        }
        // One that waits for a model will be stopped as soon as it begins.
        self.is_asked().then_some(Effect::Stop)
    }

    /// Goes on with a conversation that was had before.
    pub fn resume(&mut self, record: Record) {
        self.conversation.resume(record);
        self.forget();
        for (turn, said) in self.conversation.turns().iter().enumerate() {
            self.transcript.push(turn, Entry::User(clean(&said.user)));
            self.transcript.push(turn, Entry::Answer(clean(&said.answer)));
        }
    }

    /// Empties the screen.
    fn forget(&mut self) {
        self.transcript.clear();
        self.context_used = 0;
    }

    /// Says something about the program.
    pub fn notice(&mut self, text: &str) {
        let turn = self.conversation.next_turn();
        self.transcript.push(turn, Entry::Notice(clean(text)));
    }

    /// Says what went wrong, and what to do.
    pub fn error(&mut self, what: &str, hint: &str) {
        let turn = self.conversation.next_turn();
        self.transcript.push(turn, Entry::Error { what: clean(what), hint: clean(hint) });
    }

    fn show_model(&mut self) {
        let line = match &self.ready {
            None => "no model yet".to_owned(),
            Some(Ready { package, context, place, .. }) => {
                let name = package.checkpoint.name();
                let (device, why) = (&self.device_line, &place.why);
                format!("{name}; {device} ({why}); context {context} tokens")
            }
        };
        self.notice(&line);
    }

    fn show_settings(&mut self) {
        let options = &self.conversation.options;
        let Some(ready) = &self.ready else {
            return self.notice("the model is on its way: what it prefers is not known yet");
        };
        let sampling = engine::sampling(&ready.package, options);
        let lines: Vec<_> = command::shown(options, &sampling)
            .map(|(name, value)| format!("{name:<20} {value}"))
            .collect();
        self.notice(&lines.join("\n"));
    }
}

/// The commands and keys.
fn help(keys: &str) -> String {
    let mut text = String::from("Commands:\n");
    for (usage, what) in command::help() {
        let _ = writeln!(text, "  {usage:<26} {what}"); // a string takes everything
    }
    text.push_str("/set takes:\n");
    for (usage, what) in command::help_of_settings() {
        let _ = writeln!(text, "  {usage:<26} {what}");
    }
    text.push_str(keys);
    text
}
