//! Slash commands: one table, from which reading, help and completion come.
//!
//! A text whose first character is a slash is a command, with two exceptions. A first word with
//! another slash or a dot in it is no name of a command but a path, so `/usr/bin/env is what?` is
//! a message. And two slashes make a message that begins with one: `//help` says `/help`. Comments
//! of source code (`// so`, `/// so`) stay as they are.

mod complete;
mod nearest;
mod set;
#[cfg(test)]
mod tests;

use core::fmt;
use std::path::PathBuf;

pub use complete::{Candidate, Context, complete};
pub use set::{Setting, apply, shown};

use crate::clean::OneLine;

/// What the user wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// List the commands and keys.
    Help,
    /// Forget the conversation, keep the instructions.
    Clear,
    /// Show the instructions, set them, or remove them where the text is empty.
    System(Option<String>),
    /// Change how tokens are chosen; show it where the list is empty.
    Set(Vec<Setting>),
    /// Answer the last message anew.
    Regen,
    /// Say the last message anew: with this text, or after editing it.
    Edit(Option<String>),
    /// Take back the last message and its answer.
    Undo,
    /// Forget this many of the oldest messages and their answers.
    Drop(usize),
    /// Save the session: to this file, or under its own name.
    Save(Option<PathBuf>),
    /// Load a session, by name or path; list them where there is none.
    Load(Option<String>),
    /// Write the conversation for people or programs.
    Export {
        /// The file; the program chooses a name where there is none.
        path: Option<PathBuf>,
        /// What to write.
        kind: ExportKind,
    },
    /// Change the model; show it where there is no path.
    Model(Option<PathBuf>),
    /// Put text on the clipboard.
    Copy(Copied),
    /// Show answers as they are written; `None` changes it to the opposite.
    Raw(Option<bool>),
    /// Show or hide the numbers; `None` changes it to the opposite.
    Stats(Option<bool>),
    /// Leave.
    Quit,
}

/// What `/export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportKind {
    /// Markdown, for people.
    Markdown,
    /// JSON, for programs.
    Json,
}

/// What `/copy` copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The last answer.
    Last,
    /// The conversation.
    All,
    /// A block of code of the last answer; counted from 1, never 0.
    Code(usize),
}

/// What a text that the user sent is.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Something to say to the model.
    Message(String),
    /// Something to do.
    Command(Command),
}

/// Why a command cannot be followed. The text should stay in the editor: nothing typed is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// There is no such command.
    Unknown {
        /// The word, slash included, cut to a readable length.
        word: String,
        /// The command whose name is most like it.
        nearest: Option<&'static str>,
    },
    /// The command is there, what follows its name is not what it takes.
    Arguments {
        /// The command, slash included.
        command: &'static str,
        /// What it takes.
        usage: &'static str,
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { word, .. } => write!(f, "there is no command `{}`", OneLine(word)),
            Self::Arguments { command, what, .. } => write!(f, "{command}: {}", OneLine(what)),
        }
    }
}

impl core::error::Error for CommandError {}

impl CommandError {
    /// What to do about it, in a sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { nearest: Some(name), .. } => {
                format!("did you mean {name}? A message that begins with a slash takes two: //")
            }
            Self::Unknown { nearest: None, .. } => {
                "/help lists the commands; a message that begins with a slash takes two: //".into()
            }
            Self::Arguments { command, usage: "", .. } => {
                format!("{command} stands alone; a message that begins with a slash takes two: //")
            }
            Self::Arguments { command, usage, .. } => format!("usage: {command} {usage}"),
        }
    }
}

/// What may follow a command's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument {
    Nothing,
    Text,
    Settings,
    File,
    Session,
    Export,
    Model,
    Copied,
    Switch,
}

/// A command as the table has it.
struct Entry {
    /// With the slash.
    name: &'static str,
    aliases: &'static [&'static str],
    /// As help shows it.
    usage: &'static str,
    help: &'static str,
    argument: Argument,
    /// Reads what follows the name, without white space around it.
    read: fn(&str) -> Result<Command, String>,
}

