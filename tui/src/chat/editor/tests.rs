//! Keys in, text and cells out.

use core::time::Duration;
use std::time::Instant;

use super::super::command::{Context, complete};
use super::*;

const TEXTS: [&str; 8] = [
    "hello world, this is a line that wraps at most widths, and then some more of it",
    "日本語のテキストは空白なしで続きます。ﾊﾟﾋﾟ 한국어 텍스트",
    "👩‍👩‍👧‍👦 family, flags 🇩🇪🇯🇵, keycap #️⃣, skin 👍🏽 end",
    "\tindented\n\t\ttwice\n  a\tb\tc",
    "e\u{301}a\u{308}\u{304} combining\u{300}\n\u{301}at the start",
    "שלום עולם\nمرحبا بالعالم",
    "averyveryverylongwordwithoutanyspaceinitatallwhichmustbesplitsomewhereanyway\n\n\nend",
    "trailing spaces          \n          leading ones",
];

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

fn control(letter: char) -> KeyEvent {
    KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL)
}

fn alt(letter: char) -> KeyEvent {
    KeyEvent::new(KeyCode::Char(letter), KeyModifiers::ALT)
}

fn typed(text: &str) -> Editor {
    let mut editor = Editor::default();
    type_in(&mut editor, text);
    editor
}

fn type_in(editor: &mut Editor, text: &str) {
    for c in text.chars() {
        let event = match c {
            '\n' => control('j'),
            c => key(KeyCode::Char(c)),
        };
        assert_eq!(editor.handle(event), Outcome::Changed, "{c:?}");
    }
}

fn press(editor: &mut Editor, keys: &[KeyEvent]) {
    for event in keys {
        editor.handle(*event);
    }
}

fn submitted(editor: &mut Editor) -> String {
    match editor.handle(key(KeyCode::Enter)) {
        Outcome::Submit(text) => text,
        other => panic!("{other:?}"),
    }
}

/// Rows of cells as text, and the cursor.
fn drawn(editor: &mut Editor, width: u16, height: u16) -> (Vec<String>, Position) {
    let area = Rect::new(2, 1, width, height);
    let mut buf = Buffer::empty(Rect::new(0, 0, width + 4, height + 2));
    let cursor = editor.draw(area, &mut buf, &Theme::dark());
    assert!(area.contains(cursor), "{cursor:?} outside of {area:?}");
    let row = |y: u16, from: u16, to: u16| -> String {
        (from..to).map(|x| buf[(x, y)].symbol()).collect()
    };
    for y in 0..height + 2 {
        let outside = row(y, 0, 2) + &row(y, width + 2, width + 4);
        assert_eq!(outside.trim(), "", "row {y} drawn outside of {area:?}");
    }
    for y in [0, height + 1] {
        assert_eq!(row(y, 0, width + 4).trim(), "", "drawn above or below {area:?}");
    }
    let rows = (1..=height).map(|y| row(y, 2, width + 2).trim_end().to_owned()).collect();
    (rows, Position { x: cursor.x - 2, y: cursor.y - 1 })
}

#[test]
fn enter_sends_and_other_enters_make_lines() {
    let mut editor = typed("one");
    for modifiers in [KeyModifiers::ALT, KeyModifiers::SHIFT, KeyModifiers::CONTROL] {
        let event = KeyEvent::new(KeyCode::Enter, modifiers);
        assert_eq!(editor.handle(event), Outcome::Changed, "{modifiers:?}");
    }
    type_in(&mut editor, "two\\");
    assert_eq!(editor.handle(key(KeyCode::Enter)), Outcome::Changed);
    type_in(&mut editor, "a\\b");
    assert_eq!(submitted(&mut editor), "one\n\n\ntwo\na\\b");
    // Nothing is lost until it is accepted.
    assert_eq!(editor.text(), "one\n\n\ntwo\na\\b");
    editor.accept();
    assert!(editor.is_empty());
    for blank in ["", "  ", " \n "] {
        assert_eq!(typed(blank).handle(key(KeyCode::Enter)), Outcome::Ignored, "{blank:?}");
    }
    let release = KeyEvent { kind: KeyEventKind::Release, ..key(KeyCode::Char('x')) };
    assert_eq!(Editor::default().handle(release), Outcome::Ignored);
}

