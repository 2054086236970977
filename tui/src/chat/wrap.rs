//! Breaks styled text into lines of a terminal.
//!
//! What is counted and never split is a grapheme cluster (UAX #29), as wide as ratatui draws it: an
//! emoji of several persons is one of two columns. Lines break at spaces and between East Asian
//! characters, there with the commonest rules of kinsoku: no line begins with closing punctuation
//! or ends with an opening bracket. A word that is longer than a line is broken where the line
//! ends.

use ratatui::buffer::CellWidth;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;

/// Text with styles; `\n` in it is a line end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    text: String,
    /// Where each style ends, in bytes, in ascending order; the last one is the text's length.
    runs: Vec<(usize, Style)>,
}

impl Text {
    /// `text` in one style.
    #[must_use]
    pub fn of(text: &str, style: Style) -> Self {
        let mut all = Self::default();
        all.push(text, style);
        all
    }

    /// Appends `text` in `style`.
    pub fn push(&mut self, text: &str, style: Style) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        match self.runs.last_mut() {
            Some((last_end, last)) if *last == style => *last_end = end,
            _ => self.runs.push((end, style)),
        }
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends another text.
    pub fn append(&mut self, other: &Self) {
        let mut begin = 0;
        for &(end, style) in &other.runs {
            self.push(&other.text[begin..end], style);
            begin = end;
        }
    }

    /// Removes the line end at the end, if one is there.
    pub fn pop_line_end(&mut self) {
        if self.text.ends_with('\n') {
            self.text.pop();
            let end = self.text.len();
            let before = self.runs.len().checked_sub(2).map_or(0, |index| self.runs[index].0);
            match self.runs.last_mut() {
                Some(last) if before < end => last.0 = end,
                _ => drop(self.runs.pop()),
            }
        }
    }

    /// Columns of the widest line, unwrapped.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.text.split('\n').map(columns).max().unwrap_or(0)
    }

    /// The grapheme clusters, line ends among them. One takes the style of its first character.
    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut runs = self.runs.iter();
        let (mut end, mut style) = runs.next().copied().unwrap_or_default();
        let mut place = 0;
        graphemes(&self.text).map(move |text| {
            while place >= end {
                let Some(next) = runs.next() else { break };
                (end, style) = *next;
            }
            place += text.len();
            Cell { text, columns: width(text), style }
        })
    }
}

/// A grapheme cluster.
#[derive(Debug, Clone, Copy)]
struct Cell<'t> {
    text: &'t str,
    columns: usize,
    style: Style,
}

impl Cell<'_> {
    /// Whether it is a space at which a line may end. No-break spaces are none.
    fn is_space(&self) -> bool {
        let no_break = ["\u{a0}", "\u{2007}", "\u{202f}"];
        self.text.chars().all(char::is_whitespace) && !no_break.contains(&self.text)
    }
}

/// Columns that ratatui draws `text` in, in a line of its own.
#[must_use]
pub fn columns(text: &str) -> usize {
    graphemes(text).map(width).sum()
}

fn width(grapheme: &str) -> usize {
    match grapheme.as_bytes() {
        [b' '..=b'~'] => 1,
        // Ratatui draws no control character, and does not like to be asked for its width.
        _ if grapheme.contains(char::is_control) => 0,
        _ => grapheme.cell_width().into(),
    }
}

/// Grapheme clusters of `text`. Most text is ASCII, where each byte is one.
fn graphemes(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let length = match rest.as_bytes() {
            [] => return None,
            [first, second, ..] if first.is_ascii() && second.is_ascii() && *first != b'\r' => 1,
            _ => rest.graphemes(true).next().map_or(rest.len(), str::len),
        };
        let (grapheme, others) = rest.split_at(length);
        rest = others;
        Some(grapheme)
    })
}

/// Breaks `text` at words into lines of at most `width` columns (0 counts as 1). Only a line that
/// consists of a single grapheme cluster can be wider.
///
/// Spaces at the end of a line are dropped. Those at the beginning of a line of the text are kept,
/// up to half of the width. Text without any character is one empty line.
#[must_use]
pub fn words(text: &Text, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    each_line(text, |cells| break_words(cells, width.max(1), &mut lines));
    lines
}

