//! The chat, line by line.

use std::io::{BufRead, Write, stdin, stdout};

use tercet_host::backend::Ops;
use tercet_host::package::Package;
use tercet_host::session::{PromptError, Session};
use tercet_host::text::Message;

use crate::answer::{Piece, encode, generate, message, summary};
use crate::args::ChatArgs;
use crate::clean::{CleanWriter, OneLine};
use crate::engine::{self, Use, with_session};
use crate::failure::{Failure, say};
use crate::signals::Signals;

const HELP: &str = "\
/help          this list
/clear         forget the conversation
/system [TEXT] show the instructions, or set them (and forget the conversation)
/quit          leave (so do Ctrl-D, and Ctrl-C when nothing is being answered)
A message may span lines: end a line with \\ to go on.";

/// Chats line by line.
///
/// # Errors
///
/// [`Failure`] of the model, the device or the terminal; what goes wrong with one message is said,
/// and the chat goes on.
pub fn converse(args: &ChatArgs, signals: &Signals) -> Result<(), Failure> {
    let package = engine::open(&args.model)?;
    let context = engine::context(&package, args.device.ctx)?;
    with_session(&package, &args.device, context, Use::Answer, |session| {
        if !args.device.quiet {
            say(format_args!("{}; context {context} tokens.", OneLine(package.checkpoint.name())))?;
            say(format_args!("Type a message, /help for commands."))?;
            if package.chat.is_none() {
                say(format_args!(
                    "The model has no chat template: it continues each message as text."
                ))?;
            }
        }
        let mut chat = Chat { args, package: &package, signals, messages: Vec::new() };
        chat.reset(args.system.as_deref());
        while let Some(line) = read_message()? {
            match line.trim() {
                "" => {}
                "/quit" | "/exit" | "/bye" => break,
                "/help" | "/?" => say(format_args!("{HELP}"))?,
                "/clear" => {
                    let system = chat.system().map(str::to_owned);
                    chat.reset(system.as_deref());
                    session.clear();
                }
                "/system" => match chat.system() {
                    Some(text) => say(format_args!("instructions: {}", OneLine(text)))?,
                    None => say(format_args!("no instructions; /system TEXT sets them"))?,
                },
                command if command.starts_with('/') => match command.split_once(' ') {
                    Some(("/system", text)) => chat.reset(Some(text.trim())),
                    _ => say(format_args!(
                        "no such command: {} (/help lists them)",
                        OneLine(command)
                    ))?,
                },
                _ => chat.turn(session, &line)?,
            }
        }
        Ok(())
    })
}

/// The conversation.
struct Chat<'a> {
    args: &'a ChatArgs,
    package: &'a Package,
    signals: &'a Signals,
    messages: Vec<Message>,
}

impl Chat<'_> {
    fn reset(&mut self, system: Option<&str>) {
        self.messages.clear();
        self.messages.extend(system.map(|text| message("system", text)));
    }

    fn system(&self) -> Option<&str> {
        let first = self.messages.first().filter(|message| message.role == "system");
        first.map(|message| message.content.as_str())
    }

    /// One message and its answer. What goes wrong with them is said; the chat goes on.
    fn turn<O: Ops>(&mut self, session: &mut Session<O>, text: &str) -> Result<(), Failure> {
        self.messages.push(message("user", text));
        match self.answer(session) {
            Ok(answer) => self.messages.push(message("assistant", answer)),
            Err(error @ Failure::Io(_)) => return Err(error),
            Err(error) => {
                self.messages.pop();
                let (what, hint) = error.message();
                say(format_args!("error: {}\n  hint: {hint}", OneLine(&what)))?;
                if is_too_long(&error) {
                    say(format_args!("  /clear starts a new conversation"))?;
                }
            }
        }
        Ok(())
    }

    fn answer<O: Ops>(&self, session: &mut Session<O>) -> Result<String, Failure> {
        let prompt = encode(self.package, &self.messages)?;
        let seed = engine::seed(&self.args.sampling);
        let mut answer = String::new();
        let mut clean = CleanWriter::new(stdout());
        let mut show = |piece: Piece<'_>| {
            answer.push_str(piece.text);
            clean.write_text(piece.text).map_err(Failure::io)
        };
        let sampling = &self.args.sampling;
        let cancel = &self.signals.cancel;
        let stats = self.signals.during(|| {
            generate(session, self.package, sampling, (&prompt, seed), cancel, &mut show)
        })?;
        clean.finish().map_err(Failure::io)?;
        say(format_args!(""))?;
        if !self.args.device.quiet {
            say(format_args!("[{}]", summary(&stats)))?;
        }
        Ok(answer)
    }
}

fn is_too_long(failure: &Failure) -> bool {
    use tercet_host::error::Error;
    matches!(failure, Failure::Host(Error::Prompt(PromptError::TooLong { .. })))
}

/// A message from the terminal, several lines where each but the last ends in `\`; `None` at the
/// end of input.
fn read_message() -> Result<Option<String>, Failure> {
    let mut message = String::new();
    let mut mark = "> ";
    loop {
        let mut out = stdout();
        out.write_all(mark.as_bytes()).and_then(|()| out.flush()).map_err(Failure::io)?;
        let mut line = String::new();
        if stdin().lock().read_line(&mut line).map_err(Failure::io)? == 0 {
            say(format_args!(""))?;
            return Ok((!message.is_empty()).then_some(message));
        }
        let line = line.trim_end_matches(['\n', '\r']);
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
