//! `tercet replay`: a saved session once more, turn by turn: the same bytes, or where they differ.
//!
//! Model, form, context, number types, sampling and seeds are the recorded ones; so are the
//! prompts, token by token. That the messages still become these prompts is checked beside it.

use core::fmt;
use core::ops::ControlFlow;
use std::env;
use std::io::{Stdout, stdout};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tercet_host::backend::{Ops, TokenId};
use tercet_host::content_hash::content_hash;
use tercet_host::error::Error;
use tercet_host::event::{Event, StopReason};
use tercet_host::forward::Cancel;
use tercet_host::package::{Package, Source};
use tercet_host::session::{Request, Session};
use tercet_host::text::BuiltinForm;

use crate::answer::encode;
use crate::args::{Device, DeviceArgs, ReplayArgs};
use crate::chat::private::state_folder;
use crate::chat::record::{DeviceKind, Form, Record, Setup, Turn, source_of};
use crate::chat::store::Store;
use crate::clean::{CleanWriter, Json, OneLine};
use crate::engine::{OnStderr, Place, Progress, Use, with_watched_session};
use crate::failure::{Failure, note, say};
use crate::signals::Signals;

/// Runs the command.
///
/// # Errors
///
/// [`Failure::Data`] when something differs, or when model or template are others and this is not
/// `--force`d; [`Failure`] of any stage.
pub fn replay(args: &ReplayArgs, signals: &Signals) -> Result<(), Failure> {
    let path = find(&args.session)?;
    let record = Record::read(&path)?;
    if record.turns().is_empty() {
        return Err(Failure::NoInput {
            what: "the session has no turns",
            hint: "give a session in which something was answered",
        });
    }
    let mut replay = Replay {
        args,
        record: &record,
        cancel: &signals.cancel,
        notes: Vec::new(),
        outcomes: Vec::new(),
    };
    let mut prompts = record.prompts().enumerate();
    // Turns in a row that one setup answered share a session, as they did.
    for turns in record.turns().chunk_by(|a, b| a.setup == b.setup) {
        replay.run(&mut prompts.by_ref().take(turns.len()), turns[0].setup)?;
    }
    if args.json {
        let report = format!("{:#}", replay.report(&path));
        say(format_args!("{}", Json(&report)))?;
    }
    replay.verdict()
}

/// The session file that the user means: a file, or a session of the store by its name.
fn find(session: &Path) -> Result<PathBuf, Failure> {
    if session.is_file() {
        return Ok(session.to_owned());
    }
    match (session.to_str(), state_folder(|name| env::var_os(name))) {
        (Some(name), Some(state)) if state.is_dir() => Store::open(&state)?.find(name),
        _ => Ok(session.to_owned()),
    }
}

/// The first thing in a turn that is not as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// A token of the answer, counted from 0; `None` where the answer is shorter.
    Token { index: usize, got: Option<TokenId>, recorded: Option<TokenId> },
    /// The same tokens, another text: from this byte on.
    Text { index: usize },
    /// The same answer, ended by something else.
    StopReason { got: StopReason, recorded: StopReason },
    /// The messages become another prompt: from this token on.
    Prompt { index: usize },
}

impl Difference {
    fn kind(self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Text { .. } => "text",
            Self::StopReason { .. } => "stop_reason",
            Self::Prompt { .. } => "prompt",
        }
    }

    fn index(self) -> Option<usize> {
        match self {
            Self::Token { index, .. } | Self::Text { index } | Self::Prompt { index } => {
                Some(index)
            }
            Self::StopReason { .. } => None,
        }
    }
}

/// The rest of a sentence that begins with a turn.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.index().map_or(0, |index| index + 1);
        match self {
            Self::Token { got: Some(got), recorded: Some(recorded), .. } => {
                write!(f, "differs at token {number} of the answer: {got} instead of {recorded}")
            }
            Self::Token { got: None, .. } => {
                write!(f, "ends before token {number} of the recorded answer")
            }
            Self::Token { .. } => write!(f, "goes on with token {number}, where the record ends"),
            Self::Text { .. } => {
                write!(f, "has the recorded tokens, but another text from byte {number} on")
            }
            Self::StopReason { got, recorded } => {
                write!(f, "was ended by {} instead of {}", got.name(), recorded.name())
            }
            Self::Prompt { .. } => {
                write!(f, "has messages that no longer become its prompt, from token {number} on")
            }
        }
    }
}

