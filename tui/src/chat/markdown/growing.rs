//! The end of a text that is still being written, as it will look.

use std::borrow::Cow;

/// Characters that emphasis and code are marked with.
const DELIMITERS: [char; 4] = ['*', '_', '~', '`'];

/// `text` with an end that renders as it will when more has come: emphasis and code spans that are
/// open are closed, and what may become the mark of a list, a heading, a rule or the end of a block
/// of code is left out until it is clear which. A guess, but one that costs nothing: the next piece
/// is judged anew.
pub(super) fn completed(text: &str) -> Cow<'_, str> {
    let last = text.rfind('\n').map_or(0, |place| place + 1);
    let is_indented = text[last..].starts_with("    ");
    let in_fence = is_in_fence(&text[..last]);
    // A line that begins a block of code can still turn out to be code in a line.
    let is_open = in_fence != is_in_fence(text);
    let text = if is_open || is_mark(&text[last..], in_fence) { &text[..last] } else { text };
    let is_code = is_indented || in_fence;
    let shown = text.trim_end_matches(DELIMITERS).trim_end();
    // Without the last backtick it would begin a block.
    if !is_code && is_in_fence(shown) {
        return text[..last.min(text.len())].into();
    }
    // After an empty line nothing more comes to the paragraph before it.
    if is_code || text[shown.len()..].matches('\n').count() > 1 {
        return text.into();
    }
    let closers = closers(&shown[inline_start(shown)..]);
    // A line of nothing but marks would become a rule by one more.
    let last = shown.rfind('\n').map_or(0, |place| place + 1);
    if closers.is_empty() || is_mark(&shown[last..], false) {
        return shown.into();
    }
    (shown.to_owned() + &closers).into()
}

/// Whether `line`, the last one, is nothing but what a block may begin or end with.
fn is_mark(line: &str, in_fence: bool) -> bool {
    let line = line.trim();
    if line.is_empty() {
        return false;
    }
    if in_fence {
        return ["`", "``", "~", "~~"].contains(&line);
    }
    let number = line.trim_start_matches(['>', ' ']).trim_end_matches(['.', ')']);
    line.chars().all(|c| "-+*=~`#_> \t|:".contains(c))
        || (number.len() < 10 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether `text` ends in a block of code.
fn is_in_fence(text: &str) -> bool {
    let mut open: Option<(char, usize)> = None;
    for line in text.lines() {
        let line = after_marks(line);
        let Some(mark) = line.chars().next().filter(|mark| "`~".contains(*mark)) else { continue };
        let rest = line.trim_start_matches(mark);
        let length = line.len() - rest.len();
        match open {
            None if length >= 3 && !(mark == '`' && rest.contains('`')) => {
                open = Some((mark, length));
            }
            Some((opened, at_least))
                if opened == mark && length >= at_least && rest.trim().is_empty() =>
            {
                open = None;
            }
            _ => {}
        }
    }
    open.is_some()
}

/// `line` without what makes it part of quotes and lists.
fn after_marks(line: &str) -> &str {
    let mut inner = line;
    loop {
        inner = inner.trim_start_matches([' ', '\t', '>']);
        let digits = inner.trim_start_matches(|c: char| c.is_ascii_digit());
        let bullet = if digits.len() < inner.len() {
            digits.strip_prefix(['.', ')'])
        } else {
            inner.strip_prefix(['-', '*', '+'])
        };
        match bullet.and_then(|rest| rest.strip_prefix([' ', '\t'])) {
            Some(rest) => inner = rest,
            None => return inner,
        }
    }
}

/// Where in `text` the paragraph, item, heading or row of a table begins that is its end.
fn inline_start(text: &str) -> usize {
    let mut start = text.len();
    for line in text.split_inclusive('\n').rev() {
        if line.trim().is_empty() {
            break;
        }
        start -= line.len();
        let inner = after_marks(line);
        if inner.len() < line.trim_start().len() || inner.starts_with(['#', '|']) {
            return start + (line.len() - inner.len());
        }
    }
    start
}

/// What closes the emphasis and code that `text`, one piece of inline text, leaves open.
fn closers(text: &str) -> String {
    let mut open: Vec<(char, usize)> = Vec::new();
    let (mut rest, mut before) = (text, ' ');
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let skipped: usize = rest.chars().take(2).map(char::len_utf8).sum();
            (rest, before) = (&rest[skipped..], '\\');
            continue;
        }
        if !DELIMITERS.contains(&c) {
            (rest, before) = (&rest[c.len_utf8()..], c);
            continue;
        }
        let length = rest.len() - rest.trim_start_matches(c).len();
        let after = &rest[length..];
        if c == '`' {
            let Some(end) = end_of_code(after, length) else {
                // Everything after it is code.
                open.push((c, length));
                break;
            };
            (rest, before) = (&after[end..], '`');
            continue;
        }
        let next = after.chars().next().unwrap_or(' ');
        let closes = !before.is_whitespace() && open.iter().any(|(mark, _)| *mark == c);
        // A single mark inside a word is a product, or a name, more often than emphasis.
        let is_likely = !before.is_alphanumeric() || (c == '*' && length > 1);
        if closes {
            close(&mut open, c, length);
        } else if !next.is_whitespace() && is_likely && (c != '~' || length == 2) {
            open.push((c, length.min(3)));
        }
        (rest, before) = (after, c);
    }
    open.iter().rev().flat_map(|&(mark, length)| core::iter::repeat_n(mark, length)).collect()
}

