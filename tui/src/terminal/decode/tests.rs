//! Keys that terminals send, cut anywhere, and noise.

use super::*;

const SHIFT: KeyModifiers = KeyModifiers::SHIFT;
const ALT: KeyModifiers = KeyModifiers::ALT;
const CONTROL: KeyModifiers = KeyModifiers::CONTROL;

/// All that `bytes` mean when they arrive in pieces of `size`, and nothing comes after.
fn decoded(bytes: &[u8], size: usize) -> Vec<Decoded> {
    let (mut decoder, mut out) = (Decoder::new(), Vec::new());
    for piece in bytes.chunks(size) {
        decoder.push(piece, &mut out);
    }
    if decoder.wait().is_some() {
        decoder.give_up(&mut out);
    }
    assert_eq!(decoder.wait(), None, "{bytes:?}");
    out
}

fn key(code: KeyCode, modifiers: KeyModifiers) -> Decoded {
    Decoded::Key(KeyEvent::new(code, modifiers))
}

fn character(c: char, modifiers: KeyModifiers) -> Decoded {
    key(KeyCode::Char(c), modifiers)
}

/// What xterm, the Linux console, rxvt and kitty send.
fn keys() -> Vec<(&'static str, Decoded)> {
    let none = KeyModifiers::NONE;
    vec![
        ("a", character('a', none)),
        ("A", character('A', SHIFT)),
        ("ä", character('ä', none)),
        ("😀", character('😀', none)),
        ("\x1ba", character('a', ALT)),
        ("\x1bé", character('é', ALT)),
        ("\r", key(KeyCode::Enter, none)),
        ("\n", character('j', CONTROL)),
        ("\x1b\r", key(KeyCode::Enter, ALT)),
        ("\t", key(KeyCode::Tab, none)),
        ("\x1b[Z", key(KeyCode::BackTab, SHIFT)),
        ("\x7f", key(KeyCode::Backspace, none)),
        ("\x08", character('h', CONTROL)),
        ("\x1b\x7f", key(KeyCode::Backspace, ALT)),
        ("\0", character(' ', CONTROL)),
        ("\x03", character('c', CONTROL)),
        ("\x1a", character('z', CONTROL)),
        ("\x1c", character('4', CONTROL)),
        ("\x1f", character('7', CONTROL)),
        ("\x1b", key(KeyCode::Esc, none)),
        ("\x1b[", character('[', ALT)),
        ("\x1bO", character('O', ALT)),
        ("\x1b]", character(']', ALT)),
        ("\x1b[A", key(KeyCode::Up, none)),
        ("\x1bOB", key(KeyCode::Down, none)),
        ("\x1b[1;5C", key(KeyCode::Right, CONTROL)),
        ("\x1b[1;2D", key(KeyCode::Left, SHIFT)),
        ("\x1b[1;10H", key(KeyCode::Home, SHIFT | KeyModifiers::SUPER)),
        ("\x1b[H", key(KeyCode::Home, none)),
        ("\x1b[1~", key(KeyCode::Home, none)),
        ("\x1b[4~", key(KeyCode::End, none)),
        ("\x1bOF", key(KeyCode::End, none)),
        ("\x1b[3~", key(KeyCode::Delete, none)),
        ("\x1b[3;5~", key(KeyCode::Delete, CONTROL)),
        ("\x1b[2~", key(KeyCode::Insert, none)),
        ("\x1b[5~", key(KeyCode::PageUp, none)),
        ("\x1b[6;3~", key(KeyCode::PageDown, ALT)),
        ("\x1bOP", key(KeyCode::F(1), none)),
        ("\x1b[[E", key(KeyCode::F(5), none)),
        ("\x1b[15~", key(KeyCode::F(5), none)),
        ("\x1b[21~", key(KeyCode::F(10), none)),
        ("\x1b[24;2~", key(KeyCode::F(12), SHIFT)),
        ("\x1bOM", key(KeyCode::Enter, none)),
        ("\x1bOq", character('1', none)),
        ("\x1b[13;2u", key(KeyCode::Enter, SHIFT)),
        ("\x1b[97;5u", character('a', CONTROL)),
        ("\x1b[97:65;6:1u", character('a', CONTROL | SHIFT)),
        ("\x1b[27u", key(KeyCode::Esc, none)),
        ("\x1b[27;5;9~", key(KeyCode::Tab, CONTROL)),
        ("\x1b[12;40R", Decoded::Position(12, 40)),
        ("\x1b[?62;22c", Decoded::Attributes),
        (
            "\x1b]11;rgb:ffff/0000/8080\x1b\\",
            Decoded::Background([1.0, 0.0, 0x8080 as f32 / 65535.0]),
        ),
        ("\x1b]11;rgba:ff/00/00/ff\x07", Decoded::Background([1.0, 0.0, 0.0])),
        ("\x1b[200~\x1b[201~", Decoded::Paste(String::new())),
        ("\x1b[200~x\x1b[20\x1b[201~", Decoded::Paste("x\x1b[20".into())),
        ("\x1b[200~\ra\r\nb\n\x1b[201~", Decoded::Paste("\na\nb\n".into())),
    ]
}