/// The table. Order is that of help.
const TABLE: [Entry; 16] = [
    Entry {
        name: "/help",
        aliases: &["/?"],
        usage: "",
        help: "this list",
        argument: Argument::Nothing,
        read: |rest| alone(rest, Command::Help),
    },
    Entry {
        name: "/clear",
        aliases: &[],
        usage: "",
        help: "forget the conversation, keep the instructions",
        argument: Argument::Nothing,
        read: |rest| alone(rest, Command::Clear),
    },
    Entry {
        name: "/system",
        aliases: &[],
        usage: "[TEXT]",
        help: "show the instructions, or set them; \"\" removes them",
        argument: Argument::Text,
        read: |rest| {
            Ok(Command::System(given(rest).map(|text| match text {
                "\"\"" => String::new(),
                text => text.to_owned(),
            })))
        },
    },
    Entry {
        name: "/set",
        aliases: &[],
        usage: "[NAME VALUE]...",
        help: "show how tokens are chosen, or change it; default: as the model's makers do",
        argument: Argument::Settings,
        read: |rest| set::read(rest).map(Command::Set),
    },
    Entry {
        name: "/regen",
        aliases: &[],
        usage: "",
        help: "answer the last message anew",
        argument: Argument::Nothing,
        read: |rest| alone(rest, Command::Regen),
    },
    Entry {
        name: "/edit",
        aliases: &[],
        usage: "[TEXT]",
        help: "change your last message and have it answered anew",
        argument: Argument::Text,
        read: |rest| Ok(Command::Edit(given(rest).map(str::to_owned))),
    },
    Entry {
        name: "/undo",
        aliases: &[],
        usage: "",
        help: "take back your last message and its answer",
        argument: Argument::Nothing,
        read: |rest| alone(rest, Command::Undo),
    },
    Entry {
        name: "/drop",
        aliases: &[],
        usage: "[N]",
        help: "forget the oldest message and its answer, or N of them: makes room",
        argument: Argument::Nothing,
        read: |rest| match given(rest).map_or(Ok(1), str::parse) {
            Ok(count) if count > 0 => Ok(Command::Drop(count)),
            _ => Err(format!("`{}` is no number of messages", cut(rest))),
        },
    },
    Entry {
        name: "/save",
        aliases: &[],
        usage: "[FILE]",
        help: "save the session",
        argument: Argument::File,
        read: |rest| Ok(Command::Save(given(rest).map(path))),
    },
    Entry {
        name: "/load",
        aliases: &[],
        usage: "[NAME or FILE]",
        help: "go on with a saved session, or list them",
        argument: Argument::Session,
        read: |rest| Ok(Command::Load(given(rest).map(|name| unquoted(name).to_owned()))),
    },
    Entry {
        name: "/export",
        aliases: &[],
        usage: "[md or json] [FILE]",
        help: "write the conversation as Markdown or JSON",
        argument: Argument::Export,
        read: |rest| Ok(export(rest)),
    },
    Entry {
        name: "/model",
        aliases: &[],
        usage: "[FOLDER or FILE]",
        help: "show the model, or go on with another",
        argument: Argument::Model,
        read: |rest| Ok(Command::Model(given(rest).map(path))),
    },
    Entry {
        name: "/copy",
        aliases: &[],
        usage: "[all or code N]",
        help: "copy the last answer, the conversation, or a block of code",
        argument: Argument::Copied,
        read: |rest| copied(rest).map(Command::Copy),
    },
    Entry {
        name: "/raw",
        aliases: &[],
        usage: "[on or off]",
        help: "show answers as they are written, without Markdown",
        argument: Argument::Switch,
        read: |rest| switch(rest).map(Command::Raw),
    },
    Entry {
        name: "/stats",
        aliases: &[],
        usage: "[on or off]",
        help: "show or hide the numbers",
        argument: Argument::Switch,
        read: |rest| switch(rest).map(Command::Stats),
    },
    Entry {
        name: "/quit",
        aliases: &["/exit", "/bye"],
        usage: "",
        help: "leave",
        argument: Argument::Nothing,
        read: |rest| alone(rest, Command::Quit),
    },
];

/// Reads what the user sent: a command where the first character is a slash, with the exceptions
/// of this module.
///
/// # Errors
///
/// [`CommandError`] for a command that cannot be followed.
pub fn read(text: &str) -> Result<Input, CommandError> {
    let Some(rest) = text.strip_prefix('/') else { return Ok(Input::Message(text.to_owned())) };
    if let Some(after) = rest.strip_prefix('/') {
        let comment = after.starts_with(|c: char| c == '/' || c.is_whitespace());
        let said = if comment || after.is_empty() { text } else { rest };
        return Ok(Input::Message(said.to_owned()));
    }
    let word = rest.split(char::is_whitespace).next().unwrap_or_default();
    if word.contains(['/', '.']) {
        return Ok(Input::Message(text.to_owned()));
    }
    parse(text).map(Input::Command)
}