/// Where the code span ends that was opened by `length` backticks, after them.
fn end_of_code(text: &str, length: usize) -> Option<usize> {
    let mut place = 0;
    loop {
        place += text[place..].find('`')?;
        let run = text[place..].len() - text[place..].trim_start_matches('`').len();
        place += run;
        if run == length {
            return Some(place);
        }
    }
}

/// Closes `length` marks `c`, and what was opened after them.
fn close(open: &mut Vec<(char, usize)>, c: char, mut length: usize) {
    while length > 0
        && let Some(index) = open.iter().rposition(|(mark, _)| *mark == c)
    {
        let closed = open[index].1.min(length);
        length -= closed;
        open.truncate(index + 1);
        open[index].1 -= closed;
        if open[index].1 == 0 {
            open.truncate(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_emphasis_is_closed() {
        for (text, shown) in [
            ("a **bold wo", "a **bold wo**"),
            ("a **bold ", "a **bold**"),
            ("a **bold*", "a **bold**"),
            ("a **", "a"),
            ("*so", "*so*"),
            ("**a *b", "**a *b***"),
            ("**a *b*", "**a *b***"),
            ("***a", "***a***"),
            ("`let x", "`let x`"),
            ("``a ` b", "``a ` b``"),
            ("`a` and ~~b", "`a` and ~~b~~"),
            ("_a_ b", "_a_ b"),
            // Neither products nor names nor escapes.
            ("2*3 is", "2*3 is"),
            ("5 * 3", "5 * 3"),
            ("snake_case", "snake_case"),
            (r"\*no", r"\*no"),
            ("`a*b` c", "`a*b` c"),
            // The paragraph before is closed, whatever it left open.
            ("**a\n\nb", "**a\n\nb"),
            ("- **a\n- b", "- **a\n- b"),
            ("- a\n- **b", "- a\n- **b**"),
            ("| **a | b\n| c *d", "| **a | b\n| c *d*"),
        ] {
            assert_eq!(completed(text), shown, "{text:?}");
        }
    }

    #[test]
    fn marks_wait_for_what_they_mark() {
        for (text, shown) in [
            ("Items:\n-", "Items:"),
            ("Items:\n- ", "Items:"),
            ("Title\n==", "Title"),
            ("a\n1", "a"),
            ("a\n12.", "a"),
            ("a\n> ", "a"),
            ("a\n``", "a"),
            ("a\n\n#", "a\n\n"),
            ("```\ncode\n``", "```\ncode\n"),
            ("```\n- \n1", "```\n- \n1"),
            ("~~~\n``", "~~~\n"),
            ("a\n```ru", "a"),
            ("a\n```x` b", "a\n```x` b```"),
            ("```\na\n```", "```\na"),
            ("- ```\n  *a", "- ```\n  *a"),
            ("```\na\n```\n*b", "```\na\n```\n*b*"),
            ("    *args", "    *args"),
            ("in 1984", "in 1984"),
        ] {
            assert_eq!(completed(text).trim_end_matches('\n'), shown.trim_end_matches('\n'));
        }
    }
}
