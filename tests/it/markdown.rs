//! Answers as lines: nothing is wider than the screen, nothing is lost, and what is complete stays.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use tercet::chat::markdown::{Form, Look, Rendered, Stage, lines, raw_lines};
use tercet::chat::theme::Theme;
use tercet::chat::wrap::{self, Text, columns};
use tercet::clean::clean;
use tercet_tests::hostile::{HOSTILE, forbidden};

fn snapshots() -> PathBuf {
    tercet_tests::tree().join("tests/snapshots")
}

fn document() -> String {
    clean(&fs::read_to_string(snapshots().join("markdown.md")).unwrap())
}

/// Texts of many scripts. None has a mark of Markdown in it, nor an empty line.
fn texts() -> [(&'static str, String); 10] {
    [
        ("Latin", "The quick brown fox jumps over the lazy dog, twice; Füße, naïve, Łódź.".into()),
        (
            "CJK",
            "吾輩は猫である。名前はまだ無い。「どこで生れたか」とんと見当がつかぬ。한국어도 中文"
                .into(),
        ),
        ("emoji", "👩‍👩‍👧‍👦👨‍👩‍👧 a 🇩🇪🇫🇷 b 👍🏽👍🏿 c 1️⃣2️⃣ d ❤️‍🔥 🏳️‍🌈".into()),
        (
            "marks",
            "e\u{301}e\u{301}\u{302} n\u{303} Z\u{335}a\u{336}l\u{337}g\u{338}o नमस्ते क्षि ก็ เนื้อ"
                .into(),
        ),
        ("Hebrew", "בראשית ברא אלהים את השמים ואת הארץ".into()),
        ("Arabic", "بسم الله الرحمن الرحيم لا إله إلا الله".into()),
        ("tabs", clean("a\tb\n\u{1100}\u{1161}\tc\nlonger\tlast\tx")),
        ("long words", format!("{} and {}", "x".repeat(250), "世".repeat(90))),
        ("code", "fn main() { let x = f(a, b); println!(\"{x:?}\"); }".into()),
        ("mixed", "Rust言語はfastで、safe。ﾊﾟﾋﾟ ｱﾞ\u{a0}no\u{a0}break e.g.世界(wide)end".into()),
    ]
}

fn text_of(line: &Line<'_>) -> String {
    line.spans.iter().map(|span| span.content.as_ref()).collect()
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// That every line fits, as ratatui draws it: it leaves out only what has no width.
#[track_caller]
fn assert_fits(lines: &[Line<'_>], width: u16, what: &str) {
    for line in lines {
        let text = text_of(line);
        assert!(!text.contains('\n') && forbidden(&text).is_none(), "{what}: {text:?}");
        if columns(&text) > usize::from(width) {
            // One character that is wider than the whole line.
            assert_eq!(visible(line).count(), 1, "{what} at {width}: {text:?}");
            continue;
        }
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, 1));
        buffer.set_line(0, 0, line, width);
        let (mut drawn, mut skip) = (String::new(), 0);
        for cell in buffer.content() {
            if skip == 0 {
                drawn.push_str(cell.symbol());
            }
            skip = columns(cell.symbol()).max(skip).saturating_sub(1);
        }
        let visible: String = visible(line).collect();
        assert_eq!(drawn.trim_end(), visible.trim_end(), "{what} at {width}");
    }
}

/// The grapheme clusters that have a width.
fn visible<'l>(line: &'l Line<'_>) -> impl Iterator<Item = &'l str> {
    let symbols = line.spans.iter().flat_map(|span| span.styled_graphemes(Style::new()));
    symbols.map(|grapheme| grapheme.symbol).filter(|symbol| columns(symbol) > 0)
}

#[test]
fn every_width_holds_every_text() {
    let theme = Theme::plain();
    for (name, text) in texts() {
        for width in 1..=120 {
            let raw = raw_lines(&text, width, &theme);
            assert_fits(&raw, width, name);
            let shown: String = raw.iter().map(text_of).collect();
            assert_eq!(squeezed(&shown), squeezed(&text), "{name} at {width}");
            assert!(raw.len() <= text.chars().count() + 1, "{name} at {width}");

            let marked = lines(&text, width, &theme);
            assert_fits(&marked, width, name);
            let shown: String = marked.iter().map(text_of).collect();
            assert_eq!(squeezed(&shown), squeezed(&text), "{name} at {width}, Markdown");

            let code = wrap::hard(&Text::of(&text, theme.code), width.into(), 0);
            let shown: Vec<_> = code.concat();
            assert_fits(&shown, width, name);
            let shown: String = shown.iter().map(text_of).collect();
            assert_eq!(shown, text.replace('\n', ""), "{name} at {width}, code");
        }
    }
}

#[test]
fn every_width_holds_the_document() {
    let document = document();
    for theme in [Theme::plain(), Theme::dark(), Theme::light(), Theme::basic()] {
        let whole: String = lines(&document, 500, &theme).iter().map(text_of).collect();
        let letters = |text: &str| text.replace(|c: char| !c.is_alphanumeric(), "");
        for width in 1..=120 {
            let rendered = lines(&document, width, &theme);
            assert_fits(&rendered, width, "the document");
            let shown: String = rendered.iter().map(text_of).collect();
            if width >= 60 {
                // Cells of tables are side by side; below, rows are.
                assert_eq!(letters(&shown).len(), letters(&whole).len(), "at {width}");
            }
            for word in ["Ternary", "deeper", "三", "arxiv", "definition", "HTML"] {
                let shown = squeezed(&shown);
                assert!(shown.contains(word), "`{word}` at {width}: {shown}");
            }
        }
    }
}

/// The document at three widths. Its styles are looked at below.
#[test]
fn the_document_looks_as_recorded() {
    for width in [20, 60, 100] {
        let mut shown = String::new();
        for line in lines(&document(), width, &Theme::dark()) {
            let text = text_of(&line);
            shown += text.trim_end();
            shown.push('\n');
        }
        let path = snapshots().join(format!("markdown-{width}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &shown).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert_eq!(shown, expected, "at {width}; UPDATE=1 writes {}", path.display());
    }
}

/// Words of the document in their styles.
#[test]
fn marks_become_styles() {
    let theme = Theme::dark();
    let rendered = lines(&document(), 100, &theme);
    let style = |word: &str| {
        let mut spans = rendered.iter().flat_map(|line| &line.spans);
        let span = spans.find(|span| span.content.contains(word));
        span.unwrap_or_else(|| panic!("no `{word}`")).style
    };
    assert_eq!(style("trit"), theme.text.add_modifier(Modifier::ITALIC));
    assert_eq!(style("three"), theme.text.add_modifier(Modifier::BOLD));
    assert_eq!(style("1.6 bits"), theme.text.add_modifier(Modifier::BOLD | Modifier::ITALIC));
    assert_eq!(style("two"), theme.text.add_modifier(Modifier::CROSSED_OUT));
    assert_eq!(style("-1"), theme.code);
    assert_eq!(style("fn dot"), theme.code);
    assert_eq!(style("Formats"), theme.accent);
    assert_eq!(style("Ternary weights"), theme.accent.add_modifier(Modifier::UNDERLINED));
    assert_eq!(style("the paper"), theme.text.add_modifier(Modifier::UNDERLINED));
    assert_eq!(style("(https://arxiv"), theme.dim);
    assert_eq!(style("format"), theme.text.add_modifier(Modifier::BOLD));
    // Without colours code is between backticks.
    let plain = lines("a `b` c", 40, &Theme::plain());
    assert_eq!(text_of(&plain[0]), "a `b` c");
}

#[test]
fn line_ends_and_definitions_stay() {
    let show = |text: &str| -> Vec<String> {
        let lines = lines(text, 40, &Theme::dark());
        lines.iter().map(|line| text_of(line).trim_end().to_owned()).collect()
    };
    assert_eq!(show("one\ntwo\n\n\nthree"), ["one", "two", "", "three"]);
    assert_eq!(show("see [a]\n\n[a]: b\n[c]: d"), ["see [a]", "", "[a]: b", "[c]: d"]);
    assert_eq!(show("- x\n\n  [a]: b\n- y"), ["• x", "", "  [a]: b", "• y"]);
    assert_eq!(show("1. a\n1. b\n\n3) c"), ["1. a", "2. b", "", "3. c"]);
    assert_eq!(show("-\n- x"), ["•", "• x"]);
    assert_eq!(show("```\n  a\n\n   b\n```"), ["    a", "", "     b"]);
    assert_eq!(show("<think>\nso\n</think>"), ["<think>", "so", "</think>"]);
    assert_eq!(show(""), [""; 0]);
    assert_eq!(raw_lines("a\n\nb", 9, &Theme::dark()).len(), 3);
    assert_eq!(text_of(&raw_lines("    a  b ", 9, &Theme::dark())[0]), "    a  b");
}

/// Markdown has ways of its own to spell a control character.
#[test]
fn entities_are_cleaned() {
    let theme = Theme::dark();
    for hostile in HOSTILE {
        let entities = |text: &str| -> String {
            text.chars().map(|c| format!("&#{};", u32::from(c))).collect()
        };
        let spelt = entities(hostile.text);
        for text in [
            spelt.clone(),
            format!("# {spelt}\n- *{spelt}*\n> {spelt}"),
            format!("[{spelt}](https://{spelt} \"{spelt}\")\n\n![{spelt}](x)"),
            format!("```{spelt}\ncode\n```\n\n|{spelt}|\n|-|\n|{spelt}|"),
            format!("<b {}>", hostile.text),
        ] {
            for line in lines(&text, 60, &theme) {
                assert_eq!(forbidden(&text_of(&line)), None, "{}", hostile.name);
            }
        }
    }
}

fn look(width: u16) -> Look {
    Look { width, theme: Theme::dark(), form: Form::Markdown }
}

/// Every prefix of `text`: rendered piece by piece it is what it is when rendered at once, and no
/// line changes that stands above the last block.
#[track_caller]
fn assert_grows(text: &str, width: u16) {
    let mut growing = Rendered::default();
    let mut settled: Vec<Line<'static>> = Vec::new();
    for (place, c) in text.char_indices() {
        let prefix = &text[..place + c.len_utf8()];
        growing.update(prefix, look(width), Stage::Growing);
        let mut fresh = Rendered::default();
        fresh.update(prefix, look(width), Stage::Growing);
        assert_eq!(growing.lines(), fresh.lines(), "{prefix:?}");
        assert_fits(growing.lines(), width, prefix);
        assert!(growing.lines().starts_with(&settled), "{prefix:?}: a settled line changed");
        settled = growing.lines()[..growing.settled_lines()].to_vec();
        let mut complete = growing.clone();
        complete.update(prefix, look(width), Stage::Complete);
        assert_eq!(complete.lines(), lines(prefix, width, &Theme::dark()), "{prefix:?}");
    }
}

#[test]
fn every_prefix_of_the_document_is_readable() {
    for width in [20, 60] {
        assert_grows(&document(), width);
    }
}

/// What is bold stays bold while it is written, and no mark flashes up.
#[test]
fn no_mark_shows_while_a_line_is_written() {
    let text =
        "So:\n\n- **bold** and `code`, *so*\n- __x__ ~~y~~\n\n## Head\n\n```rust\nlet x;\n```\n";
    let mut growing = Rendered::default();
    for (place, _) in text.char_indices() {
        growing.update(&text[..place], look(60), Stage::Growing);
        let shown: String = growing.lines().iter().map(text_of).collect();
        assert!(!shown.contains(['*', '`', '~', '_', '#', '-']), "{:?}: {shown}", &text[..place]);
    }
}

#[test]
fn another_text_or_look_starts_anew() {
    let mut rendered = Rendered::default();
    let show = |rendered: &Rendered| rendered.lines().iter().map(text_of).collect::<Vec<_>>();
    rendered.update("a\n\nb\n\nc", look(60), Stage::Growing);
    rendered.update("x\n\ny", look(60), Stage::Growing);
    assert_eq!(show(&rendered), ["x", "", "y"]);
    rendered.update("x\n\ny z", look(1), Stage::Growing);
    assert_eq!(show(&rendered), ["x", "", "y", "z"]);
    rendered.update("", look(1), Stage::Growing);
    assert!(rendered.lines().is_empty());
    let raw = Look { form: Form::Raw, ..look(60) };
    let text = "# a\n\n**b\n  c";
    for (place, _) in text.char_indices() {
        rendered.update(&text[..place], raw, Stage::Growing);
        assert_eq!(rendered.lines(), raw_lines(&text[..place], 60, &Theme::dark()));
    }
    assert_eq!(show(&rendered), ["# a", "", "**b", "  "].map(str::trim_end));
}

/// The shortest of five times that `work` takes.
fn milliseconds(mut work: impl FnMut()) -> f64 {
    let time = |()| {
        let begin = Instant::now();
        work();
        begin.elapsed().as_secs_f64() * 1e3
    };
    [(); 5].map(time).into_iter().fold(f64::INFINITY, f64::min)
}

/// A frame may take 33 ms, and what people write takes a few. What is made to be slow takes so many
/// times as long, but not the square: that would be seconds. Times are compared with each other,
/// because the machine that tests run on may be busy.
#[test]
fn long_answers_are_rendered_soon() {
    const BYTES: usize = 64 << 10;
    let filled = |text: &str| {
        let repeated = text.repeat(BYTES / text.len() + 1);
        let end = (0..=BYTES).rev().find(|&end| repeated.is_char_boundary(end)).unwrap();
        repeated[..end].to_owned()
    };
    let document = filled(&document());
    let usual = milliseconds(|| drop(lines(&document, 100, &Theme::dark())));
    for (name, text) in [
        ("documents", document.clone()),
        ("one paragraph", filled("Lorem *ipsum* dolor sit `amet`, consectetur. ")),
        ("one block of code", "```\n".to_owned() + &filled("    let x = f(a, b);\n")),
        ("one list", filled("- an item of a list\n")),
        ("Chinese", filled("吾輩は猫である。")),
        ("emoji", filled("👩‍👩‍👧‍👦👍🏽")),
        ("a table", "|a|b|\n|-|-|\n".to_owned() + &filled("| cell | another cell |\n")),
        ("asterisks", filled("*a **b ")),
        ("brackets", filled("[")),
        ("backticks", filled("` `` ``` a ")),
        ("quotes in quotes", filled(">") + "a"),
        ("lines in quotes", filled(&(">".repeat(500) + "a\n"))),
        ("lists in lists", filled("- ") + "a"),
        ("numbers in lists", filled(&("1. ".repeat(200) + "a\n"))),
    ] {
        let whole = milliseconds(|| drop(lines(&text, 100, &Theme::dark())));
        let mut growing = Rendered::default();
        let half = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
        growing.update(&text[..half], look(100), Stage::Growing);
        let update = milliseconds(|| {
            let mut growing = growing.clone();
            growing.update(&text, look(100), Stage::Growing);
        });
        let mut growing = Rendered::default();
        growing.update(&text[..half], look(100), Stage::Growing);
        let mut end = half;
        let token = milliseconds(|| {
            end += text[end..].chars().take(4).map(char::len_utf8).sum::<usize>();
            growing.update(&text[..end], look(100), Stage::Growing);
        });
        println!("{name}: whole {whole:.2} ms, half {update:.2} ms, a token more {token:.3} ms");
        assert!(
            whole < 300.0 && update < 300.0 && token < 150.0,
            "{name}: {whole} {update} {token}"
        );
    }
    // From the first token to the last, a frame for each.
    let mut growing = Rendered::default();
    let mut worst: f64 = 0.0;
    let begin = Instant::now();
    for (place, _) in document.char_indices().step_by(4) {
        let begin = Instant::now();
        growing.update(&document[..place], look(100), Stage::Growing);
        worst = worst.max(begin.elapsed().as_secs_f64() * 1e3);
    }
    let total = begin.elapsed().as_secs_f64() * 1e3;
    println!("streamed: {total:.0} ms, worst frame {worst:.2} ms");
    // Sixteen thousand frames, of which each would take as long if nothing were settled.
    assert!(total < 1000.0 * usual, "{total} ms, usually {usual} ms");
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// Pieces that Markdown is made of.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "word ",
        "long sentence of many words ",
        " ",
        "  ",
        "    ",
        "\n",
        "\n\n",
        "\n",
        "*",
        "**",
        "_",
        "`",
        "``",
        "```",
        "~~",
        "~~~",
        "# ",
        "## ",
        "- ",
        "* ",
        "1. ",
        "10) ",
        "> ",
        ">",
        "|",
        "|-",
        "|-|-|",
        "---",
        "===",
        "[",
        "]",
        "](",
        ")",
        "[a]: b",
        "<b>",
        "<div>",
        "<!--",
        "&amp;",
        "\\",
        "世界",
        "👩‍👩‍👧",
        "e\u{301}",
        "\u{301}",
        "שלום",
        "!",
        "http://x.y",
        "- [ ] ",
        "\u{200d}",
    ])
}

proptest! {
    #![proptest_config(config(3000))]

    /// Any Markdown at any width, at every prefix of its pieces.
    #[test]
    fn any_markdown_is_rendered(
        pieces in prop::collection::vec(piece(), 0..24), width in 1_u16..40
    ) {
        let mut growing = Rendered::default();
        let mut text = String::new();
        let mut settled: Vec<Line<'static>> = Vec::new();
        for piece in pieces {
            text += piece;
            growing.update(&text, look(width), Stage::Growing);
            assert_fits(growing.lines(), width, &text);
            prop_assert!(growing.lines().starts_with(&settled), "{:?}", text);
            settled = growing.lines()[..growing.settled_lines()].to_vec();
        }
        growing.update(&text, look(width), Stage::Complete);
        prop_assert_eq!(growing.lines(), lines(&text, width, &Theme::dark()), "{:?}", text);
        // Letters are never lost.
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
        let shown: String = growing.lines().iter().map(text_of).collect();
        let hidden = text.matches("&amp;").count() * 3;
        prop_assert!(letters(&shown) + hidden >= letters(&text), "{:?} became {:?}", text, shown);
    }

    /// Any characters.
    #[test]
    fn any_text_is_wrapped(text in "\\PC{0,80}", width in 1_u16..30) {
        let text = clean(&text);
        let raw = raw_lines(&text, width, &Theme::plain());
        let shown: String = raw.iter().map(text_of).collect();
        prop_assert_eq!(squeezed(&shown), squeezed(&text));
        for line in &raw {
            prop_assert!(visible(line).count() == 1 || columns(&text_of(line)) <= width.into(), "{:?}", line);
        }
        // Not in a quote or a list, whose marks take columns, too.
        assert_fits(&lines(&format!("x{text}"), width, &Theme::plain()), width, &text);
    }
}
