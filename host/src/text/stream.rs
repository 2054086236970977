//! Token ids to text, one by one, in whole characters.

use std::sync::LazyLock;

use super::{TokenId, Tokenizer};

/// Tokens that may wait for the rest of a character: a character has at most four bytes.
const WAITING_MAX: usize = 4;

/// Text of a sequence that is still growing.
///
/// Made by [`Tokenizer::stream`]. What [`push`](Self::push) and [`finish`](Self::finish) return,
/// put together, is the text of the whole sequence. Special tokens give no text. The cost of a
/// token does not depend on how many came before it.
///
/// A character that never becomes whole is one U+FFFD for each maximal part of it (byte-level
/// tokenizers) or for each byte (byte-fallback tokenizers), as in Hugging Face tokenizers 0.23.
/// There is one difference to decoding the whole at once: a byte-fallback decoder replaces a whole
/// run of bytes as soon as one byte of it is wrong, this stream only what is wrong after the last
/// whole character.
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Bytes that do not make a character yet; at most three.
    Bytes(Vec<u8>),
    /// The last tokens: the first `shown` of them are in the text already and give the others
    /// their neighbourhood (a decoder may treat the first token of a text differently).
    Window { ids: Vec<TokenId>, shown: usize },
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, byte_level: bool) -> Self {
        let state = if byte_level {
            State::Bytes(Vec::new())
        } else {
            State::Window { ids: Vec::new(), shown: 0 }
        };
        Self { tokenizer, state }
    }

    /// Takes the next id and returns the characters that became whole; often none.
    ///
    /// An id that the tokenizer does not know gives no text.
    pub fn push(&mut self, id: TokenId) -> String {
        if self.tokenizer.is_special(id) {
            return String::new();
        }
        match &mut self.state {
            State::Bytes(bytes) => {
                let Some(token) = self.tokenizer.token_text(id) else { return String::new() };
                push_bytes(&token, bytes);
                take_characters(bytes)
            }
            State::Window { ids, shown } => {
                ids.push(id);
                push_window(self.tokenizer, ids, shown, false)
            }
        }
    }

    /// Ends the text and returns its rest; a character that is not whole becomes U+FFFD.
    pub fn finish(mut self) -> String {
        match &mut self.state {
            State::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            State::Window { ids, shown } => push_window(self.tokenizer, ids, shown, true),
        }
    }
}

/// Appends the bytes that a byte-level token stands for.
fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for letter in token.chars() {
        match BYTE_OF_LETTER.get(letter as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => {
                // An added token is stored as plain text.
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Takes everything but an incomplete character at the end; what is not UTF-8 becomes U+FFFD.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let incomplete = match bytes.utf8_chunks().last() {
        Some(chunk) if is_incomplete(chunk.invalid()) => chunk.invalid().len(),
        _ => 0,
    };
    let rest = bytes.split_off(bytes.len() - incomplete);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    text
}

/// Whether more bytes could make a character of these, which are not UTF-8.
fn is_incomplete(invalid: &[u8]) -> bool {
    match core::str::from_utf8(invalid) {
        Ok(_) => false,
        Err(error) => error.error_len().is_none(),
    }
}

fn push_window(
    tokenizer: &Tokenizer,
    ids: &mut Vec<TokenId>,
    shown: &mut usize,
    last: bool,
) -> String {
    let waiting = ids.len() - *shown;
    if waiting == 0 {
        return String::new();
    }
    let text = tokenizer.decode(ids);
    if text.ends_with(char::REPLACEMENT_CHARACTER) && waiting < WAITING_MAX && !last {
        return String::new();
    }
    let before = tokenizer.decode(&ids[..*shown]);
    let new = match text.strip_prefix(&before) {
        Some(new) => new.to_owned(),
        // A wrong byte changed what the bytes before it decode to; they have been shown already.
        None => tokenizer.decode(&ids[*shown..]),
    };
    ids.drain(..*shown);
    *shown = ids.len();
    new
}

/// The letters by which GPT-2 writes bytes (openai/gpt-2 `src/encoder.py`, `bytes_to_unicode`).
static BYTE_OF_LETTER: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    let mut next = 0x100;
    for byte in 0..=u8::MAX {
        let letter = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => usize::from(byte),
            _ => {
                next += 1;
                next - 1
            }
        };
        table[letter] = Some(byte);
    }
    table
});