#[test]
fn keys_of_others_are_ignored() {
    let mut editor = typed("x");
    for code in [KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::PageUp, KeyCode::F(1)] {
        assert_eq!(editor.handle(key(code)), Outcome::Ignored, "{code:?}");
    }
    for letter in ['c', 'l', 'z', 'r'] {
        assert_eq!(editor.handle(control(letter)), Outcome::Ignored, "Ctrl-{letter}");
    }
    assert_eq!(editor.text(), "x");
    assert_eq!(Editor::default().handle(control('d')), Outcome::Ignored, "the end of input");
    let both = KeyModifiers::CONTROL | KeyModifiers::ALT;
    assert_eq!(editor.handle(KeyEvent::new(KeyCode::Char('x'), both)), Outcome::Ignored);
}

#[test]
fn lines_are_edited_as_in_a_shell() {
    let case = |text: &str, keys: &[KeyEvent], wanted: &str| {
        let mut editor = typed(text);
        press(&mut editor, keys);
        type_in(&mut editor, "|");
        assert_eq!(editor.text(), wanted, "{text:?} {keys:?}");
    };
    let code = |code| key(code);
    case("one two", &[control('a')], "|one two");
    case("a\nb c", &[code(KeyCode::Home)], "a\n|b c");
    case("a\nb c", &[control('a'), code(KeyCode::Left)], "a|\nb c");
    case("a\nb", &[code(KeyCode::Up), control('e'), code(KeyCode::Right)], "a\n|b");
    case("one two three", &[alt('b'), alt('b')], "one |two three");
    case("one two", &[control('a'), alt('f')], "one |two");
    case("one two", &[control('w')], "one |");
    case("one two", &[control('a'), alt('d')], "| two");
    case("one two", &[alt('b'), control('k')], "one |");
    case("one two", &[alt('b'), control('u')], "|two");
    case("one two", &[alt('b'), control('k'), control('a'), control('y')], "two|one ");
    case("one two", &[control('w'), control('_')], "one two|");
    case("one two", &[control('w'), control('7'), alt('_')], "one |");
    case("ab", &[control('b'), control('h')], "|b");
    case("ab", &[control('a'), control('d')], "|b");
    let control_end = KeyEvent::new(KeyCode::End, KeyModifiers::CONTROL);
    let control_home = KeyEvent::new(KeyCode::Home, KeyModifiers::CONTROL);
    case("a\nb\nc", &[control_home], "|a\nb\nc");
    case("a\nb\nc", &[control_home, control_end], "a\nb\nc|");
    case("a\nb", &[code(KeyCode::Home), code(KeyCode::Backspace)], "a|b");
    case("a\nb", &[control_home, code(KeyCode::End), code(KeyCode::Delete)], "a|b");
}

#[test]
fn motion_and_deletion_go_by_what_people_take_for_characters() {
    for cluster in ["é", "e\u{301}", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "#️⃣", "日"]
    {
        let text = format!("a{cluster}b{cluster}");
        let mut editor = Editor::default();
        editor.insert_paste(&text);
        press(&mut editor, &[key(KeyCode::Backspace)]);
        assert_eq!(editor.text(), format!("a{cluster}b"), "{cluster:?}");
        press(&mut editor, &[key(KeyCode::Left), key(KeyCode::Left), key(KeyCode::Delete)]);
        assert_eq!(editor.text(), "ab", "{cluster:?}");
        editor.set_text(&text);
        press(&mut editor, &[key(KeyCode::Left); 4]);
        press(&mut editor, &[key(KeyCode::Right); 2]);
        type_in(&mut editor, "|");
        assert_eq!(editor.text(), format!("a{cluster}|b{cluster}"));
    }
}