#[test]
fn keys_are_what_terminals_mean_wherever_reads_cut_them() {
    let mut all = (Vec::new(), Vec::new());
    for (bytes, expected) in keys() {
        for size in [usize::MAX, 1, 2, 3] {
            let found = decoded(bytes.as_bytes(), size);
            assert_eq!(found, core::slice::from_ref(&expected), "{bytes:?} in pieces of {size}");
        }
        // Alone they wait for more; a key behind them would be part of them.
        if !["\x1b", "\x1b[", "\x1bO", "\x1b]"].contains(&bytes) {
            all.0.extend_from_slice(bytes.as_bytes());
            all.1.push(expected);
        }
    }
    for size in [usize::MAX, 1, 2, 3, 5, 7] {
        assert_eq!(decoded(&all.0, size), all.1, "all in pieces of {size}");
    }
}

#[test]
fn what_means_nothing_is_dropped_whole() {
    for bytes in [
        "\x1b]0;title\x07",
        "\x1b]52;c;eA==\x1b\\",
        "\x1bP1+r544e=787465726d\x1b\\",
        "\x1b_Gi=1;OK\x1b\\",
        "\x1b[?2026;2$y",
        "\x1b[>0;95;0c",
        "\x1b[I",
        "\x1b[O",
        "\x1b[M ab",
        "\x1b[97;1:3u",
        "\x1b[57441u",
        "\x1b[201~",
        "\x1b[99~",
        "\x1b[1;2;3;4;5z",
        "\x1b]11;rgb:red/green/blue\x07",
        "\x1b]11;rgb:/1/2\x07",
        "\x1b[<1;2M",
    ] {
        for size in [usize::MAX, 1, 2] {
            let mut with_key = bytes.as_bytes().to_vec();
            with_key.push(b'x');
            let expected = [character('x', KeyModifiers::NONE)];
            assert_eq!(decoded(&with_key, size), expected, "{bytes:?} in pieces of {size}");
        }
    }
    for bytes in [&b"\xff\xfe"[..], b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"] {
        assert_eq!(decoded(bytes, 1), [], "{bytes:?}");
    }
    assert_eq!(decoded(b"\xe2\x82x", 1), [character('x', KeyModifiers::NONE)]);
    let long = format!("\x1b[{}Ax", "1;".repeat(100));
    assert_eq!(decoded(long.as_bytes(), 9).last(), Some(&character('x', KeyModifiers::NONE)));
}

#[test]
fn reports_of_the_mouse_are_understood() {
    let report = |bytes: &str| match &decoded(bytes.as_bytes(), 1)[..] {
        [Decoded::Mouse(mouse)] => *mouse,
        other => panic!("{bytes:?}: {other:?}"),
    };
    let event = |kind, column, row, modifiers| MouseEvent { kind, column, row, modifiers };
    let none = KeyModifiers::NONE;
    let (left, right) = (MouseButton::Left, MouseButton::Right);
    for (bytes, expected) in [
        ("\x1b[<0;1;1M", event(MouseEventKind::Down(left), 0, 0, none)),
        ("\x1b[<0;300;2m", event(MouseEventKind::Up(left), 299, 1, none)),
        ("\x1b[<34;5;6M", event(MouseEventKind::Drag(right), 4, 5, none)),
        ("\x1b[<64;5;6M", event(MouseEventKind::ScrollUp, 4, 5, none)),
        ("\x1b[<65;5;6M", event(MouseEventKind::ScrollDown, 4, 5, none)),
        ("\x1b[<20;1;1M", event(MouseEventKind::Down(left), 0, 0, SHIFT | CONTROL)),
    ] {
        assert_eq!(report(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn a_paste_has_a_limit_and_says_so() {
    let paste = |length: usize| [b"\x1b[200~", &vec![b'x'; length][..], b"\x1b[201~q"].concat();
    let quit = character('q', KeyModifiers::NONE);
    let most = decoded(&paste(PASTE_BYTES_MAX), 4096);
    assert_eq!(most, [Decoded::Paste("x".repeat(PASTE_BYTES_MAX)), quit.clone()]);
    let more = decoded(&paste(PASTE_BYTES_MAX + 1), 4096);
    assert_eq!(more, [Decoded::PasteTooLong(PASTE_BYTES_MAX + 1), quit]);
    // Without an end it waits, whatever comes.
    let (mut decoder, mut out) = (Decoder::new(), Vec::new());
    decoder.push(b"\x1b[200~half\x03\x1b", &mut out);
    assert!(decoder.is_pasting() && decoder.wait().is_none() && out.is_empty());
    decoder.end_paste(&mut out);
    assert_eq!(out, [Decoded::Paste("half\x03".into())]);
}

/// Bytes from a simple generator: nothing panics, and afterwards a key is a key again.
#[test]
fn noise_is_survived() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let starts: [&[u8]; 6] = [b"\x1b", b"\x1b[", b"\x1b]", b"\x1b[<", b"\x1b[2", b""];
    for _ in 0..20_000 {
        let mut bytes = starts[random() % starts.len()].to_vec();
        for _ in 0..random() % 24 {
            let interesting = b"\x1b[]O;:<?~AMRcu0129\\\x07\x18\xc3\xa4";
            bytes.push(match random() % 3 {
                0 => random() as u8,
                _ => interesting[random() % interesting.len()],
            });
        }
        let (mut decoder, mut out) = (Decoder::new(), Vec::new());
        for piece in bytes.chunks(1 + random() % 4) {
            decoder.push(piece, &mut out);
        }
        decoder.push(b"\x18\x18\x18", &mut out);
        if decoder.is_pasting() {
            decoder.end_paste(&mut out);
        }
        decoder.push(b"\x18", &mut out);
        out.clear();
        decoder.push(b"\r", &mut out);
        assert_eq!(out, [key(KeyCode::Enter, KeyModifiers::NONE)], "{bytes:?}");
    }
}
