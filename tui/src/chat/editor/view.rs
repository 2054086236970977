//! Lines, wrapped into rows and drawn.

use core::ops::Range;

use ratatui::buffer::{Buffer, CellWidth};
use ratatui::layout::{Position, Rect};
use unicode_segmentation::UnicodeSegmentation;

use super::super::theme::Theme;
use super::byte;
use super::folds::Folds;

/// Cells from one tab stop to the next.
const TAB: usize = 4;

/// A row of cells: a part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Index of the line.
    line: usize,
    /// Bytes of the line.
    bytes: Range<usize>,
}

/// What is remembered between two drawings.
#[derive(Debug)]
pub(super) struct View {
    /// Rows of the text, and the width for which they were made; `None` after a change.
    rows: Option<(u16, Vec<Row>)>,
    /// Columns when last drawn or measured.
    width: u16,
    /// First row that is drawn.
    top: usize,
    /// Column to which Up and Down return.
    goal: Option<usize>,
}

impl Default for View {
    fn default() -> Self {
        // Until somebody draws, a line is a row.
        Self { rows: None, width: u16::MAX, top: 0, goal: None }
    }
}

impl View {
    /// The text or the cursor changed, by Up or Down if `vertical`.
    pub(super) fn changed(&mut self, vertical: bool) {
        self.rows = None;
        if !vertical {
            self.goal = None;
        }
    }

    /// The rows at `width` columns; at least one.
    pub(super) fn rows(&mut self, lines: &[String], folds: &Folds, width: u16) -> &[Row] {
        self.width = width;
        let fits = self.rows.as_ref().is_some_and(|(made_for, _)| *made_for == width);
        if !fits {
            self.rows = None;
        }
        let (_, rows) = self.rows.get_or_insert_with(|| {
            let mut rows = Vec::new();
            for (line, text) in lines.iter().enumerate() {
                rows.extend(wrap(text, folds, width).into_iter().map(|bytes| Row { line, bytes }));
            }
            (width, rows)
        });
        rows
    }

    /// Where the cursor goes by one row up: line and character. `None` on the first row.
    pub(super) fn above(
        &mut self,
        lines: &[String],
        folds: &Folds,
        cursor: (usize, usize),
    ) -> Option<(usize, usize)> {
        self.by_row(lines, folds, cursor, |row| row.checked_sub(1))
    }

    /// Where the cursor goes by one row down. `None` on the last row.
    pub(super) fn below(
        &mut self,
        lines: &[String],
        folds: &Folds,
        cursor: (usize, usize),
    ) -> Option<(usize, usize)> {
        self.by_row(lines, folds, cursor, |row| Some(row + 1))
    }

    fn by_row(
        &mut self,
        lines: &[String],
        folds: &Folds,
        (line, column): (usize, usize),
        step: impl Fn(usize) -> Option<usize>,
    ) -> Option<(usize, usize)> {
        let width = self.width;
        let rows = self.rows(lines, folds, width);
        let at = byte(&lines[line], column);
        let row = row_of(rows, line, at);
        let here = rows[row].bytes.clone();
        let to = rows.get(step(row)?)?.clone();
        let x = cells(&lines[line][here.start..at], folds, width);
        let goal = *self.goal.get_or_insert(x);
        let text = &lines[to.line];
        let mut to_byte = to.bytes.start;
        let mut x = 0;
        for cluster in text[to.bytes.clone()].graphemes(true) {
            x += cell_width(cluster, x, folds, width);
            let ends = to_byte + cluster.len();
            // The end of a row is the beginning of the next, unless the line ends there.
            if x > goal || ends == to.bytes.end && ends < text.len() {
                break;
            }
            to_byte = ends;
        }
        Some((to.line, text[..to_byte].chars().count()))
    }

