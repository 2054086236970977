//! The chat line by line: for terminals that can do no more, and for those who want no more.

use core::time::Duration;
use std::io::{BufRead, Stdout, Write, stdin, stdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use tercet_host::measure::sampler::{INTERVAL, Probe, Sampler};

use super::outside::{Begun, Outside};
use super::panel;
use super::state::{Chat, Effect, State};
use super::transcript::Entry;
use super::worker::News;
use crate::args::ChatArgs;
use crate::clean::CleanWriter;
use crate::engine::Progress;
use crate::failure::{Failure, say};
use crate::signals::Signals;

/// How often a load looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of a line that a terminal hands over; it drops the rest (Linux, `N_TTY_BUF_SIZE` less its
/// end).
const LINE_BYTES_MAX: usize = 4095;

/// What keys do here.
const KEYS: &str = "\
Keys:
  Enter                      send; after a \\ at the end: a new line
  Ctrl-C                     stop the answer; when there is none, leave
  Ctrl-D                     leave";

/// Chats line by line.
///
/// # Errors
///
/// [`Failure`] of the model, the device or the terminal; what goes wrong with one message is said,
/// and the chat goes on.
pub fn converse(args: &ChatArgs, signals: &Signals) -> Result<(), Failure> {
    let (sender, news) = channel();
    let Begun { mut chat, outside, .. } = Outside::begin(args, signals.cancel.clone(), sender)?;
    chat.keys = KEYS;
    let sampler = Sampler::start(INTERVAL).map_err(Failure::io)?;
    let mut plain = Plain {
        chat,
        outside,
        news,
        probe: sampler.probe(),
        progress: Progress::new("loading", args.device.quiet),
        out: CleanWriter::new(stdout()),
        printed: (0, 0),
    };
    let talked = plain.talk(args.device.quiet, signals);
    let Plain { mut chat, outside, .. } = plain;
    let ended = outside.end(&mut chat);
    talked.and(ended)
}

struct Plain {
    chat: Chat,
    outside: Outside<News>,
    news: Receiver<News>,
    probe: Probe,
    progress: Progress,
    out: CleanWriter<Stdout>,
    /// Number of the first entry of the transcript that is not printed as a whole, and how many
    /// bytes of it are.
    printed: (u64, usize),
}

impl Plain {
    /// Reads and answers until the user leaves.
    fn talk(&mut self, quiet: bool, signals: &Signals) -> Result<(), Failure> {
        // Until there is something to stop, Ctrl-C ends the program.
        if !self.wait(signals)? {
            return Ok(());
        }
        if !quiet {
            self.chat.notice("Type a message, /help for commands.");
        }
        self.print(true)?;
        while let Some(line) = read_message()? {
            if line.trim().is_empty() {
                continue;
            }
            // What is refused is lost: the reason is said, and the terminal's own editor has no way
            // to give the text back.
            let effects = self.chat.say(line.trim_end()).unwrap_or_default();
            let shows_users = effects.iter().any(|effect| matches!(effect, Effect::Load(Some(_))));
            let goes_on = signals
                .during(|| if self.perform(effects) { self.wait(signals) } else { Ok(false) })?;
            if !goes_on {
                break;
            }
            self.print(shows_users)?;
        }
        // A hash may have come while nobody listened.
        for news in self.news.try_iter() {
            for effect in self.chat.hear(news) {
                self.outside.perform(effect, &mut self.chat);
            }
        }
        Ok(())
    }

    /// Hears what the engine tells until it has nothing to do. `false` when it is gone.
    fn wait(&mut self, signals: &Signals) -> Result<bool, Failure> {
        let mut is_ready = false;
        while self.chat.state != State::Idle {
            let news = match self.news.recv_timeout(LOOK) {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout) if self.leaves(signals) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => continue,
                // It cannot: this side holds a sender, too.
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            };
            match &news {
                News::Loading { done, total } => self.progress.show(*done, *total),
                News::Ready(ready) => {
                    is_ready = true;
                    let place = &ready.place;
                    self.probe.session(place.held, ready.context, place.meter.clone());
                    self.progress.done();
                }
                _ => {}
            }
            let effects = self.chat.hear(news);
            self.outside.watch(&self.chat);
            if core::mem::take(&mut is_ready) {
                self.outside.hash(&self.chat);
            }
            if !self.perform(effects) {
                return Ok(false);
            }
            self.print(false)?;
        }
        Ok(true)
    }

    /// Whether Ctrl-C came while a model is loaded, which cannot be stopped.
    fn leaves(&self, signals: &Signals) -> bool {
        matches!(self.chat.state, State::Loading(..)) && signals.cancel.requested()
    }

    /// Does what the chat asks for. `false` when it asks for the end.
    fn perform(&mut self, effects: Vec<Effect>) -> bool {
        for effect in effects {
            match self.outside.perform(effect, &mut self.chat) {
                None | Some(Effect::GiveBack(_)) => {}
                Some(Effect::Quit) => return false,
                Some(Effect::Copy(_)) => self.chat.error(
                    "line by line there is no way to the clipboard",
                    "select the text with the terminal, or write it to a file with /export",
                ),
                Some(Effect::Revise(_)) => self.chat.error(
                    "line by line a message cannot be brought back for changes",
                    "/edit TEXT asks TEXT in place of the last message",
                ),
                Some(_) => {
                    self.probe.reached(self.chat.context_used);
                    let view = self.chat.view(self.probe.latest(), true, Instant::now());
                    let lines = panel::lines(&view).join("\n");
                    self.chat.notice(&lines);
                }
            }
        }
        true
    }

    /// Prints what is new in the transcript; `users` too where the user has not just typed it.
    fn print(&mut self, users: bool) -> Result<(), Failure> {
        let (first, bytes) = self.printed;
        let mut next = (first, bytes);
        let mut text = String::new();
        let mut entries = self.chat.transcript.since(first).peekable();
        while let Some((number, entry)) = entries.next() {
            let before = if number == first { bytes } else { 0 };
            next = (number + 1, 0);
            match entry {
                Entry::User(said) if users => text += &format!("> {said}\n"),
                Entry::User(_) => {}
                Entry::Answer(said) => {
                    text += said.get(before..).unwrap_or_default();
                    if self.chat.is_busy() && entries.peek().is_none() {
                        next = (number, said.len());
                    } else {
                        text.push('\n');
                    }
                }
                Entry::Numbers(said) | Entry::Notice(said) => text += &format!("{said}\n"),
                Entry::Error { what, hint } => {
                    text += &format!("error: {what}\n  hint: {hint}\n");
                }
            }
        }
        self.printed = next;
        self.out.write_text(&text).map_err(Failure::io)
    }
}