/// A replay, as far as it has come.
struct Replay<'a> {
    args: &'a ReplayArgs,
    record: &'a Record,
    cancel: &'a Cancel,
    /// What is not as recorded and may explain a difference.
    notes: Vec<String>,
    outcomes: Vec<Outcome>,
}

impl Replay<'_> {
    fn note(&mut self, line: String) {
        if self.notes.contains(&line) {
            return;
        }
        if !self.args.quiet {
            note(format_args!("tercet: note: {}", OneLine(&line)));
        }
        self.notes.push(line);
    }

    /// Replays turns, numbers from 0 and prompts, that one setup answered.
    fn run(
        &mut self,
        turns: &mut (dyn Iterator<Item = (usize, Vec<TokenId>)> + Send),
        setup: usize,
    ) -> Result<(), Failure> {
        let setup = &self.record.setups()[setup];
        let source = match &self.args.model {
            Some(path) => Source::Path(path.clone()),
            None => source_of(&setup.model.place),
        };
        let mut package = Package::open(&source)?;
        match &setup.form {
            Form::Template(_) => {}
            Form::Completion => package.use_form(None)?,
            Form::BuiltIn { name, .. } => {
                let form = BuiltinForm::ALL.into_iter().find(|form| form.name() == name);
                package.use_form(form)?;
            }
        }
        let forced = self.check(&package, setup)?;
        if setup.program != env!("CARGO_PKG_VERSION") {
            self.note(format!("tercet {} answered, this is another version", setup.program));
        }
        let device = device_args(self.args, setup);
        let watch = OnStderr::new(self.args.quiet);
        let purpose = (setup.context, Use::Answer);
        with_watched_session(&package, &device, purpose, &watch, |session, place| {
            self.compare_devices(setup, &place);
            for (number, prompt) in turns {
                self.turn(session, &package, (number, &prompt), forced)?;
            }
            Ok(())
        })
    }

    /// Holds the model against the record; returns whether it is another and that is wanted.
    fn check(&mut self, package: &Package, setup: &Setup) -> Result<bool, Failure> {
        let mut others = Vec::new();
        if let Some(recorded) = &setup.model.content_hash {
            let progress = Progress::new("hashing", self.args.quiet);
            let hash = content_hash(&package.checkpoint, &mut |done, total| {
                progress.show(done, total);
                if self.cancel.requested() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .map_err(Error::from)?
            .ok_or(Failure::Interrupted)?;
            progress.done();
            if hash != *recorded {
                others.push(format!("the model is another: {hash} instead of {recorded}"));
            }
        } else {
            self.note("the session does not say which content its model had".into());
        }
        let form = Form::of(package);
        if form != setup.form {
            others.push(format!("the chat form is another: {form} instead of {}", setup.form));
        }
        let max = package.config.positions_max;
        if setup.context > max {
            return Err(Failure::Data {
                what: format!("the session had {} positions, the model {max}", setup.context),
                hint: "give the model that answered then",
            });
        }
        match others.first() {
            None => Ok(false),
            Some(_) if self.args.force => {
                others.into_iter().for_each(|other| self.note(other));
                Ok(true)
            }
            Some(other) => Err(Failure::Data {
                what: other.clone(),
                hint: "give the model that answered then, or --force to replay with this one",
            }),
        }
    }

    fn compare_devices(&mut self, setup: &Setup, place: &Place) {
        let (then, now) = (&setup.device, &place.device);
        let is_other_gpu = now.kind == DeviceKind::Cuda && then.name != now.name;
        if then.kind != now.kind || is_other_gpu {
            self.note(format!("{} answered, this is {}: floats may differ", then.name, now.name));
        }
    }

    /// Replays one turn.
    fn turn<O: Ops>(
        &mut self,
        session: &mut Session<O>,
        package: &Package,
        (number, recorded): (usize, &[TokenId]),
        forced: bool,
    ) -> Result<(), Failure> {
        let turn = &self.record.turns()[number];
        let (prompt, told) = self.prompt(package, (number, recorded), forced)?;
        let mut shown = Shown::new(self.args.json);
        shown.question(&turn.user)?;
        let again = again(session, package, turn, &prompt, self.cancel, &mut shown)?;
        shown.end()?;
        if again.stop_reason == StopReason::Cancelled {
            return Err(Failure::Interrupted);
        }
        let told = told.map(|index| Difference::Prompt { index });
        let difference = compare(turn, &again).or(told);
        if let (Some(difference), false) = (difference, self.args.quiet) {
            note(format_args!("tercet: turn {} {difference}", number + 1));
        }
        self.outcomes.push(Outcome { again, prompt_tokens: prompt.len(), difference });
        Ok(())
    }

    /// The prompt of a turn, and where it differs from the recorded one, or where its messages
    /// become another.
    fn prompt(
        &mut self,
        package: &Package,
        (number, recorded): (usize, &[TokenId]),
        forced: bool,
    ) -> Result<(Vec<TokenId>, Option<usize>), Failure> {
        let dropped = self.record.turns()[number].prompt.dropped() > 0;
        if dropped {
            self.note("turns were dropped: prompts that held them are taken as recorded".into());
            if !forced {
                return Ok((recorded.to_vec(), None));
            }
        }
        let encoded = encode(package, &self.record.messages(number));
        if forced {
            // Another model has tokens and a form of its own.
            let prompt = encoded?;
            let difference = first_difference(&prompt, recorded);
            return Ok((prompt, difference));
        }
        let difference = match encoded {
            Ok(prompt) => first_difference(&prompt, recorded),
            Err(failure) => {
                self.note(format!("turn {}: {}", number + 1, failure.message().0));
                Some(0)
            }
        };
        let template = package.chat.as_ref().map_or("", |chat| chat.template().source());
        if difference.is_some() && template.contains("strftime_now") {
            self.note("the chat template tells the date: the recorded prompts are used".into());
            return Ok((recorded.to_vec(), None));
        }
        Ok((recorded.to_vec(), difference))
    }

    fn report(&self, session: &Path) -> Value {
        let turn = |(number, outcome): (usize, &Outcome)| {
            let Outcome { again, prompt_tokens, difference } = outcome;
            json!({
                "turn": number + 1,
                "same": difference.is_none(),
                "difference": difference.map(|difference| json!({
                    "kind": difference.kind(),
                    "index": difference.index(),
                    "what": difference.to_string(),
                })),
                "text": again.answer,
                "tokens": again.tokens,
                "stop_reason": again.stop_reason.name(),
                "n_prompt": prompt_tokens,
            })
        };
        json!({
            "session": session.display().to_string(),
            "same": self.outcomes.iter().all(|outcome| outcome.difference.is_none()),
            "notes": self.notes,
            "turns": self.outcomes.iter().enumerate().map(turn).collect::<Vec<_>>(),
        })
    }

    /// Whether everything was the same; otherwise the first difference.
    fn verdict(&self) -> Result<(), Failure> {
        let first =
            self.outcomes.iter().zip(1..).find_map(|(outcome, number)| {
                Some(format!("turn {number} {}", outcome.difference?))
            });
        let Some(what) = first else {
            let tokens: usize = self.outcomes.iter().map(|o| o.again.tokens.len()).sum();
            if !self.args.quiet {
                let turns = self.outcomes.len();
                note(format_args!("tercet: {turns} turns, {tokens} tokens: all as recorded"));
            }
            return Ok(());
        };
        let hint = if self.notes.is_empty() {
            "the record was changed, or something computes wrongly: `tercet inspect --check` looks \
             at the model, `tercet doctor` at the devices"
        } else {
            "not everything is as it was then: see the notes"
        };
        Err(Failure::Data { what, hint })
    }
}

/// What came of a turn.
#[derive(Debug)]
struct Outcome {
    again: Again,
    prompt_tokens: usize,
    difference: Option<Difference>,
}

/// An answer that was given again.
#[derive(Debug)]
struct Again {
    answer: String,
    tokens: Vec<TokenId>,
    stop_reason: StopReason,
}

/// Answers `prompt` as `turn` was answered.
fn again<O: Ops>(
    session: &mut Session<O>,
    package: &Package,
    turn: &Turn,
    prompt: &[TokenId],
    cancel: &Cancel,
    shown: &mut Shown,
) -> Result<Again, Failure> {
    let request = Request {
        prompt,
        max_tokens: match turn.stop_reason {
            // What stopped it was no number; so many tokens it was.
            StopReason::Cancelled => turn.tokens.len(),
            _ => turn.max_tokens.unwrap_or(usize::MAX),
        },
        sampling: turn.sampling,
        seed: turn.seed,
        stop_tokens: &package.stop_tokens,
        stop_texts: &turn.stop_texts,
    };
    let (mut answer, mut tokens) = (String::new(), Vec::new());
    let mut failed = None;
    let mut sink = |event: Event| {
        let text = match &event {
            Event::Token { token, text, .. } => {
                tokens.push(*token);
                text
            }
            Event::Finished(finished) => &finished.text,
            _ => return ControlFlow::Continue(()),
        };
        answer.push_str(text);
        match shown.text(text) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let finished = session.generate(&request, package.tokenizer.as_ref(), cancel, &mut sink);
    if let Some(failure) = failed {
        return Err(failure);
    }
    let stop_reason = finished.map_err(Error::from)?.reason;
    Ok(Again { answer, tokens, stop_reason })
}

/// The first difference between the recorded answer and the one given again.
fn compare(turn: &Turn, again: &Again) -> Option<Difference> {
    if let Some(index) = first_difference(&again.tokens, &turn.tokens) {
        let (got, recorded) = (again.tokens.get(index), turn.tokens.get(index));
        return Some(Difference::Token { index, got: got.copied(), recorded: recorded.copied() });
    }
    if let Some(index) = first_difference(again.answer.as_bytes(), turn.answer.as_bytes()) {
        return Some(Difference::Text { index });
    }
    let (got, recorded) = (again.stop_reason, turn.stop_reason);
    let same = got == recorded || (recorded, got) == (StopReason::Cancelled, StopReason::MaxTokens);
    (!same).then_some(Difference::StopReason { got, recorded })
}

/// Where two lists differ first; where one is longer, at the end of the other.
fn first_difference<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
    let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (shared < a.len().max(b.len())).then_some(shared)
}

/// What the computing of a replay depends on: what was recorded, and what may be chosen because
/// answers do not depend on it.
fn device_args(args: &ReplayArgs, setup: &Setup) -> DeviceArgs {
    let recorded = match setup.device.kind {
        DeviceKind::Cpu => Device::Cpu,
        // Whichever GPU there is.
        DeviceKind::Cuda => Device::Auto,
    };
    DeviceArgs {
        device: args.device.unwrap_or(recorded),
        threads: args.threads,
        ctx: u32::try_from(setup.context).ok(),
        kv: setup.kv,
        head: setup.head,
        simd: args.simd.clone(),
        deterministic: setup.deterministic,
        trust_kernels: args.trust_kernels,
        quiet: args.quiet,
    }
}

/// The conversation on stdout, or nothing.
struct Shown(Option<CleanWriter<Stdout>>);

impl Shown {
    fn new(quiet: bool) -> Self {
        Self((!quiet).then(|| CleanWriter::new(stdout())))
    }

    fn question(&self, text: &str) -> Result<(), Failure> {
        match self.0 {
            Some(_) => say(format_args!("> {}", OneLine(text))),
            None => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.0.as_mut().map(|out| out.write_text(text));
        written.unwrap_or(Ok(())).map_err(Failure::io)
    }

    fn end(mut self) -> Result<(), Failure> {
        let Some(out) = &mut self.0 else { return Ok(()) };
        out.finish().map_err(Failure::io)?;
        if out.is_at_line_start() { Ok(()) } else { say(format_args!("")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_differ_where_they_do() {
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(first_difference(&[1, 2, 3], &[1, 5, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2], &[1, 2, 3]), Some(2));
        assert_eq!(first_difference(&[1], &[]), Some(0));
        assert_eq!(first_difference::<u8>(&[], &[]), None);
    }

    #[test]
    fn differences_are_told_from_1() {
        let token = |got, recorded| Difference::Token { index: 4, got, recorded };
        let told = [
            (token(Some(7), Some(8)), "differs at token 5 of the answer: 7 instead of 8"),
            (token(None, Some(8)), "ends before token 5 of the recorded answer"),
            (token(Some(7), None), "goes on with token 5, where the record ends"),
            (Difference::Text { index: 0 }, "another text from byte 1 on"),
            (Difference::Prompt { index: 2 }, "from token 3 on"),
        ];
        for (difference, words) in told {
            assert!(difference.to_string().contains(words), "{difference}");
        }
    }
}