#[test]
fn pastes_come_as_they_are_but_for_what_terminals_obey() {
    let mut editor = typed("<>");
    press(&mut editor, &[key(KeyCode::Left)]);
    let paste = "a\tb\r\nc\rd\n\n\x1be\u{7}f\u{9b}g\0 \u{202e}h\u{fdd0}i 日本 👩‍👧\u{200b}";
    assert_eq!(editor.insert_paste(paste), Outcome::Changed);
    let text = submitted(&mut editor);
    assert!(text.starts_with("<a\tb\nc\nd\n\n") && text.ends_with('>'), "{text:?}");
    assert!(text.contains("日本 👩‍👧"), "{text:?}");
    let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    assert!(text.chars().all(|c| allowed(c) && c != '\u{202e}' && c != '\u{fdd0}'), "{text:?}");
    assert_eq!(editor.insert_paste(""), Outcome::Ignored);
    assert_eq!(editor.insert_paste("\0\u{7}"), Outcome::Ignored);
    // A paste never sends, whatever it ends with.
    let mut editor = Editor::default();
    editor.insert_paste("/quit\n");
    assert_eq!(editor.text(), "/quit\n");
}

#[test]
fn a_megabyte_is_pasted_at_once_and_sent_whole() {
    let line = "0123456789 ÄÖÜ 日本語 some words of a long paste\t\n";
    let paste: String = line.chars().cycle().take(1 << 20).collect();
    let single: String = "x".repeat(1 << 20);
    let deep = "\n".repeat(1 << 20);
    for paste in [paste, single, deep] {
        let mut editor = typed("before  after");
        press(&mut editor, &[alt('b'), key(KeyCode::Left)]);
        let start = Instant::now();
        assert_eq!(editor.insert_paste(&paste), Outcome::Changed);
        type_in(&mut editor, "!");
        let (rows, _) = drawn(&mut editor, 60, 5);
        // It takes hundredths of a second; a loop over the text for every key would take minutes.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(rows[0], "before [pasted 1,048,576 characters]! after");
        assert_eq!(submitted(&mut editor), format!("before {paste}! after"));
        // One unit: a step over it, and one key removes it.
        press(&mut editor, &[key(KeyCode::Left), key(KeyCode::Left)]);
        press(&mut editor, &[key(KeyCode::Delete)]);
        assert_eq!(editor.text(), "before ! after");
        press(&mut editor, &[control('_')]);
        assert_eq!(editor.text().len(), paste.len() + "before ! after".len());
        editor.accept();
        press(&mut editor, &[key(KeyCode::Up)]);
        assert_eq!(editor.text(), format!("before {paste}! after"), "from the history");
        assert_eq!(drawn(&mut editor, 60, 1).0, ["[pasted 1,048,590 characters]"]);
    }
}

#[test]
fn more_long_pastes_than_marks_lose_nothing() {
    let mut editor = Editor::default();
    let mut wanted = String::new();
    for number in 0..70 {
        let paste = format!("{number} {}", "x".repeat(PASTE_CHARS_MAX));
        editor.insert_paste(&paste);
        wanted.push_str(&paste);
    }
    assert_eq!(editor.text(), wanted);
    assert!(editor.chars() < 100, "{}", editor.chars());

    // The kill buffer outlives the message, and so does a paste that was cut into it.
    press(&mut editor, &[control('u')]);
    editor.clear();
    press(&mut editor, &[control('y')]);
    assert_eq!(editor.text(), wanted);
    assert!(editor.chars() < 100, "{}", editor.chars());
}

#[test]
fn small_pastes_fold_before_the_editor_becomes_slow() {
    let mut editor = Editor::default();
    let paste = "word ".repeat(1000);
    for _ in 0..200 {
        assert_eq!(editor.insert_paste(&paste), Outcome::Changed);
    }
    assert!(editor.chars() < CHARS_MAX + 200, "{}", editor.chars());
    assert_eq!(editor.text(), paste.repeat(200));
    let lines = "a\n".repeat(PASTE_LINES_MAX);
    editor.set_text("");
    editor.insert_paste(&lines);
    assert_eq!(drawn(&mut editor, 40, 1).0, ["[pasted 200 characters]"]);
}

