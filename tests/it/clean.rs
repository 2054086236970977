//! The one way of untrusted text to a terminal: whatever goes in, only text comes out.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

use proptest::prelude::*;
use serde_json::Value;
use tercet::clean::{CleanWriter, Cleaner, Json, OneLine, SEQUENCE_BYTES_MAX, clean};
use tercet_host::text::{TokenId, Tokenizer};
use tercet_tests::files::{FIRST_BYTE_ID, byte_tokenizer};
use tercet_tests::hostile::{HOSTILE, forbidden};

/// `pieces` through one cleaner.
fn cleaned<S: AsRef<str>>(pieces: impl IntoIterator<Item = S>) -> String {
    let (mut cleaner, mut out) = (Cleaner::new(), String::new());
    for piece in pieces {
        cleaner.push(piece.as_ref(), &mut out);
    }
    cleaner.finish(&mut out);
    out
}

/// The two parts of `text` for every place where it can be cut.
fn cuts(text: &str) -> impl Iterator<Item = [&str; 2]> {
    let places = text.char_indices().map(|(place, _)| place).chain([text.len()]);
    places.map(|place| [&text[..place], &text[place..]])
}

fn chars(text: &str) -> impl Iterator<Item = String> {
    text.chars().map(String::from)
}

#[test]
fn nothing_of_sixty_hostile_texts_is_left() {
    for hostile in HOSTILE {
        let text = format!("before{}after", hostile.text);
        let expected = format!("before{}after", hostile.shown);
        assert!(forbidden(&text).is_some(), "{}: is not hostile", hostile.name);
        assert_eq!(forbidden(&expected), None, "{}: a wrong expectation", hostile.name);
        assert_eq!(clean(&text), expected, "{}", hostile.name);
        assert_eq!(OneLine(&text).to_string(), expected, "{}", hostile.name);
        assert_eq!(cleaned(chars(&text)), expected, "{}: char by char", hostile.name);
        for parts in cuts(&text) {
            assert_eq!(cleaned(parts), expected, "{}: {parts:?}", hostile.name);
            let mut out = Vec::new();
            let mut writer = CleanWriter::new(&mut out);
            for part in parts {
                writer.write_text(part).unwrap();
            }
            writer.finish().unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{}: {parts:?}", hostile.name);
        }
    }
    // Names are different, so that a failure says which one it is.
    let mut names: Vec<_> = HOSTILE.iter().map(|hostile| hostile.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), HOSTILE.len());
}

/// Bytes as tokens, which is the finest that a model can cut them.
#[test]
fn nothing_is_left_of_them_byte_by_byte() {
    let tokenizer = Tokenizer::from_json(byte_tokenizer().to_string().as_bytes()).unwrap();
    for hostile in HOSTILE {
        let text = format!("före{}nach", hostile.text);
        let mut stream = tokenizer.stream();
        let mut pieces: Vec<_> =
            text.bytes().map(|byte| stream.push(FIRST_BYTE_ID + TokenId::from(byte))).collect();
        pieces.push(stream.finish());
        assert_eq!(pieces.concat(), text);
        assert_eq!(cleaned(pieces), format!("före{}nach", hostile.shown), "{}", hostile.name);
    }
}

/// A prefix of a hostile text is harmless, too, and what follows a line end is never lost.
#[test]
fn what_never_ends_swallows_nothing() {
    for hostile in HOSTILE {
        for [prefix, _] in cuts(hostile.text) {
            let shown = cleaned([prefix, "\nthe rest"]);
            assert_eq!(forbidden(&shown), None, "{}: {prefix:?}", hostile.name);
            assert!(shown.ends_with("\nthe rest"), "{}: {shown:?}", hostile.name);
            let name = OneLine(prefix).to_string();
            assert!(forbidden(&name).is_none() && !name.contains('\n'), "{name:?}");
        }
    }
    for (text, shown) in [
        ("\x1b]0;title", "]0;title"),
        ("\u{9d}0;title", "0;title"),
        ("\x1b[31", "[31"),
        ("a\x1b", "a"),
        ("\x1b[1\u{e9}t\u{e9}", "[1été"),
        ("\x1b]0;a\tb\nc", "]0;a    b\nc"),
        // CAN and SUB abort, as on a terminal.
        ("\x1b]0;title\x18rest", "rest"),
        ("\x1b[31\x1arest", "rest"),
    ] {
        assert_eq!(clean(text), shown, "{text:?}");
        assert_eq!(cleaned(chars(text)), shown, "{text:?}");
    }
    let endless = format!("\x1b]52;c;{}", "A".repeat(3 * SEQUENCE_BYTES_MAX));
    assert_eq!(clean(&endless), endless[1..]);
    let mut out = String::new();
    Cleaner::new().push(&endless, &mut out);
    assert_eq!(out, endless[1..], "shown before the text ends");
}

