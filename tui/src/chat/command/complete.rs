//! What a command that is half typed can become.

use core::ops::Range;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Argument, TABLE, entry, set};
use crate::clean::OneLine;

/// Most candidates that are offered.
const CANDIDATES_MAX: usize = 100;
/// Most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 20_000;
/// Longest time for a folder: a key must be answered while the finger is still on it.
const TIME_MAX: Duration = Duration::from_millis(50);

/// What completion knows besides the line.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Names of the saved sessions.
    pub sessions: &'a [String],
    /// Where relative paths begin.
    pub folder: &'a Path,
    /// What `~` stands for.
    pub home: Option<&'a Path>,
}

/// One way to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Bytes of the line that it replaces; on character boundaries, within the line.
    pub range: Range<usize>,
    /// What comes there.
    pub text: String,
    /// What is shown: one line, without control characters.
    pub label: String,
    /// What it means, where that can be said.
    pub help: &'static str,
}

/// The ways in which the word before `cursor` (a byte of `line`) can be completed; none where
/// `line` is no command, has several lines, or the cursor is not on a character boundary.
#[must_use]
pub fn complete(line: &str, cursor: usize, context: &Context<'_>) -> Vec<Candidate> {
    let Some(typed) = line.get(..cursor) else { return Vec::new() };
    if !typed.starts_with('/') || line.contains('\n') {
        return Vec::new();
    }
    let Some(space) = typed.find(char::is_whitespace) else { return commands(typed) };
    let Some(entry) = entry(&typed[..space]) else { return Vec::new() };
    let rest = typed[space..].trim_start();
    let word = typed.rfind(char::is_whitespace).map_or(typed, |at| typed[at..].trim_start());
    let first = !rest.contains(char::is_whitespace);
    let offer = |words: &'static [&'static str], typed: &str| {
        let words = words.iter().map(|word| (*word, "", ""));
        choices(cursor, typed, words)
    };
    match entry.argument {
        Argument::Nothing | Argument::Text => Vec::new(),
        Argument::Settings => settings(rest, word, cursor),
        Argument::File => paths(rest, cursor, context, |_| true),
        Argument::Session => {
            let mut all = sessions(rest, cursor, context);
            all.extend(paths(rest, cursor, context, |_| true));
            all.truncate(CANDIDATES_MAX);
            all
        }
        Argument::Export if first => {
            let mut all = offer(&["md", "json"], rest);
            all.extend(paths(rest, cursor, context, |_| true));
            all
        }
        Argument::Export => {
            let file = rest.split_once(char::is_whitespace).map_or("", |(_, file)| file);
            paths(file.trim_start(), cursor, context, |_| true)
        }
        Argument::Model => paths(rest, cursor, context, |name| name.ends_with(".tercet")),
        Argument::Copied if first => offer(&["all", "code", "last"], rest),
        Argument::Switch if first => offer(&["on", "off"], rest),
        Argument::Copied | Argument::Switch => Vec::new(),
    }
}

/// Commands whose name begins with `typed`; an alias where it is what was begun.
fn commands(typed: &str) -> Vec<Candidate> {
    let all = TABLE.iter().filter_map(|entry| {
        let mut names = core::iter::once(&entry.name).chain(entry.aliases);
        let name = names.find(|name| name.starts_with(typed))?;
        Some((*name, if entry.argument == Argument::Nothing { "" } else { " " }, entry.help))
    });
    choices(typed.len(), typed, all)
}

/// Names in the odd places, values in the even ones.
fn settings(rest: &str, word: &str, cursor: usize) -> Vec<Candidate> {
    let before = &rest[..rest.len() - word.len()];
    let mut wants = None;
    for done in before.split_whitespace() {
        wants = match wants {
            None => set::TABLE
                .iter()
                .find(|entry| entry.name == done)
                .filter(|entry| !entry.usage.is_empty()),
            Some(_) => None,
        };
    }
    match wants {
        Some(entry) => {
            choices(cursor, word, entry.words.iter().map(|word| (*word, "", entry.help)))
        }
        None => {
            let all = set::TABLE.iter();
            choices(cursor, word, all.map(|entry| (entry.name, " ", entry.help)))
        }
    }
}

/// Those of `words` (the word, what follows it, what it means) that begin with `typed`, which ends
/// at `cursor`.
fn choices(
    cursor: usize,
    typed: &str,
    words: impl Iterator<Item = (&'static str, &'static str, &'static str)>,
) -> Vec<Candidate> {
    let fitting = words.filter(|(word, ..)| word.starts_with(typed));
    let candidate = |(word, after, help): (&str, &str, &'static str)| Candidate {
        range: cursor - typed.len()..cursor,
        text: format!("{word}{after}"),
        label: word.to_owned(),
        help,
    };
    fitting.map(candidate).collect()
}

fn sessions(typed: &str, cursor: usize, context: &Context<'_>) -> Vec<Candidate> {
    let fitting = context.sessions.iter().filter(|name| name.starts_with(typed) && is_typed(name));
    let candidate = |name: &String| Candidate {
        range: cursor - typed.len()..cursor,
        text: name.clone(),
        label: OneLine(name).to_string(),
        help: "session",
    };
    fitting.take(CANDIDATES_MAX).map(candidate).collect()
}

/// Folders, and files that `wanted` takes by name, whose path begins with `typed`. Hidden ones are
/// offered when the dot was typed. Sorted by name, folders among files.
fn paths(
    typed: &str,
    cursor: usize,
    context: &Context<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Candidate> {
    let (folder, begun) = typed.rfind('/').map_or(("", typed), |at| typed.split_at(at + 1));
    let place = context.folder.join(expand(folder, context.home));
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let start = Instant::now();
    let mut found = Vec::new();
    for entry in entries.take(ENTRIES_MAX).flatten() {
        if start.elapsed() > TIME_MAX {
            break;
        }
        // A name that is no UTF-8 cannot be typed.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let hidden = name.starts_with('.') && !begun.starts_with('.');
        if hidden || !name.starts_with(begun) || !is_typed(&name) {
            continue;
        }
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => {
                fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir())
            }
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        if is_folder || wanted(&name) {
            found.push(if is_folder { name + "/" } else { name });
        }
    }
    found.sort_unstable();
    found.truncate(CANDIDATES_MAX);
    let candidate = |name: String| Candidate {
        range: cursor - typed.len()..cursor,
        text: format!("{folder}{name}"),
        label: OneLine(&name).to_string(),
        help: if name.ends_with('/') { "folder" } else { "" },
    };
    found.into_iter().map(candidate).collect()
}

/// Whether a line of the editor can hold the name: a line end or white space at its ends would be
/// taken away.
fn is_typed(name: &str) -> bool {
    !name.contains(['\n', '\r']) && name.trim() == name
}

/// `~` and `~/...` are the user's home, everything else is what it is.
pub(super) fn expand(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(text),
    }
}
