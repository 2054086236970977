//! What is written to a terminal to change it, and to change it back.

use core::fmt;

/// Where the chat is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the alternate screen: all of the terminal, which shows what it showed before afterwards.
    Full,
    /// In the last lines of the ordinary screen: answers stay in the scrollback.
    Inline,
}

/// Reports of clicks and of the wheel, in the form that has no limit of columns (SGR).
pub(super) const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1002h\x1b[?1006h";
/// No reports; also those of movements, which we never ask for.
pub(super) const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1003l\x1b[?1002l\x1b[?1000l";
/// Asks for the colour of the background, then for something that every terminal answers: when
/// that answer is there, an earlier one would be.
pub(super) const ASK_BACKGROUND: &str = "\x1b]11;?\x1b\\\x1b[c";
/// Asks where the cursor is.
pub(super) const ASK_POSITION: &str = "\x1b[6n";
/// What is written until [`FRAME_END`] is shown at once, by terminals that can; others show it as
/// it comes.
pub(super) const FRAME_START: &str = "\x1b[?2026h";
/// Ends a frame.
pub(super) const FRAME_END: &str = "\x1b[?2026l";

/// Prepares the terminal.
pub(super) const fn enter(place: Place) -> &'static str {
    match place {
        Place::Full => "\x1b[?1049h\x1b[H\x1b[2J\x1b[?2004h",
        Place::Inline => "\x1b[?2004h",
    }
}

/// Brings the terminal back from whatever state a program that was cut off left it in.
///
/// A sequence that was cut off is ended first: CAN ends an unfinished CSI, ST an unfinished string.
/// A frame is ended, reports and bracketed paste are switched off, attributes reset, and the cursor
/// is shown, on the screen that was there before.
pub(super) const fn leave(place: Place) -> &'static str {
    match place {
        Place::Full => {
            "\x18\x1b\\\x1b[?2026l\x1b[?1006l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?2004l\x1b[0m\
             \x1b[?1049l\x1b[?25h"
        }
        Place::Inline => {
            "\x18\x1b\\\x1b[?2026l\x1b[?1006l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?2004l\x1b[0m\
             \x1b[?25h"
        }
    }
}

/// [`leave`] for a program that cannot say where its drawing ends: inline, the next line is empty
/// and the last one. With the alternate screen the drawing goes by itself.
pub(super) const fn abandon(place: Place) -> &'static str {
    match place {
        Place::Full => leave(place),
        Place::Inline => {
            "\x18\x1b\\\x1b[?2026l\x1b[?1006l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?2004l\x1b[0m\
             \r\n\x1b[J\x1b[?25h"
        }
    }
}

/// Most bytes that [`copy_sequence`] takes: many terminals read at most 100,000 bytes of a
/// sequence, of which `ESC ] 5 2 ; c ;` and its end take 8 and base64 four for three.
pub const COPY_BYTES_MAX: usize = 74_994;

/// A text too long for the clipboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Its bytes; [`COPY_BYTES_MAX`] fit.
    pub bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes } = self;
        write!(f, "{bytes} bytes are too many for the clipboard: terminals take {COPY_BYTES_MAX}")
    }
}

impl core::error::Error for TooLong {}

/// The sequence that puts `text` on the clipboard (OSC 52), to be sent at the user's wish only.
///
/// Nothing comes back: a terminal may ignore it, and some ask the user first. Inside tmux it needs
/// `set -g set-clipboard on`.
///
/// # Errors
///
/// [`TooLong`] for more than [`COPY_BYTES_MAX`] bytes; a terminal would drop them silently.
pub fn copy_sequence(text: &str) -> Result<String, TooLong> {
    if text.len() > COPY_BYTES_MAX {
        return Err(TooLong { bytes: text.len() });
    }
    let mut sequence = String::with_capacity(8 + text.len().div_ceil(3) * 4);
    sequence.push_str("\x1b]52;c;");
    push_base64(&mut sequence, text.as_bytes());
    sequence.push('\x07');
    Ok(sequence)
}

/// Appends `bytes` as base64 with padding (RFC 4648, section 4).
fn push_base64(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            // A group of n bytes has n + 1 digits.
            out.push(if digit <= group.len() { ALPHABET[index] as char } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, expected) in vectors.iter().enumerate() {
            let copied = copy_sequence(&"foobar"[..length]).unwrap();
            assert_eq!(copied, format!("\x1b]52;c;{expected}\x07"));
        }
        let mut all = String::new();
        push_base64(&mut all, &[0xfb, 0xff, 0xbf, 0x00, 0x10, 0x83]);
        assert_eq!(all, "+/+/ABCD");
    }

    #[test]
    fn a_copy_stays_under_what_terminals_read() {
        let most = "x".repeat(COPY_BYTES_MAX);
        assert_eq!(copy_sequence(&most).unwrap().len(), 100_000);
        let error = copy_sequence(&format!("{most}x")).unwrap_err();
        assert_eq!(error.bytes, COPY_BYTES_MAX + 1);
        assert!(error.to_string().contains("74994"), "{error}");
    }

    #[test]
    fn all_that_is_switched_on_is_switched_off() {
        for place in [Place::Full, Place::Inline] {
            let on = [enter(place), MOUSE_ON, FRAME_START].concat();
            for mode in on.split("\x1b[?").skip(1).filter_map(|rest| rest.split_once('h')) {
                let off = format!("\x1b[?{}l", mode.0);
                for all in [leave(place), abandon(place)] {
                    assert!(all.contains(&off), "{place:?}: {}", mode.0);
                    assert!(all.ends_with("\x1b[?25h") && all.contains(MOUSE_OFF), "{place:?}");
                    assert!(all.contains(FRAME_END), "{place:?}");
                }
            }
        }
    }
}
