//! From bytes that a terminal sends to keys, pastes and answers.
//!
//! The types of keys are crossterm's, the reading is our own. Crossterm's reader gives key events
//! for the start of a paste whose first byte arrives alone, types the rest of a sequence that it
//! does not know (a late answer of the terminal, for example) into the program, blocks in the
//! middle of a sequence, and cannot be stopped. Here every sequence is taken whole or dropped
//! whole, wherever reads cut it; a paste is text whatever it contains.

use core::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

/// How long an Escape waits for the rest of a sequence. Terminals write sequences in one piece, so
/// the rest is there at once unless a network cut it.
pub(super) const ESCAPE_WAIT: Duration = Duration::from_millis(25);
/// How long an answer that has begun waits for its end.
const STRING_WAIT: Duration = Duration::from_millis(500);
/// Largest paste, in bytes.
pub const PASTE_BYTES_MAX: usize = 16 << 20;
/// Longest answer of a terminal that is looked at.
const STRING_BYTES_MAX: usize = 4096;
/// Longest sequence of a key.
const SEQUENCE_BYTES_MAX: usize = 64;
/// What ends a paste.
const PASTE_END: &[u8] = b"\x1b[201~";

/// What a terminal said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decoded {
    Key(KeyEvent),
    Mouse(MouseEvent),
    /// A paste, lines ended by `\n`.
    Paste(String),
    /// A paste of so many bytes, more than [`PASTE_BYTES_MAX`].
    PasteTooLong(usize),
    /// `CSI row ; column R`, from 1: where the cursor is, or F3 with a modifier.
    Position(u16, u16),
    /// The background's red, green and blue, 0 to 1.
    Background([f32; 3]),
    /// The answer to the last of our questions.
    Attributes,
}

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between sequences, or in the middle of a character.
    Ground,
    /// After ESC.
    Escape,
    /// After `ESC O`.
    Ss3,
    /// After `ESC [`.
    Csi,
    /// Bytes left of a report of the mouse in its oldest form.
    OldMouse(u8),
    /// After `ESC ]`, `ESC P` and the like, until ST.
    Text,
    /// Between the marks of a paste; how much of its end is there.
    Paste(usize),
}