/// Reads a command; `line` begins with a slash and may have several lines.
///
/// # Errors
///
/// [`CommandError`], with the command that may have been meant.
pub fn parse(line: &str) -> Result<Command, CommandError> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Some(entry) = entry(word) else {
        let readable: String = word.chars().take(40).collect();
        return Err(CommandError::Unknown { word: readable, nearest: nearest::command(word) });
    };
    (entry.read)(rest.trim()).map_err(|what| CommandError::Arguments {
        command: entry.name,
        usage: entry.usage,
        what,
    })
}

impl Command {
    /// Its name, slash included, as the table has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Help => "/help",
            Self::Clear => "/clear",
            Self::System(_) => "/system",
            Self::Set(_) => "/set",
            Self::Regen => "/regen",
            Self::Edit(_) => "/edit",
            Self::Undo => "/undo",
            Self::Drop(_) => "/drop",
            Self::Save(_) => "/save",
            Self::Load(_) => "/load",
            Self::Export { .. } => "/export",
            Self::Model(_) => "/model",
            Self::Copy(_) => "/copy",
            Self::Raw(_) => "/raw",
            Self::Stats(_) => "/stats",
            Self::Quit => "/quit",
        }
    }
}

/// All commands in the order of help: name and arguments, and what they do.
pub fn help() -> impl Iterator<Item = (String, &'static str)> {
    TABLE.iter().map(|entry| {
        let names = [&[entry.name], entry.aliases].concat().join(", ");
        (format!("{names} {}", entry.usage).trim_end().to_owned(), entry.help)
    })
}

/// The names of `/set` and their values, and what they do.
pub fn help_of_settings() -> impl Iterator<Item = (String, &'static str)> {
    set::TABLE
        .iter()
        .map(|entry| (format!("{} {}", entry.name, entry.usage).trim_end().to_owned(), entry.help))
}

/// The command called `word`, by name or alias.
fn entry(word: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == word || entry.aliases.contains(&word))
}

/// What was given, unless it is nothing.
fn given(rest: &str) -> Option<&str> {
    (!rest.is_empty()).then_some(rest)
}

fn alone(rest: &str, command: Command) -> Result<Command, String> {
    match given(rest) {
        None => Ok(command),
        Some(_) => Err("takes nothing after its name".into()),
    }
}

fn switch(rest: &str) -> Result<Option<bool>, String> {
    match rest {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        other => Err(format!("`{}` is neither on nor off", cut(other))),
    }
}

fn copied(rest: &str) -> Result<Copied, String> {
    let mut words = rest.split_whitespace();
    let wrong = || format!("`{}` is nothing to copy", cut(rest));
    let copied = match (words.next(), words.next()) {
        (None | Some("last"), None) => Copied::Last,
        (Some("all"), None) => Copied::All,
        (Some("code"), None) => Copied::Code(1),
        (Some("code"), Some(number)) | (Some(number), None) => match number.parse() {
            Ok(number) if number > 0 => Copied::Code(number),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if words.next().is_some() { Err(wrong()) } else { Ok(copied) }
}

/// A kind, a file, both or neither; without a kind, the file's ending says it.
fn export(rest: &str) -> Command {
    let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (kind, file) = match word {
        "md" | "markdown" => (Some(ExportKind::Markdown), after.trim()),
        "json" => (Some(ExportKind::Json), after.trim()),
        _ => (None, rest),
    };
    let path = given(file).map(path);
    let ending = path.as_ref().and_then(|path| path.extension());
    let by_ending = match ending.and_then(|ending| ending.to_str()) {
        Some(ending) if ending.eq_ignore_ascii_case("json") => ExportKind::Json,
        _ => ExportKind::Markdown,
    };
    Command::Export { path, kind: kind.unwrap_or(by_ending) }
}

/// All of the rest is one path, so spaces need no quotes; quotes around it are taken off. `~` is
/// the user's home.
pub(super) fn path(text: &str) -> PathBuf {
    complete::expand(unquoted(text), std::env::home_dir().as_deref())
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.filter(|inner| !inner.is_empty()).unwrap_or(text)
}

/// Cut to a length that fits a sentence.
fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}
