//! Text from models and files on its way to people: without control sequences.
//!
//! A terminal obeys what it is sent, and a model, a file name or a tensor name can say anything:
//! write to the clipboard, retitle the window, ask for an answer that the shell then reads as typed
//! (kitty CVE-2022-41322, CVE-2003-0070). Nothing untrusted is printed except through [`Cleaner`].
//!
//! # What is removed
//!
//! *Control sequences, as a whole* (ECMA-48, read as xterm and Paul Williams' DEC parser read
//! them), begun by ESC or by a single C1 character: CSI to its final character; the strings OSC,
//! DCS, SOS, PM, APC and the title of `screen` (`ESC k`) to their end, which is ST, for OSC also
//! BEL; two- and three-character sequences. CAN, SUB and a new ESC or C1 abort a sequence, as on a
//! terminal.
//!
//! *Every other C0, C1 and DEL*, so that `\r\n` becomes `\n` and nothing is overstruck.
//!
//! *Characters that reorder or hide text*: bidirectional marks, embeddings, overrides and isolates,
//! tag characters, BOM, soft hyphens, and spaces of no width. What scripts and emoji need to be
//! spelt right stays: ZWJ, ZWNJ, variation selectors, combining marks.
//!
//! # What never ends
//!
//! A sequence that is not whole when the line ends, after [`SEQUENCE_BYTES_MAX`] bytes, at a
//! character that cannot be part of it, or when the text ends, is none: it loses the control
//! character that begins it, and the rest is shown. So a stray ESC cannot swallow an answer; it
//! holds back the rest of a line at most.

use core::fmt;
use core::fmt::Write as _;
use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

/// Tab stops stand at every multiple of so many columns.
pub const TAB_COLUMNS: usize = 4;

/// Longest sequence that is waited for, in bytes.
pub const SEQUENCE_BYTES_MAX: usize = 4096;

/// Longest stretch whose width is measured in one go, in bytes.
const STRETCH_BYTES_MAX: usize = 256;

/// Whether a character may reach a terminal on its own. Line ends and tabs are no business of this.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E00FF}' | '\u{E01F0}'..='\u{E0FFF}'))
}

/// Where in a control sequence the text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// In none.
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC and intermediate characters: one more ends it.
    Designation,
    /// In a control sequence proper, before its final character.
    Csi,
    /// In a string that ST ends.
    Text,
    /// In one that BEL ends, too.
    Osc,
}

/// Removes control sequences from text that comes in pieces, wherever the pieces are cut.
///
/// What comes out has no control characters but `\n`. Text without any passes as it is; tabs become
/// spaces up to the next of the stops, columns counted from the last line end (wide characters are
/// two), and U+2028 and U+2029 become line ends.
///
/// ```
/// use tercet::clean::Cleaner;
///
/// let (mut cleaner, mut out) = (Cleaner::new(), String::new());
/// for piece in ["safe \x1b]52;c;", "cm0gLXJmIC8=\x07and\tsound", "\x1b"] {
///     cleaner.push(piece, &mut out);
/// }
/// cleaner.finish(&mut out);
/// assert_eq!(out, "safe and    sound");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cleaner {
    state: State,
    /// What is shown if the sequence turns out to be none: all of it but control characters.
    held: String,
    line: Columns,
    /// Line ends and tabs become one space.
    one_line: bool,
}

impl Cleaner {
    /// A cleaner at the beginning of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece and appends what is clean of it, and of what was held back, to `out`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let plain = if self.state == State::Ground { plain_bytes(rest) } else { 0 };
            let taken = if plain > 0 {
                out.push_str(&rest[..plain]);
                self.line.ascii(&rest[..plain]);
                plain
            } else {
                self.char(c, out);
                c.len_utf8()
            };
            rest = &rest[taken..];
        }
    }

    /// Ends the text: appends what is still held back. The next piece begins another text, which
    /// goes on in the same line.
    pub fn finish(&mut self, out: &mut String) {
        self.release(out);
    }

    /// Whether nothing has come out since the last line end.
    #[must_use]
    pub fn is_at_line_start(&self) -> bool {
        self.line.is_start
    }

    fn char(&mut self, c: char, out: &mut String) {
        match (self.state, c) {
            (_, '\n') => {
                self.release(out);
                self.emit(c, out);
            }
            (_, '\x1b') => self.begin(State::Escape),
            (_, '\u{9b}') => self.begin(State::Csi),
            (_, '\u{9d}') => self.begin(State::Osc),
            (_, '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}') => self.begin(State::Text),
            // CAN and SUB abort, ST ends; the other C1 are sequences of one character.
            (_, '\x18' | '\x1a' | '\u{80}'..='\u{9f}') | (State::Osc, '\x07') => {
                self.begin(State::Ground);
            }
            (State::Ground, c) => self.emit(c, out),
            (State::Text | State::Osc, '\t') => self.hold(c, out),
            // Terminals obey other C0 inside a sequence, which goes on after them.
            (_, c) if c.is_control() => {}
            (State::Text | State::Osc, c) => self.hold(c, out),
            (State::Escape, c) => match c {
                '[' => self.introduced(State::Csi, c, out),
                ']' => self.introduced(State::Osc, c, out),
                'P' | 'X' | '^' | '_' | 'k' => self.introduced(State::Text, c, out),
                ' '..='/' => self.introduced(State::Designation, c, out),
                '0'..='~' => self.begin(State::Ground),
                c => self.was_none(c, out),
            },
            (State::Designation, c) => match c {
                ' '..='/' => self.hold(c, out),
                '0'..='~' => self.begin(State::Ground),
                c => self.was_none(c, out),
            },
            (State::Csi, c) => match c {
                ' '..='?' => self.hold(c, out),
                '@'..='~' => self.begin(State::Ground),
                c => self.was_none(c, out),
            },
        }
    }

    /// Drops the sequence that was read, if any, and goes on in `state`.
    fn begin(&mut self, state: State) {
        self.held.clear();
        self.state = state;
    }

    fn introduced(&mut self, state: State, c: char, out: &mut String) {
        self.state = state;
        self.hold(c, out);
    }

    fn hold(&mut self, c: char, out: &mut String) {
        self.held.push(c);
        if self.held.len() > SEQUENCE_BYTES_MAX {
            self.release(out);
        }
    }

    /// Shows what looked like a sequence, and the character after it.
    fn was_none(&mut self, c: char, out: &mut String) {
        self.release(out);
        self.emit(c, out);
    }

    fn release(&mut self, out: &mut String) {
        self.state = State::Ground;
        let mut held = core::mem::take(&mut self.held);
        for c in held.chars() {
            self.emit(c, out);
        }
        held.clear();
        self.held = held;
    }

    /// Appends a character that is in no sequence.
    fn emit(&mut self, c: char, out: &mut String) {
        match c {
            '\n' | '\t' | '\u{2028}' | '\u{2029}' if self.one_line => out.push(' '),
            '\n' | '\u{2028}' | '\u{2029}' => {
                out.push('\n');
                self.line = Columns::default();
            }
            '\t' => {
                let spaces = self.line.tab();
                out.extend(core::iter::repeat_n(' ', spaces));
            }
            c if is_printable(c) => {
                out.push(c);
                self.line.char(c);
            }
            _ => {}
        }
    }
}