/// Takes bytes in pieces of any size.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// The sequence or character that is not complete, or the paste.
    bytes: Vec<u8>,
    /// Length of the paste, kept or not.
    pasted: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { state: State::Ground, bytes: Vec::new(), pasted: 0 }
    }

    /// Appends to `out` what `bytes` complete.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        for &byte in bytes {
            self.byte(byte, out);
        }
    }

    /// How long to wait for more bytes before [`Decoder::give_up`]; `None` when nothing is begun,
    /// or a paste, which waits as long as it takes.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self.state {
            State::Ground if self.bytes.is_empty() => None,
            State::Paste(_) => None,
            State::Text if self.bytes.len() > 2 => Some(STRING_WAIT),
            _ => Some(ESCAPE_WAIT),
        }
    }

    /// Nothing came for [`Decoder::wait`]: what looked like the start of a sequence was a key.
    pub(super) fn give_up(&mut self, out: &mut Vec<Decoded>) {
        let key = match (self.state, &self.bytes[..]) {
            (State::Escape, _) => Some(KeyEvent::from(KeyCode::Esc)),
            (State::Ss3 | State::Csi | State::Text, &[_, second]) => {
                Some(KeyEvent::new(KeyCode::Char(char::from(second)), KeyModifiers::ALT))
            }
            _ => None,
        };
        out.extend(key.map(Decoded::Key));
        self.ground();
    }

    /// Whether a paste has begun and not ended.
    pub(super) fn is_pasting(&self) -> bool {
        matches!(self.state, State::Paste(_))
    }

    /// Ends a paste whose end is not coming.
    pub(super) fn end_paste(&mut self, out: &mut Vec<Decoded>) {
        out.push(match self.pasted {
            ..=PASTE_BYTES_MAX => Decoded::Paste(text(&self.bytes)),
            more => Decoded::PasteTooLong(more),
        });
        self.pasted = 0;
        self.ground();
    }

    fn ground(&mut self) {
        self.state = State::Ground;
        // A large paste is rare; its memory is not kept.
        self.bytes = Vec::new();
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<Decoded>) {
        match self.state {
            State::Paste(matched) => self.paste(byte, matched, out),
            State::Ground => self.character(byte, KeyModifiers::NONE, out),
            State::Escape => self.escape(byte, out),
            State::OldMouse(1) => self.ground(),
            State::OldMouse(left) => self.state = State::OldMouse(left - 1),
            State::Text => self.text(byte, out),
            // A control character cuts a sequence off and counts for itself.
            State::Ss3 | State::Csi if byte < b' ' || byte == 0x7f => {
                self.ground();
                self.byte(byte, out);
            }
            State::Ss3 => {
                self.bytes.push(byte);
                if !byte.is_ascii_digit() {
                    out.extend(ss3(byte).map(Decoded::Key));
                    self.ground();
                }
            }
            State::Csi => self.csi(byte, out),
        }
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<Decoded>) {
        self.bytes.push(byte);
        match byte {
            b'[' => self.state = State::Csi,
            b'O' => self.state = State::Ss3,
            b']' | b'P' | b'_' | b'^' | b'X' => self.state = State::Text,
            0x1b => {
                out.push(Decoded::Key(KeyCode::Esc.into()));
                self.bytes.pop();
            }
            _ => {
                self.bytes.clear();
                self.state = State::Ground;
                self.character(byte, KeyModifiers::ALT, out);
            }
        }
    }

    /// A byte that belongs to no sequence.
    fn character(&mut self, byte: u8, modifiers: KeyModifiers, out: &mut Vec<Decoded>) {
        if byte < 0x80 {
            // What came before it was no character.
            self.bytes.clear();
            if byte == 0x1b {
                self.bytes.push(byte);
                self.state = State::Escape;
            } else {
                out.push(Decoded::Key(plain(byte, modifiers)));
            }
            return;
        }
        if byte >= 0xc0 {
            self.bytes.clear();
            if modifiers.contains(KeyModifiers::ALT) {
                // The mark of Alt before a character of several bytes.
                self.bytes.push(0x1b);
            }
        } else if self.bytes.is_empty() {
            return;
        }
        self.bytes.push(byte);
        let (modifiers, character) = match self.bytes.strip_prefix(b"\x1b") {
            Some(rest) => (KeyModifiers::ALT, rest),
            None => (KeyModifiers::NONE, &self.bytes[..]),
        };
        match core::str::from_utf8(character) {
            Ok(character) => {
                out.extend(character.chars().map(|c| Decoded::Key(typed(c, modifiers))));
                self.bytes.clear();
            }
            Err(error) if error.error_len().is_some() => self.bytes.clear(),
            Err(_) => {}
        }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<Decoded>) {
        let ends = byte == 0x07 || (byte == b'\\' && self.bytes.ends_with(b"\x1b"));
        // CAN and SUB cut it off, as terminals themselves do.
        if ends || matches!(byte, 0x18 | 0x1a) {
            if ends && let Some(answer) = self.bytes.strip_prefix(b"\x1b]11;") {
                let answer = answer.strip_suffix(b"\x1b").unwrap_or(answer);
                out.extend(colour(answer).map(Decoded::Background));
            }
            self.ground();
        } else if self.bytes.len() < STRING_BYTES_MAX || byte == 0x1b {
            self.bytes.push(byte);
        } else if let Some(last) = self.bytes.last_mut() {
            *last = byte; // too long to mean anything to us; its end still has to be found
        }
    }

    fn csi(&mut self, byte: u8, out: &mut Vec<Decoded>) {
        self.bytes.push(byte);
        // F1 to F5 of the Linux console: `ESC [ [ A`.
        if self.bytes == b"\x1b[[" {
            return;
        }
        if let [_, _, b'[', key] = self.bytes[..] {
            if let b'A'..=b'E' = key {
                out.push(Decoded::Key(KeyCode::F(key - b'A' + 1).into()));
            }
            return self.ground();
        }
        match byte {
            b' '..=b'?' if self.bytes.len() < SEQUENCE_BYTES_MAX => {}
            b'@'..=b'~' => {
                let sequence = core::mem::take(&mut self.bytes);
                self.state = State::Ground;
                match &sequence[2..] {
                    b"M" => self.state = State::OldMouse(3),
                    b"200~" => {
                        self.state = State::Paste(0);
                        self.pasted = 0;
                    }
                    sequence => out.extend(csi(sequence)),
                }
            }
            _ => self.ground(),
        }
    }

    fn paste(&mut self, byte: u8, matched: usize, out: &mut Vec<Decoded>) {
        if byte == PASTE_END[matched] {
            if matched + 1 == PASTE_END.len() {
                return self.end_paste(out);
            }
            self.state = State::Paste(matched + 1);
            return;
        }
        // Not the end: what looked like it belongs to the text. The mark has one ESC, its first.
        self.keep(&PASTE_END[..matched]);
        if byte == PASTE_END[0] {
            self.state = State::Paste(1);
        } else {
            self.keep(&[byte]);
            self.state = State::Paste(0);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.pasted += bytes.len();
        if self.pasted <= PASTE_BYTES_MAX {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// A paste as text: terminals send `\r` for the end of a line, programs copy `\r\n`.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.into() }
}

/// A key that sends one byte below 0x80, other than Escape.
fn plain(byte: u8, modifiers: KeyModifiers) -> KeyEvent {
    let control = |c: u8| KeyEvent::new(KeyCode::Char(c.into()), modifiers | KeyModifiers::CONTROL);
    let key = |code| KeyEvent::new(code, modifiers);
    match byte {
        b'\r' => key(KeyCode::Enter),
        b'\t' => key(KeyCode::Tab),
        0x7f => key(KeyCode::Backspace),
        0 => control(b' '),
        1..=0x1a => control(byte - 1 + b'a'),
        0x1b..=0x1f => control(byte - 0x1c + b'4'),
        _ => typed(byte.into(), modifiers),
    }
}

fn typed(c: char, modifiers: KeyModifiers) -> KeyEvent {
    let shift = if c.is_uppercase() { KeyModifiers::SHIFT } else { KeyModifiers::NONE };
    KeyEvent::new(KeyCode::Char(c), modifiers | shift)
}

/// Keys that send `ESC O` and a letter.
fn ss3(byte: u8) -> Option<KeyEvent> {
    let code = match byte {
        b'M' => KeyCode::Enter,
        // The number pad: `* + , - . /` and the digits.
        b'j'..=b'y' => KeyCode::Char(char::from(byte - b'j' + b'*')),
        _ => letter(byte)?,
    };
    Some(code.into())
}

/// Keys that are named by the letter at the end of their sequence.
fn letter(byte: u8) -> Option<KeyCode> {
    Some(match byte {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'F' => KeyCode::End,
        b'H' => KeyCode::Home,
        b'P'..=b'S' => KeyCode::F(byte - b'P' + 1),
        _ => return None,
    })
}

/// Meaning of a whole sequence, without its `ESC [`.
fn csi(sequence: &[u8]) -> Option<Decoded> {
    let (&last, parameters) = sequence.split_last()?;
    let parameters = core::str::from_utf8(parameters).ok()?;
    if let Some(mouse) = parameters.strip_prefix('<') {
        return self::mouse(mouse, last).map(Decoded::Mouse);
    }
    if let Some(answer) = parameters.strip_prefix('?') {
        let attributes = last == b'c' && answer.bytes().all(|c| b"0123456789;".contains(&c));
        return attributes.then_some(Decoded::Attributes);
    }
    // Groups after a colon are variants: other layouts of the key, presses and repeats.
    let number = |at: usize, default: u32| {
        let group = parameters.split(';').nth(at).and_then(|group| group.split(':').next());
        group.and_then(|group| group.parse().ok()).unwrap_or(default)
    };
    let (first, second) = (number(0, 1), number(1, 1));
    // Keys that are let go are of no interest; we do not ask for them, and a program before us may.
    if parameters.split(';').nth(1).is_some_and(|group| group.ends_with(":3")) {
        return None;
    }
    let key = |code| Some(Decoded::Key(KeyEvent::new(code, modifiers(second))));
    match last {
        b'R' if parameters.contains(';') => {
            Some(Decoded::Position(first.try_into().ok()?, second.try_into().ok()?))
        }
        b'Z' => Some(Decoded::Key(KeyEvent::new(KeyCode::BackTab, KeyModifiers::SHIFT))),
        b'~' if first == 27 => key(named(number(2, 0))?),
        b'~' => key(numbered(first)?),
        b'u' => key(named(first)?),
        _ => key(letter(last)?),
    }
}

/// Keys that are named by a number.
fn numbered(number: u32) -> Option<KeyCode> {
    let function = |first: u32, name: u8| {
        u8::try_from(number - first).ok().map(|place| KeyCode::F(name + place))
    };
    match number {
        1 | 7 => Some(KeyCode::Home),
        2 => Some(KeyCode::Insert),
        3 => Some(KeyCode::Delete),
        4 | 8 => Some(KeyCode::End),
        5 => Some(KeyCode::PageUp),
        6 => Some(KeyCode::PageDown),
        11..=15 => function(11, 1),
        17..=21 => function(17, 6),
        23..=26 => function(23, 11),
        28..=29 => function(28, 15),
        31..=34 => function(31, 17),
        _ => None,
    }
}

/// Keys that are named by their character.
fn named(number: u32) -> Option<KeyCode> {
    Some(match number {
        9 => KeyCode::Tab,
        13 => KeyCode::Enter,
        27 => KeyCode::Esc,
        8 | 127 => KeyCode::Backspace,
        // Keys without a character have private ones; none of them means anything to us.
        57344..=63743 => return None,
        _ => KeyCode::Char(char::from_u32(number).filter(|c| !c.is_control())?),
    })
}

/// Modifiers of a parameter, which is one more than their bits.
pub(super) fn modifiers(parameter: u32) -> KeyModifiers {
    let bits = parameter.saturating_sub(1);
    let all = [
        (1, KeyModifiers::SHIFT),
        (2, KeyModifiers::ALT),
        (4, KeyModifiers::CONTROL),
        (8, KeyModifiers::SUPER),
    ];
    let set = all.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, modifier)| *modifier);
    set.fold(KeyModifiers::NONE, |all, modifier| all | modifier)
}

