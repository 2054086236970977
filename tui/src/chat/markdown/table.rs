//! Tables: columns side by side if they fit, else rows as text.

use pulldown_cmark::Alignment;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::chat::wrap::{self, Text, columns};

/// Between two columns.
const BAR: &str = " │ ";
/// Between two columns of the line under the head.
const CROSS: &str = "─┼─";
/// Narrowest column that is wrapped; one that needs less gets less.
const CELL_MIN: usize = 6;

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Table {
    alignments: Vec<Alignment>,
    /// The first is the head.
    rows: Vec<Vec<Text>>,
}

impl Table {
    pub(super) fn new(alignments: Vec<Alignment>) -> Self {
        Self { alignments, rows: Vec::new() }
    }

    /// Begins a row.
    pub(super) fn row(&mut self) {
        self.rows.push(Vec::new());
    }

    /// Adds a cell to the last row.
    pub(super) fn cell(&mut self, text: Text) {
        if let Some(row) = self.rows.last_mut() {
            row.push(text);
        }
    }

    /// The table in `room` columns; `dim` is the style of its lines.
    pub(super) fn lines(&self, room: usize, dim: Style) -> Vec<Line<'static>> {
        let Some(widths) = self.widths(room) else {
            let rows = self.rows.iter().map(|row| joined(row, dim));
            return rows.flat_map(|row| wrap::words(&row, room)).collect();
        };
        let mut lines = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            self.row_lines(row, &widths, dim, &mut lines);
            if index == 0 {
                let rules: Vec<_> = widths.iter().map(|&width| "─".repeat(width)).collect();
                lines.push(Line::styled(rules.join(CROSS), dim));
            }
        }
        lines
    }

    /// Widths of the columns that together take `room`; `None` if they would be too narrow.
    fn widths(&self, room: usize) -> Option<Vec<usize>> {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let natural: Vec<usize> = (0..count)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(Text::columns).max().unwrap_or(0).max(1)
            })
            .collect();
        let free = room.checked_sub(columns(BAR) * count.saturating_sub(1))?;
        if natural.iter().sum::<usize>() <= free {
            return Some(natural);
        }
        let capped = |cap: usize| natural.iter().map(move |&width| width.min(cap));
        // The widest columns give first.
        let cap = (CELL_MIN..=free).rev().find(|&cap| capped(cap).sum::<usize>() <= free)?;
        Some(capped(cap).collect())
    }

    fn row_lines(&self, row: &[Text], widths: &[usize], dim: Style, out: &mut Vec<Line<'static>>) {
        let cells: Vec<Vec<Line<'static>>> = widths
            .iter()
            .enumerate()
            .map(|(column, &width)| {
                row.get(column).map_or_else(Vec::new, |c| wrap::words(c, width))
            })
            .collect();
        for number in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            let mut spans: Vec<Span<'static>> = Vec::new();
            for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
                if column > 0 {
                    spans.push(Span::styled(BAR, dim));
                }
                let line = cell.get(number).cloned().unwrap_or_default();
                let used: usize = line.spans.iter().map(|span| columns(&span.content)).sum();
                let free = width.saturating_sub(used);
                let before = match self.alignments.get(column) {
                    Some(Alignment::Right) => free,
                    Some(Alignment::Center) => free / 2,
                    _ => 0,
                };
                spans.push(Span::raw(" ".repeat(before)));
                spans.extend(line.spans);
                if column + 1 < widths.len() {
                    spans.push(Span::raw(" ".repeat(free - before)));
                }
            }
            spans.retain(|span| !span.content.is_empty());
            out.push(Line::from(spans));
        }
    }
}

/// The cells of a row in one text.
fn joined(row: &[Text], dim: Style) -> Text {
    let mut all = Text::default();
    for (column, cell) in row.iter().enumerate() {
        if column > 0 {
            all.push(" | ", dim);
        }
        all.append(cell);
    }
    all
}