/// How many bytes at the beginning of `text` are visible ASCII or spaces.
fn plain_bytes(text: &str) -> usize {
    text.bytes().position(|byte| !matches!(byte, b' '..=b'~')).unwrap_or(text.len())
}

/// The column of the end of a line, in so far as tabs ask for it.
#[derive(Debug, Clone)]
struct Columns {
    /// Columns before `stretch`, modulo [`TAB_COLUMNS`].
    before: usize,
    /// The last characters, whose width is not settled: a mark or a joiner may follow.
    stretch: String,
    is_start: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self { before: 0, stretch: String::new(), is_start: true }
    }
}

impl Columns {
    /// `text`: visible ASCII, at least one character.
    fn ascii(&mut self, text: &str) {
        let (last, others) = text.as_bytes().split_last().map_or((b' ', 0), |(c, o)| (*c, o.len()));
        self.settle(others);
        self.stretch.push(last.into());
    }

    fn char(&mut self, c: char) {
        if c.is_ascii() || self.stretch.len() > STRETCH_BYTES_MAX {
            self.settle(0);
        }
        self.stretch.push(c);
        self.is_start = false;
    }

    /// Columns up to the next tab stop, at least 1; the line then ends there.
    fn tab(&mut self) -> usize {
        self.settle(0);
        let columns = TAB_COLUMNS - self.before;
        self.before = 0;
        columns
    }

    /// Settles the width of the stretch, and of `more` columns after it.
    fn settle(&mut self, more: usize) {
        self.before = (self.before + self.stretch.width() + more) % TAB_COLUMNS;
        self.stretch.clear();
        self.is_start = false;
    }
}

/// All of a text, cleaned: see [`Cleaner`].
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut cleaner = Cleaner::new();
    cleaner.push(text, &mut out);
    cleaner.finish(&mut out);
    out
}

/// Shows a text on one line: cleaned, line ends and tabs as one space.
#[derive(Debug, Clone, Copy)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::with_capacity(self.0.len());
        let mut cleaner = Cleaner { one_line: true, ..Cleaner::new() };
        cleaner.push(self.0, &mut out);
        cleaner.finish(&mut out);
        f.write_str(&out)
    }
}

/// Shows JSON text: what a terminal must not get is spelt `\uXXXX`. The values stay the same.
///
/// Only for JSON: such characters are taken to stand in strings, where alone they may.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a>(pub &'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c == '\n' || (is_printable(c) && !matches!(c, '\u{2028}' | '\u{2029}')) {
                f.write_char(c)?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// Writes streamed text through a [`Cleaner`].
#[derive(Debug)]
pub struct CleanWriter<W> {
    out: W,
    cleaner: Cleaner,
    buffer: String,
}

impl<W: Write> CleanWriter<W> {
    /// A writer in front of `out`, which stands at the beginning of a line.
    pub fn new(out: W) -> Self {
        Self { out, cleaner: Cleaner::new(), buffer: String::new() }
    }

    /// Writes `text` and flushes, so that every token shows at once.
    ///
    /// # Errors
    ///
    /// Those of the inner writer.
    pub fn write_text(&mut self, text: &str) -> io::Result<()> {
        self.cleaner.push(text, &mut self.buffer);
        self.write_buffer()
    }

    /// Ends the text: writes what was held back, because it could have become a control sequence.
    ///
    /// # Errors
    ///
    /// Those of the inner writer.
    pub fn finish(&mut self) -> io::Result<()> {
        self.cleaner.finish(&mut self.buffer);
        self.write_buffer()
    }

    /// Whether nothing was written since the last line end.
    pub fn is_at_line_start(&self) -> bool {
        self.cleaner.is_at_line_start()
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.buffer.as_bytes());
        self.buffer.clear();
        written.and_then(|()| self.out.flush())
    }
}