/// A report of the mouse: `button ; column ; row`, ended by `M` or, when let go, by `m`.
fn mouse(parameters: &str, last: u8) -> Option<MouseEvent> {
    let mut numbers = parameters.split(';').map(|number| number.parse::<u16>().ok());
    let (button, column, row) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let which = match button & 3 {
        0 => MouseButton::Left,
        1 => MouseButton::Middle,
        _ => MouseButton::Right,
    };
    let kind = match (button & 64 != 0, button & 32 != 0, button & 3, last) {
        (true, _, 0, b'M') => MouseEventKind::ScrollUp,
        (true, _, 1, b'M') => MouseEventKind::ScrollDown,
        (true, _, 2, b'M') => MouseEventKind::ScrollLeft,
        (true, _, _, b'M') => MouseEventKind::ScrollRight,
        (false, true, 3, _) => MouseEventKind::Moved,
        (false, true, _, b'M') => MouseEventKind::Drag(which),
        (false, false, _, b'M') => MouseEventKind::Down(which),
        (false, _, _, b'm') => MouseEventKind::Up(which),
        _ => return None,
    };
    let modifiers = modifiers(u32::from(button >> 2 & 7) + 1);
    Some(MouseEvent {
        kind,
        column: column.saturating_sub(1),
        row: row.saturating_sub(1),
        modifiers,
    })
}

/// `rgb:R/G/B` in one to four hexadecimal digits each, or the same with alpha.
fn colour(answer: &[u8]) -> Option<[f32; 3]> {
    let answer = core::str::from_utf8(answer).ok()?;
    let (_, parts) = answer.split_once("rgb:").or_else(|| answer.split_once("rgba:"))?;
    let mut parts = parts.split('/').map(|part| {
        let most = 16_u32.checked_pow(u32::try_from(part.len()).ok()?).filter(|most| *most > 1)?;
        Some(u32::from_str_radix(part, 16).ok()? as f32 / (most - 1) as f32)
    });
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests;
