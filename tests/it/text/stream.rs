//! Characters come whole, however tokens cut them.

use proptest::prelude::*;
use tercet_host::text::{TokenId, Tokenizer};

use super::tokenizers::{large, tiny};

fn streamed(tokenizer: &Tokenizer, ids: &[TokenId]) -> (Vec<String>, String) {
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    let rest = stream.finish();
    (pieces, rest)
}

const TEXTS: [&str; 8] = [
    "Hello, World",
    " leading and trailing ",
    "Grüße 😀👩‍👩‍👧 日本語 \u{10ffff}\u{0}",
    "",
    "\n\n  \t",
    "नमस्ते क्षि",
    "é\u{301}\u{fffd}x",
    "<s>not a token<|end|>",
];

#[test]
fn pieces_together_are_the_whole_text() {
    for (name, tokenizer) in tiny().into_iter().chain(large()) {
        for text in TEXTS {
            let ids = tokenizer.encode_text(text).unwrap();
            let (pieces, rest) = streamed(&tokenizer, &ids);
            let whole = pieces.concat() + &rest;
            assert_eq!(whole, tokenizer.decode(&ids), "{name}: {text:?}");
            // The replacement character of the seventh text is one of its own.
            if !text.contains('\u{fffd}') {
                assert!(!whole.contains('\u{fffd}'), "{name}: {text:?} came as {pieces:?}");
                // A sentencepiece tokenizer takes a space at the beginning for its own.
                let kept = if name.contains("meta") { text.trim_start_matches(' ') } else { text };
                assert_eq!(whole, kept, "{name}");
            }
        }
    }
}

#[test]
fn an_incomplete_character_shows_only_at_the_end() {
    for (name, tokenizer) in tiny() {
        let ids = tokenizer.encode_text("a😀").unwrap();
        let (pieces, rest) = streamed(&tokenizer, &ids[..ids.len() - 1]);
        assert_eq!(pieces.concat(), "a", "{name}");
        assert!(rest.chars().all(|letter| letter == '\u{fffd}') && !rest.is_empty(), "{name}");
        assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids[..ids.len() - 1]), "{name}");
    }
}

#[test]
fn special_and_unknown_tokens_give_no_text() {
    for (name, tokenizer) in tiny() {
        let mut ids = tokenizer.encode_text("a😀b").unwrap();
        let end = tokenizer.token_id("<|end|>").unwrap();
        ids.insert(3, end);
        ids.push(end);
        ids.push(TokenId::MAX);
        let (pieces, rest) = streamed(&tokenizer, &ids);
        assert_eq!(pieces.concat() + &rest, "a😀b", "{name}");
    }
}

#[test]
fn the_cost_of_a_token_does_not_grow() {
    for (name, tokenizer) in tiny() {
        let ids = tokenizer.encode_text(&"Hello 😀 ".repeat(20_000)).unwrap();
        let begin = std::time::Instant::now();
        streamed(&tokenizer, &ids);
        let seconds = begin.elapsed().as_secs_f64();
        assert!(seconds < 5.0, "{name}: {} tokens took {seconds} s", ids.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Any ids of a byte-level tokenizer: text, halves of characters, wrong bytes.
    #[test]
    fn any_byte_level_ids_stream_to_their_decoding(
        ids in prop::collection::vec(0_u32..271, 0..24)
    ) {
        let tokenizer = &TINY.0;
        let (pieces, rest) = streamed(tokenizer, &ids);
        prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids));
    }

    /// Any text, cut into bytes at random places.
    #[test]
    fn any_cut_of_a_text_streams_to_the_text(text in "[ -~é日😀]{0,12}", cuts in any::<u64>()) {
        for (tokenizer, byte_id) in [(&TINY.0, byte_level_id as ByteId), (&TINY.1, fallback_id)] {
            let mut ids = Vec::new();
            for (index, letter) in text.chars().enumerate() {
                let as_bytes = !letter.is_ascii() || cuts >> (index % 64) & 1 == 1;
                if as_bytes || tokenizer.token_id(&letter.to_string()).is_none() {
                    ids.extend(letter.to_string().bytes().map(|byte| byte_id(tokenizer, byte)));
                } else {
                    ids.extend(tokenizer.token_id(&letter.to_string()));
                }
            }
            let (pieces, rest) = streamed(tokenizer, &ids);
            prop_assert!(rest.is_empty() || ids.len() < 4);
            prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids));
            prop_assert!(!tokenizer.decode(&ids).contains(char::REPLACEMENT_CHARACTER));
        }
    }
}

type ByteId = fn(&Tokenizer, u8) -> TokenId;

static TINY: std::sync::LazyLock<(Tokenizer, Tokenizer)> = std::sync::LazyLock::new(|| {
    let mut tiny = tiny().into_iter().map(|(_, tokenizer)| tokenizer);
    (tiny.next().unwrap(), tiny.next().unwrap())
});

/// The 256 letters stand in the order of their bytes behind six special tokens.
fn byte_level_id(_: &Tokenizer, byte: u8) -> TokenId {
    6 + TokenId::from(byte)
}

fn fallback_id(tokenizer: &Tokenizer, byte: u8) -> TokenId {
    tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap()
}