#[test]
fn tabs_reach_the_next_stop() {
    for (text, shown) in [
        ("\tx", "    x"),
        ("a\tx", "a   x"),
        ("abc\tx", "abc x"),
        ("abcd\tx", "abcd    x"),
        ("a\nab\tx", "a\nab  x"),
        ("世\tx", "世  x"),
        ("世界\tx", "世界    x"),
        ("é\te\u{301}\tx", "é   e\u{301}   x"),
        ("👩‍👩‍👧\tx", "👩‍👩‍👧  x"),
        ("1️⃣\tx", "1️⃣  x"),
        ("\t\ta\t", "        a   "),
        ("\x1b[31ma\x1b[0m\tx", "a   x"),
    ] {
        assert_eq!(clean(text), shown, "{text:?}");
        assert_eq!(cleaned(chars(text)), shown, "{text:?}");
    }
    assert_eq!(OneLine("a\tb\r\nc\u{2028}d").to_string(), "a b c d");
    assert_eq!(clean("a\r\nb\u{2028}c\u{2029}\r"), "a\nb\nc\n");
}

#[test]
fn a_writer_knows_where_its_line_stands() {
    let mut out = Vec::new();
    let mut writer = CleanWriter::new(&mut out);
    let mut starts = Vec::new();
    for text in ["", "\x1b[0m", "a", "\n", "\r\x1b[2K", "\x1b]0;x", "\n", "\t", "\n\u{200b}"] {
        writer.write_text(text).unwrap();
        starts.push(writer.is_at_line_start());
    }
    writer.finish().unwrap();
    assert_eq!(starts, [true, true, false, true, true, true, true, false, true]);
    assert_eq!(String::from_utf8(out).unwrap(), "a\n]0;x\n    \n");
}

#[test]
fn json_keeps_its_values() {
    for hostile in HOSTILE {
        let value = Value::from(format!("é世👩‍👧{}\u{2028}\u{10ffff}", hostile.text));
        let json = Json(&value.to_string()).to_string();
        assert_eq!(forbidden(&json), None, "{}", hostile.name);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{}", hostile.name);
        assert!(json.contains("é世👩‍👧"), "{json}");
    }
}

/// What a terminal does with what it gets: `vte` is the parser of one.
#[derive(Debug, Default)]
struct Obeyed {
    text: String,
    orders: Vec<String>,
}

impl vte::Perform for Obeyed {
    fn print(&mut self, c: char) {
        self.text.push(c);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' => self.text.push('\n'),
            other => self.orders.push(format!("execute {other}")),
        }
    }

    fn hook(&mut self, _: &vte::Params, _: &[u8], _: bool, action: char) {
        self.orders.push(format!("hook {action}"));
    }

    fn put(&mut self, byte: u8) {
        self.orders.push(format!("put {byte}"));
    }

    fn unhook(&mut self) {
        self.orders.push("unhook".into());
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        self.orders.push(format!("osc {params:?}"));
    }

    fn csi_dispatch(&mut self, _: &vte::Params, _: &[u8], _: bool, action: char) {
        self.orders.push(format!("csi {action}"));
    }

    fn esc_dispatch(&mut self, _: &[u8], _: bool, byte: u8) {
        self.orders.push(format!("esc {byte}"));
    }
}

fn obeyed(text: &str) -> Obeyed {
    let mut obeyed = Obeyed::default();
    vte::Parser::new().advance(&mut obeyed, text.as_bytes());
    obeyed
}

#[test]
fn the_terminal_of_the_tests_obeys_what_is_not_cleaned() {
    let orders: usize = HOSTILE.iter().map(|hostile| obeyed(hostile.text).orders.len()).sum();
    assert!(orders > 60, "{orders}");
}

/// Characters of which terminals make something, and some others.
fn characters() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::sample::select("\x1b\x07\x18\x1a\\[]P_^Xk(#%;?0m".chars().collect::<Vec<_>>()),
        2 => prop::char::range('\0', '\u{ff}'),
        2 => prop::char::range('\u{80}', '\u{9f}'),
        1 => prop::sample::select("\u{200b}\u{202e}\u{2066}\u{2028}\u{e0041}\n\t\r世é👩‍".chars()
            .collect::<Vec<_>>()),
        1 => any::<char>(),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_terminal_gets_nothing_but_text(
        pieces in prop::collection::vec(prop::collection::vec(characters(), 0..12), 0..8)
    ) {
        let pieces: Vec<String> = pieces.into_iter().map(String::from_iter).collect();
        let whole = clean(&pieces.concat());
        prop_assert_eq!(&cleaned(&pieces), &whole, "cut as {:?}", pieces);
        prop_assert_eq!(forbidden(&whole), None);
        let Obeyed { text, orders } = obeyed(&whole);
        prop_assert!(orders.is_empty(), "{:?} of {:?}", orders, whole);
        prop_assert_eq!(&text, &whole);
        // Once is enough.
        prop_assert_eq!(clean(&whole), whole);
    }

    /// Text of any script passes as it is.
    #[test]
    fn text_passes(text in "(\\PC|[\n \u{200c}\u{200d}\u{fe0e}\u{fe0f}\u{300}-\u{36f}]){0,40}") {
        prop_assume!(forbidden(&text).is_none());
        prop_assert_eq!(clean(&text), text);
    }
}
