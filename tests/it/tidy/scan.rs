//! Rust source, taken apart just far enough to tell code from comments and strings.

/// The same text twice, each time with everything but one kind of thing blanked out. Lines keep
/// their numbers.
pub(super) struct Source {
    /// Without comments and without what stands inside of strings and characters.
    pub(super) code: String,
    /// Comments only.
    pub(super) comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Text,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let mut source = Self { code: String::new(), comments: String::new() };
        let mut rest = text;
        let mut last = ' ';
        while let Some(first) = rest.chars().next() {
            let (kind, length) = token(rest, last);
            let (token, after) = rest.split_at(length);
            for c in token.chars() {
                let keep = |wanted| if kind == wanted || c == '\n' { c } else { ' ' };
                source.code.push(keep(Kind::Code));
                source.comments.push(keep(Kind::Comment));
            }
            last = first;
            rest = after;
        }
        source
    }
}

/// Kind and length in bytes of what `rest` begins with; `last` is the character before it.
fn token(rest: &str, last: char) -> (Kind, usize) {
    let to = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return (Kind::Comment, to(rest.find('\n')));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (Kind::Text, quoted(rest, '"'));
    }
    // A raw string, unless the `r` ends a longer word; `b` and `c` before it are code.
    if rest.starts_with('r') && (!is_word(last) || matches!(last, 'b' | 'c')) {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let start = 2 + hashes;
            let close = format!("\"{}", "#".repeat(hashes));
            return (Kind::Text, to(rest[start..].find(&close).map(|at| start + at + close.len())));
        }
    }
    if let Some(after) = rest.strip_prefix('\'') {
        // A character if it is escaped or closed after one; otherwise a lifetime.
        let mut characters = after.chars();
        let first = characters.next();
        if first == Some('\\') || characters.next() == Some('\'') {
            return (Kind::Text, quoted(rest, '\''));
        }
    }
    (Kind::Code, rest.chars().next().map_or(0, char::len_utf8))
}

/// Length of a literal with escapes, both quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        let (step, change) = match here {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Identifiers and numbers of a line.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// Whether `word` stands in `line` with no letter, digit or `_` on either side.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
    })
}

/// From the first `open` at or after `at` to the `close` that belongs to it; to the end if none
/// does. `code` is free of comments and strings.
pub(super) fn block_from(code: &str, at: usize, open: char, close: char) -> &str {
    let code = &code[at..];
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close && depth > 0 {
            depth -= 1;
            if depth == 0 {
                return &code[..at];
            }
        }
    }
    code
}

#[test]
fn comments_and_strings_do_not_fool_the_scan() {
    let text = r##"
let a = "unsafe \" unsafe"; // unsafe
/* unsafe /* unsafe */ unsafe */ let b = br#"unsafe " unsafe"#;
fn f<'unsafety>(x: &'unsafety u8) -> char { '"' } // "
let c = ['\'', 'x']; unsafe { g() } /* " */ let r = "é";
unsafe_code();
"##;
    let source = Source::new(text);
    let found: Vec<usize> = source
        .code
        .lines()
        .enumerate()
        .filter(|(_, line)| has_word(line, "unsafe"))
        .map(|(index, _)| index)
        .collect();
    assert_eq!(found, [4], "{}", source.code);
    assert_eq!(source.code.lines().count(), text.lines().count());
    let comments: Vec<usize> = source.comments.lines().map(|line| words(line).count()).collect();
    assert_eq!(comments, [0, 1, 3, 0, 0, 0], "{}", source.comments);
    assert_eq!(block_from("a { b { c } d } e", 2, '{', '}'), "{ b { c } d ");
}
