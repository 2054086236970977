//! A session for people and for other programs: Markdown to read, or the session file itself.

use core::fmt::Write as _;
use std::io;
use std::path::Path;

use tercet_host::error::Error;

use super::private::{self, Existing};
use super::record::{Form, Place, Record, Setup, Turn};
use crate::clean::{Cleaner, OneLine};
use crate::failure::Failure;

/// What a session becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text to read: settings and turns, without control characters.
    Markdown,
    /// The session file: everything, as the model wrote it.
    Json,
}

impl Kind {
    /// The kind that the ending of `path` asks for: `.md` and `.markdown`, or `.json`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "md" | "markdown" => Some(Self::Markdown),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Writes `record` to `path`: whole or not at all, for the user alone (0600). A file that is there
/// already stays, unless it may be `replace`d.
///
/// # Errors
///
/// [`Failure::Usage`] for a file that stays, else [`Failure`] when it cannot be written.
pub fn export(record: &Record, kind: Kind, path: &Path, replace: bool) -> Result<(), Failure> {
    let text = match kind {
        Kind::Markdown => markdown(record),
        Kind::Json => record.to_json(),
    };
    let existing = if replace { Existing::Replace } else { Existing::Keep };
    match private::write(path, text.as_bytes(), existing) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Usage {
            what: format!("`{}` is there already", path.display()),
            hint: "give another name, or remove the file first",
        }),
        Err(source) => Err(Error::Write { path: path.to_owned(), source }.into()),
    }
}