/// A message from the terminal, several lines where each but the last ends in `\`; `None` at the
/// end of input.
fn read_message() -> Result<Option<String>, Failure> {
    let mut message = String::new();
    let mut mark = "> ";
    loop {
        let mut out = stdout();
        out.write_all(mark.as_bytes()).and_then(|()| out.flush()).map_err(Failure::io)?;
        let mut bytes = Vec::new();
        if stdin().lock().read_until(b'\n', &mut bytes).map_err(Failure::io)? == 0 {
            say(format_args!(""))?;
            return Ok((!message.is_empty()).then_some(message));
        }
        let line = match core::str::from_utf8(&bytes) {
            Ok(line) if bytes.len() < LINE_BYTES_MAX => line.trim_end_matches(['\n', '\r']),
            refused => {
                let what = if refused.is_err() { "is no UTF-8" } else { "may have been cut" };
                say(format_args!(
                    "error: the line {what}, and nothing was sent\n  hint: terminals hand over \
                     {LINE_BYTES_MAX} bytes of a line: end lines with \\, or use `tercet run`"
                ))?;
                (message, mark) = (String::new(), "> ");
                continue;
            }
        };
        match line.strip_suffix('\\') {
            Some(line) => {
                message.push_str(line);
                message.push('\n');
                mark = ". ";
            }
            None => {
                message.push_str(line);
                return Ok(Some(message));
            }
        }
    }
}