#[test]
fn history_is_walked_and_nothing_typed_is_lost() {
    let sent = ["first", "second\nof two lines", "third"].map(str::to_owned);
    let mut editor = Editor::new(sent.to_vec(), "");
    let step = |editor: &mut Editor, code, wanted: &str| {
        editor.handle(key(code));
        assert_eq!(editor.text(), wanted);
    };
    type_in(&mut editor, "draft");
    step(&mut editor, KeyCode::Up, "third");
    step(&mut editor, KeyCode::Up, "second\nof two lines");
    type_in(&mut editor, "!");
    // Up goes to the first row first.
    step(&mut editor, KeyCode::Up, "second\nof two lines!");
    step(&mut editor, KeyCode::Up, "first");
    assert_eq!(editor.handle(key(KeyCode::Up)), Outcome::Ignored, "there is nothing before");
    step(&mut editor, KeyCode::Down, "second\nof two lines!");
    step(&mut editor, KeyCode::Down, "third");
    step(&mut editor, KeyCode::Down, "draft");
    assert_eq!(editor.handle(key(KeyCode::Down)), Outcome::Ignored, "there is nothing after");

    press(&mut editor, &[control('p'), control('p')]);
    assert_eq!(submitted(&mut editor), "second\nof two lines!");
    editor.accept();
    press(&mut editor, &[key(KeyCode::Up)]);
    assert_eq!(editor.text(), "second\nof two lines!", "it joined the history");
    press(&mut editor, &[key(KeyCode::Up), key(KeyCode::Up)]);
    assert_eq!(editor.text(), "third");
    press(&mut editor, &[control('p')]);
    assert_eq!(editor.text(), "second\nof two lines", "what was sent is as it was sent");
    press(&mut editor, &[control('n'), control('n'), control('n')]);
    assert_eq!(editor.text(), "", "the draft became the message");
    type_in(&mut editor, "again");
    editor.accept();
    type_in(&mut editor, "again");
    editor.accept();
    press(&mut editor, &[control('p'), control('p')]);
    assert_eq!(editor.text(), "second\nof two lines!", "the same twice is one entry");
}

#[test]
fn up_and_down_keep_their_column() {
    let mut editor = typed("long enough\nx\n日本語日本語");
    assert_eq!(drawn(&mut editor, 20, 3).1, Position { x: 12, y: 2 });
    press(&mut editor, &[key(KeyCode::Up)]);
    assert_eq!(drawn(&mut editor, 20, 3).1, Position { x: 1, y: 1 });
    press(&mut editor, &[key(KeyCode::Up)]);
    assert_eq!(drawn(&mut editor, 20, 3).1, Position { x: 11, y: 0 });
    press(&mut editor, &[key(KeyCode::Left), key(KeyCode::Down), key(KeyCode::Down)]);
    assert_eq!(drawn(&mut editor, 20, 3).1, Position { x: 10, y: 2 });
    // Rows of one line are rows, too.
    editor.set_text("one two three");
    assert_eq!(drawn(&mut editor, 6, 3).0, ["one", "two", "three"]);
    press(&mut editor, &[key(KeyCode::Left), key(KeyCode::Left), key(KeyCode::Up)]);
    type_in(&mut editor, "|");
    assert_eq!(editor.text(), "one two| three");
}