    /// Draws the rows round the cursor; gives its place. `area` is not empty.
    pub(super) fn draw(
        &mut self,
        lines: &[String],
        folds: &Folds,
        (line, column): (usize, usize),
        area: Rect,
        buf: &mut Buffer,
        theme: &Theme,
    ) -> Position {
        let mut top = self.top;
        let rows = self.rows(lines, folds, area.width);
        let at = byte(&lines[line], column);
        let row = row_of(rows, line, at);
        let height = usize::from(area.height);
        // The cursor's row is shown, and no row is empty that could show text.
        top = top.clamp((row + 1).saturating_sub(height), row);
        top = top.min(rows.len().saturating_sub(height));
        for (row, y) in rows[top..].iter().zip(area.top()..area.bottom()) {
            draw_row(&lines[row.line][row.bytes.clone()], folds, (area.x, y), area, buf, theme);
        }
        let x = cells(&lines[line][rows[row].bytes.start..at], folds, area.width);
        self.top = top;
        let within = |place: usize, size: u16| u16::try_from(place).unwrap_or(size).min(size - 1);
        Position { x: area.x + within(x, area.width), y: area.y + within(row - top, area.height) }
    }
}

fn draw_row(
    text: &str,
    folds: &Folds,
    (left, y): (u16, u16),
    area: Rect,
    buf: &mut Buffer,
    theme: &Theme,
) {
    let mut x = 0;
    for cluster in text.graphemes(true) {
        let width = cell_width(cluster, x, folds, area.width);
        let Some(room) = usize::from(area.width).checked_sub(x).filter(|room| *room > 0) else {
            break;
        };
        let (shown, style) = match folds.label(cluster) {
            Some(label) => (label, theme.accent),
            None if cluster == "\t" => ("", theme.text),
            None => (cluster, theme.text),
        };
        let cell = left + u16::try_from(x).unwrap_or(area.width);
        buf.set_stringn(cell, y, shown, room, style);
        x += width;
    }
}

/// The row with byte `at` of a line; at the end of a row, the next one if it is of the same line.
fn row_of(rows: &[Row], line: usize, at: usize) -> usize {
    let after = rows.partition_point(|row| (row.line, row.bytes.start) <= (line, at));
    after.saturating_sub(1)
}

/// Cells of a text that begins at the left edge.
fn cells(text: &str, folds: &Folds, width: u16) -> usize {
    text.graphemes(true).fold(0, |x, cluster| x + cell_width(cluster, x, folds, width))
}

/// Cells of a cluster at column `x`: what ratatui gives it; tabs reach to the next stop, and the
/// label of a fold is cut to a row.
fn cell_width(cluster: &str, x: usize, folds: &Folds, width: u16) -> usize {
    if cluster == "\t" {
        return TAB - x % TAB;
    }
    if let Some(label) = folds.label(cluster) {
        return label.len().min(width.into());
    }
    // Ratatui draws no control characters.
    if cluster.contains(char::is_control) { 0 } else { cluster.cell_width().into() }
}

/// The parts of a line that rows of `width` cells hold; at least one, in order, without gaps.
///
/// Breaks after white space and around wide characters; within a word only if it is longer than a
/// row. White space that does not fit hangs over the edge. Where the last row is full, an empty one
/// follows, in which the cursor can stand.
fn wrap(line: &str, folds: &Folds, width: u16) -> Vec<Range<usize>> {
    let room = usize::from(width.max(1));
    let mut rows = Vec::new();
    let (mut start, mut x) = (0, 0);
    let mut break_at = None;
    for (at, cluster) in line.grapheme_indices(true) {
        let end = at + cluster.len();
        let mut cells = cell_width(cluster, x, folds, width);
        let space = cluster.chars().all(char::is_whitespace);
        let stands_alone = cells > 1;
        if stands_alone && !space {
            break_at = Some(at);
        }
        if !space && x > 0 && x + cells > room {
            if let Some(place) = break_at.filter(|place| *place > start) {
                rows.push(start..place);
                start = place;
                x = self::cells(&line[start..at], folds, width);
            }
            if x > 0 && x + cells > room {
                rows.push(start..at);
                start = at;
                x = 0;
            }
            break_at = None;
            cells = cell_width(cluster, x, folds, width);
        }
        x += cells;
        if space || stands_alone {
            break_at = Some(end);
        }
    }
    rows.push(start..line.len());
    if x >= room && !line.is_empty() {
        rows.push(line.len()..line.len());
    }
    rows
}
