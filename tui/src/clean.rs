//! Text from models and files on its way to people: without control characters.
//!
//! A terminal obeys what it is sent, and a model, a file name or a tensor name can say anything.
//! Nothing untrusted is printed except through here.

use core::fmt;
use std::io::{self, Write};

/// Whether a character may reach a terminal: no C0, C1 or DEL (which start every control sequence),
/// no bidirectional overrides, no invisible tags. Line ends and tabs are handled by the callers.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
            | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}'))
}

/// Shows a text on one line: what is not printable becomes a space or disappears.
#[derive(Debug, Clone, Copy)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' | '\t' => f.write_str(" ")?,
                c if is_printable(c) => fmt::Write::write_char(f, c)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes streamed text: tabs become four spaces, control sequences lose the characters that make
/// them sequences. What remains of one is its harmless body.
#[derive(Debug)]
pub struct CleanWriter<W> {
    out: W,
}

impl<W: Write> CleanWriter<W> {
    /// A writer in front of `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes `text` and flushes, so that every token shows at once.
    ///
    /// # Errors
    ///
    /// Those of the inner writer.
    pub fn write_text(&mut self, text: &str) -> io::Result<()> {
        let mut clean = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\n' => clean.push('\n'),
                '\t' => clean.push_str("    "),
                c if is_printable(c) => clean.push(c),
                _ => {}
            }
        }
        self.out.write_all(clean.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_passes() {
        let hostile = "a\x1b[31mb\x1b]52;c;x\x07\u{9b}2Jc\x08\r\x7fd\u{202e}e\u{e0041}f\0";
        let mut out = Vec::new();
        CleanWriter::new(&mut out).write_text(hostile).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a[31mb]52;c;x2Jcdef");
        assert_eq!(OneLine("x\n\x1b[2Jy\tz").to_string(), "x [2Jy z");
    }

    #[test]
    fn text_passes_unchanged() {
        let text = "Grüße, 世界 👩‍👩‍👧 \n\tnext";
        let mut out = Vec::new();
        CleanWriter::new(&mut out).write_text(text).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), text.replace('\t', "    "));
    }
}