#[test]
fn text_wraps_at_words() {
    let rows = |text: &str, width: u16| {
        let mut editor = Editor::default();
        editor.insert_paste(text);
        let height = editor.height(width, 50);
        drawn(&mut editor, width, height).0
    };
    assert_eq!(rows("the quick brown fox", 10), ["the quick", "brown fox"]);
    assert_eq!(rows("the quick  brown", 9), ["the quick", "brown"]);
    assert_eq!(rows("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
    assert_eq!(rows("ab cdefgh", 4), ["ab", "cdef", "gh"]);
    assert_eq!(rows("abcd", 4), ["abcd", ""], "the cursor needs a place");
    assert_eq!(rows("日本語", 4), ["日本", "語"].map(spread));
    assert_eq!(rows("a日本 bc", 5), ["a日本", "bc"].map(spread));
    assert_eq!(rows("\ta\tb", 8), ["    a   ", "b"].map(str::trim_end));
    assert_eq!(rows("a\n\nb", 8), ["a", "", "b"]);
    assert_eq!(rows("", 8), [""]);
    let mut editor = typed("a\nb\nc\nd");
    assert_eq!((editor.height(10, 3), editor.height(10, 9)), (3, 4));
    assert_eq!(drawn(&mut editor, 10, 2).0, ["c", "d"], "the cursor's row is shown");
    press(&mut editor, &[key(KeyCode::Up); 3]);
    assert_eq!(drawn(&mut editor, 10, 2).0, ["a", "b"]);
}

/// A wide character leaves a blank cell after it.
fn spread(text: &str) -> String {
    let row: String =
        text.chars().map(|c| if c > 'z' { format!("{c} ") } else { c.into() }).collect();
    row.trim_end().to_owned()
}

/// The cursor stands in the area, on the character after it, at every place of every text.
#[test]
fn the_cursor_is_where_the_text_goes_on() {
    for text in TEXTS {
        for width in (1..=120).filter(|width| *width < 24 || width % 7 == 0) {
            let mut editor = Editor::default();
            editor.insert_paste(text);
            press(&mut editor, &[KeyEvent::new(KeyCode::Home, KeyModifiers::CONTROL)]);
            loop {
                let (row, column) = editor.cursor();
                let line = editor.text.lines()[row].clone();
                let after = line[byte(&line, column)..].graphemes(true).next().map(str::to_owned);
                let height = editor.height(width, 6);
                let area = Rect::new(0, 0, width, height);
                let mut buf = Buffer::empty(area);
                let cursor = editor.draw(area, &mut buf, &Theme::plain());
                assert!(area.contains(cursor), "{text:?} at {width}: {cursor:?}");
                if let Some(cluster) = after.filter(|cluster| {
                    let cells = ratatui::buffer::CellWidth::cell_width(cluster.trim());
                    (1..=width).contains(&cells)
                }) {
                    assert_eq!(buf[cursor].symbol(), cluster, "{text:?} at {width}, {column}");
                }
                if editor.handle(key(KeyCode::Right)) == Outcome::Ignored {
                    break;
                }
            }
        }
    }
}

/// Random keys at random widths: no panic, the cursor inside, no mark in what is sent.
#[test]
fn nothing_breaks_it() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % below
    };
    let codes = [
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Backspace,
        KeyCode::Delete,
        KeyCode::Enter,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Esc,
    ];
    let letters: Vec<char> =
        "abefhjkuwynp_7 /日👍\u{301}\u{200d}\t\\\u{1b}\u{fdd1}".chars().collect();
    let modifiers =
        [KeyModifiers::NONE, KeyModifiers::NONE, KeyModifiers::CONTROL, KeyModifiers::ALT];
    let mut editor = Editor::new(TEXTS.map(str::to_owned).to_vec(), "Ask");
    for step in 0..30_000 {
        let code = match next(3) {
            0 => codes[next(codes.len())],
            _ => KeyCode::Char(letters[next(letters.len())]),
        };
        match next(40) {
            0 => drop(editor.insert_paste(TEXTS[next(TEXTS.len())])),
            1 => drop(editor.insert_paste(&"long\n".repeat(next(300)))),
            2 => editor.set_text(if next(2) == 0 { "/" } else { "/set " }),
            3 => editor.accept(),
            _ => match editor.handle(KeyEvent::new(code, modifiers[next(modifiers.len())])) {
                Outcome::Complete => {
                    let (line, cursor) = editor.completable().unwrap();
                    let folder = std::path::Path::new("/nonexistent");
                    let context = Context { sessions: &[], folder, home: None };
                    editor.offer(complete(&line, cursor, &context));
                }
                Outcome::Submit(text) => {
                    assert!(!text.chars().any(folds::is_mark), "step {step}: {text:?}");
                }
                Outcome::Changed | Outcome::Ignored => {}
            },
        }
        let (width, height) = (u16::try_from(next(120)).unwrap(), u16::try_from(next(6)).unwrap());
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        let cursor = editor.draw(area, &mut buf, &Theme::dark());
        assert!(area.is_empty() || area.contains(cursor), "step {step}: {cursor:?} in {area:?}");
        editor.draw_candidates(area, &mut buf, &Theme::dark());
    }
}