/// Breaks `text` wherever a line of `width` columns is full, and keeps all spaces: for code. Every
/// line but the first of a line of the text has `hanging` columns less, for a mark before it; a
/// width of 0 counts as 1. Each item is the lines that one line of the text became.
#[must_use]
pub fn hard(text: &Text, width: usize, hanging: usize) -> Vec<Vec<Line<'static>>> {
    let mut all = Vec::new();
    each_line(text, |cells| {
        let mut lines = Vec::new();
        let (mut start, mut used, mut room) = (0, 0, width.max(1));
        for (index, cell) in cells.iter().enumerate() {
            if used + cell.columns > room && index > start && cell.columns > 0 {
                lines.push(line(&cells[start..index]));
                (start, used, room) = (index, 0, width.saturating_sub(hanging).max(1));
            }
            used += cell.columns;
        }
        lines.push(line(&cells[start..]));
        all.push(lines);
    });
    all
}

/// Calls `each` with every line of `text`, at least once.
fn each_line(text: &Text, mut each: impl FnMut(&[Cell<'_>])) {
    let mut cells = Vec::new();
    for cell in text.cells() {
        if matches!(cell.text, "\n" | "\r\n") {
            each(&cells);
            cells.clear();
        } else {
            cells.push(cell);
        }
    }
    each(&cells);
}

fn break_words(cells: &[Cell<'_>], width: usize, lines: &mut Vec<Line<'static>>) {
    let indent = cells.iter().take_while(|cell| cell.is_space()).count();
    let (mut start, mut used) = (indent, 0);
    while start > 0 && used + cells[start - 1].columns <= width / 2 {
        (start, used) = (start - 1, used + cells[start - 1].columns);
    }
    let (mut index, mut used) = (start, 0);
    let mut opportunity = None;
    while let Some(cell) = cells.get(index) {
        if cell.is_space() {
            // Spaces hang over the end of the line.
            (index, used) = (index + 1, used + cell.columns);
            continue;
        }
        if index > start.max(indent) && may_break(&cells[index - 1], cell) {
            opportunity = Some(index);
        }
        // What has no width stays with what stands before it, unless that is a space over the end.
        let is_mark = cell.columns == 0 && !(index > start && cells[index - 1].is_space());
        let is_full = used + cell.columns > width && !is_mark;
        if is_full && index == indent && index > start {
            // A wide character after an indent: better without than with an empty line.
            (start, used) = (index, 0);
        } else if is_full && index > start {
            let next = opportunity.take().unwrap_or(index);
            lines.push(line(trimmed(&cells[start..next])));
            (start, index, used) = (next, next, 0);
            continue;
        }
        (index, used) = (index + 1, used + cell.columns);
    }
    lines.push(line(trimmed(&cells[start..])));
}

/// Without the spaces at the end.
fn trimmed<'c, 't>(cells: &'c [Cell<'t>]) -> &'c [Cell<'t>] {
    let spaces = cells.iter().rev().take_while(|cell| cell.is_space()).count();
    &cells[..cells.len() - spaces]
}

/// Whether a line may end between two neighbours, of which the second is no space.
fn may_break(before: &Cell<'_>, after: &Cell<'_>) -> bool {
    const CLOSING: &str = "、。，．・：；？！）」』】〉》〕｝〙〗ー々…‥ぁぃぅぇぉっゃゅょァィゥェォッャュョ,.!?:;)]}'\"%";
    const OPENING: &str = "（「『【〈《〔｛〘〖([{";
    let begins = |cell: &Cell<'_>, list: &str| {
        cell.text.chars().next().is_some_and(|first| list.contains(first))
    };
    let is_wide = before.columns > 1 || after.columns > 1;
    before.is_space() || (is_wide && !begins(after, CLOSING) && !begins(before, OPENING))
}

/// A line of `cells`, neighbours of one style together.
fn line(cells: &[Cell<'_>]) -> Line<'static> {
    let spans = cells.chunk_by(|left, right| left.style == right.style).map(|cells| {
        let text: String = cells.iter().map(|cell| cell.text).collect();
        Span::styled(text, cells[0].style)
    });
    Line::from(spans.collect::<Vec<_>>())
}