/// `record` as Markdown. Answers stand as the model wrote them, less control characters; what it
/// left open (a block of code) is closed.
#[must_use]
pub fn markdown(record: &Record) -> String {
    let mut text = format!("# {}\n\n", escaped(&record.title()));
    let _ = writeln!(text, "{} to {}\n", OneLine(&record.created), OneLine(&record.updated));
    let mut setup = None;
    for (turn, number) in record.turns().iter().zip(1..) {
        if setup != Some(turn.setup) {
            setup = Some(turn.setup);
            if let Some(setup) = record.setups().get(turn.setup) {
                write_setup(&mut text, setup);
            }
        }
        let _ = write!(text, "## {number}. You\n\n{}\n", quoted(&clean(&turn.user)));
        let answer = closed(clean(&turn.answer));
        let _ = write!(text, "## {number}. Answer\n\n{}\n\n", answer.trim_end());
        let _ = writeln!(text, "*{}*\n", numbers(turn));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A table of what answered.
fn write_setup(text: &mut String, setup: &Setup) {
    let mut line = |name: &str, value: &str| {
        let value = escaped(value).replace('|', "\\|");
        let _ = writeln!(text, "| {name} | {value} |");
    };
    line("setting", "value");
    line("---", "---");
    line("model", &setup.model.name);
    if let Place::Path(path) = &setup.model.place
        && *path != setup.model.name
    {
        line("path", path);
    }
    if let Some(hash) = &setup.model.content_hash {
        line("content hash", hash);
    }
    match &setup.form {
        Form::Template(hash) => line("chat template", &format!("SHA-256 {hash}")),
        Form::BuiltIn { name, .. } => line("chat form", name),
        Form::Completion => line("chat form", "none: text is continued"),
    }
    line("device", &setup.device.name);
    line("context", &setup.context.to_string());
    let deterministic = if setup.deterministic { ", deterministic" } else { "" };
    let (kv, head) = (setup.kv, setup.head);
    line("numbers", &format!("cache {}, head {}{deterministic}", word(&kv), word(&head)));
    line("program", &format!("tercet {}", setup.program));
    text.push('\n');
    if let Some(system) = &setup.system {
        let _ = write!(text, "## Instructions\n\n{}\n", quoted(&clean(system)));
    }
}

/// The name of an option's value.
fn word(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// One line about how a turn was answered.
fn numbers(turn: &Turn) -> String {
    let sampling = turn.sampling;
    let mut line = format!("{} tokens", turn.tokens.len());
    if let Some(rate) = turn.numbers.tokens_per_second {
        let _ = write!(line, ", {rate:.1} tokens/s");
    }
    if let Some(first) = turn.numbers.ttft_ms {
        let _ = write!(line, ", first after {first:.0} ms");
    }
    let _ = write!(line, "; prompt of {}; seed {}", turn.prompt.tokens(), turn.seed);
    if sampling.temperature == 0.0 {
        line.push_str(", greedy");
    } else {
        let _ = write!(
            line,
            ", temperature {}, top-k {}, top-p {}, min-p {}",
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
        );
    }
    if sampling.repetition_penalty != 1.0 {
        let _ = write!(line, ", repetition penalty {}", sampling.repetition_penalty);
    }
    let _ = write!(line, "; ended by {}", turn.stop_reason.name().replace('_', " "));
    line
}

/// `text` without control sequences.
fn clean(text: &str) -> String {
    let (mut cleaner, mut out) = (Cleaner::new(), String::with_capacity(text.len()));
    cleaner.push(text, &mut out);
    cleaner.finish(&mut out);
    out
}

/// `text` on one line, with what Markdown would read as its own made plain.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in OneLine(text).to_string().chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// `text` as a quotation.
fn quoted(text: &str) -> String {
    text.lines().fold(String::new(), |mut quoted, line| {
        let _ = writeln!(quoted, "> {line}");
        quoted
    })
}

/// `text` with the block of code that it leaves open, if it does, closed: what follows is no code.
fn closed(mut text: String) -> String {
    let mut open: Option<&str> = None;
    for line in text.lines() {
        let line = line.trim_start_matches(' ');
        let mark = |c| &line[..line.len() - line.trim_start_matches(c).len()];
        let fence = if line.starts_with('~') { mark('~') } else { mark('`') };
        match open {
            None if fence.len() >= 3 => open = Some(fence),
            Some(opened) if fence.starts_with(opened) && line.trim_end() == fence => open = None,
            _ => {}
        }
    }
    if let Some(fence) = open.map(str::to_owned) {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&fence);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{setup, turn};
    use super::*;

    fn record() -> Record {
        let mut record = Record::new();
        record.created = "2026-11-22T03:41:09Z".into();
        record.updated = "2026-11-22T03:42:00Z".into();
        record.set_up(setup());
        record.push(turn("Show *code*\nplease \x1b[31m", "Here:\n```rust\nfn f() {\n"), &[1, 2, 3]);
        record.push(turn("Thanks", "\x1b]52;c;eA==\x07You are\twelcome."), &[1, 2, 3, 9]);
        record
    }

    #[test]
    fn markdown_has_settings_and_turns() {
        let text = markdown(&record());
        let expected = "\
# Show \\*code\\*

2026-11-22T03:41:09Z to 2026-11-22T03:42:00Z

| setting | value |
| --- | --- |
| model | a \\_model\\_ |
| path | /models/a |
| content hash | blake3:00 |
| chat template | SHA-256 11 |
| device | a CPU |
| context | 256 |
| numbers | cache f16, head stored |
| program | tercet 0.1.0 |

## Instructions

> Be brief.
> Be kind.

## 1. You

> Show *code*
";
        assert_eq!(text[..expected.len()], *expected, "{text}");
        assert!(text.contains("fn f() {\n```\n\n*3 tokens, 12.3 tokens/s"), "{text}");
        assert!(text.contains("seed 7, temperature 0.7, top-k 0, top-p 0.95, min-p 0"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("## 2. Answer\n\nYou are welcome.\n\n*3 tokens"), "{text}");
    }

    #[test]
    fn json_is_the_session_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.json");
        export(&record(), Kind::Json, &path, false).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record());
    }

    #[test]
    fn a_file_stays_unless_it_may_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.md");
        std::fs::write(&path, "mine").unwrap();
        let refused = export(&record(), Kind::Markdown, &path, false).unwrap_err();
        assert!(refused.message().0.contains("there already"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        export(&record(), Kind::Markdown, &path, true).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# Show"));
        let nowhere = export(&record(), Kind::Json, &path.join("x"), false).unwrap_err();
        assert!(nowhere.message().0.contains("cannot write"), "{nowhere:?}");
    }

    #[test]
    fn the_ending_names_the_kind() {
        let kind = |path: &str| Kind::of(Path::new(path));
        assert_eq!(kind("a.md"), Some(Kind::Markdown));
        assert_eq!(kind("a/b.json"), Some(Kind::Json));
        assert_eq!((kind("a.txt"), kind("md"), kind("")), (None, None, None));
    }

    #[test]
    fn open_blocks_of_code_are_closed() {
        let same = ["", "a", "```\nx\n```\n", "~~~~\n```\n~~~~", "`` a ``", "    ```x\n```"];
        for text in same {
            assert_eq!(closed(text.into()), text);
        }
        assert_eq!(closed("```\nx".into()), "```\nx\n```");
        assert_eq!(closed("~~~~ c\n~~~\n".into()), "~~~~ c\n~~~\n~~~~");
        assert_eq!(closed("```\n``` not the end".into()), "```\n``` not the end\n```");
    }
}