fn offered(line: &str) -> Editor {
    let mut editor = typed(line);
    assert_eq!(editor.handle(key(KeyCode::Tab)), Outcome::Complete);
    let (line, cursor) = editor.completable().unwrap();
    let folder = std::path::Path::new("/nonexistent");
    editor.offer(complete(&line, cursor, &Context { sessions: &[], folder, home: None }));
    editor
}

#[test]
fn tab_goes_round_the_candidates() {
    let editor = offered("/he");
    assert_eq!((editor.text().as_str(), editor.candidates().len()), ("/help", 0));

    let mut editor = offered("/s");
    let labels: Vec<_> = editor.candidates().iter().map(|one| one.label.clone()).collect();
    assert_eq!(labels, ["/system", "/set", "/save", "/stats"]);
    for (code, wanted, place) in [
        (KeyCode::Tab, "/set ", 1),
        (KeyCode::BackTab, "/system ", 0),
        (KeyCode::BackTab, "/stats ", 3),
        (KeyCode::Tab, "/system ", 0),
    ] {
        assert_eq!(editor.handle(key(code)), Outcome::Changed);
        assert_eq!((editor.text().as_str(), editor.selected()), (wanted, Some(place)));
    }
    let area = Rect::new(0, 0, 60, 2);
    let mut buf = Buffer::empty(area);
    press(&mut editor, &[key(KeyCode::BackTab)]);
    editor.draw_candidates(area, &mut buf, &Theme::dark());
    let row = |y: u16| (0..60).map(|x| buf[(x, y)].symbol()).collect::<String>();
    assert_eq!(row(0).trim_end(), "/save    save the session");
    assert_eq!(row(1).trim_end(), "/stats   show or hide the numbers", "the selected one is shown");

    // Esc takes it back, another key goes on from it.
    assert_eq!(editor.handle(key(KeyCode::Esc)), Outcome::Changed);
    assert_eq!((editor.text().as_str(), editor.selected()), ("/s", None));
    assert_eq!(editor.handle(key(KeyCode::Esc)), Outcome::Ignored, "the next one is not ours");
    let mut editor = offered("/c");
    press(&mut editor, &[key(KeyCode::Tab)]);
    type_in(&mut editor, "all");
    assert_eq!((editor.text().as_str(), editor.candidates().len()), ("/copy all", 0));
    assert_eq!(submitted(&mut editor), "/copy all");
    press(&mut editor, &[control('_'); 20]);
    assert_eq!(editor.text(), "", "undo leads through it");

    // Typing shows candidates without choosing one.
    let mut editor = typed("/");
    let (line, cursor) = editor.completable().unwrap();
    let folder = std::path::Path::new("/nonexistent");
    editor.suggest(complete(&line, cursor, &Context { sessions: &[], folder, home: None }));
    assert_eq!((editor.text().as_str(), editor.selected()), ("/", None));
    assert_eq!(editor.candidates().len(), 16);
    press(&mut editor, &[key(KeyCode::Tab)]);
    assert_eq!((editor.text().as_str(), editor.selected()), ("/help", Some(0)));

    // What completion leaves alone.
    for text in ["hello", "", "/help\nme"] {
        assert_eq!(typed(text).completable(), None, "{text:?}");
        assert_eq!(typed(text).handle(key(KeyCode::Tab)), Outcome::Ignored, "{text:?}");
    }
    let mut editor = typed("/nonsense");
    assert_eq!(editor.handle(key(KeyCode::Tab)), Outcome::Complete);
    editor.offer(Vec::new());
    assert_eq!((editor.text().as_str(), editor.candidates().len()), ("/nonsense", 0));
}

#[test]
fn the_placeholder_shows_while_there_is_no_text() {
    let mut editor = Editor::new(Vec::new(), "Ask anything, /help for commands");
    let (rows, cursor) = drawn(&mut editor, 12, 2);
    assert_eq!((rows[0].as_str(), cursor), ("Ask anything", Position { x: 0, y: 0 }));
    assert_eq!(editor.height(12, 5), 1);
    type_in(&mut editor, "x");
    assert_eq!(drawn(&mut editor, 12, 1).0, ["x"]);
}
