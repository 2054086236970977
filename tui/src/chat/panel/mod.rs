//! The live panel: what the machine does while it answers, at any size. Pure: from numbers to
//! cells.
//!
//! | area | what is drawn |
//! |---|---|
//! | 60 columns and 3 rows | two or three columns side by side |
//! | 28 columns and 3 rows | one column |
//! | narrower | a few words, one below the other |
//! | lower | one line ([`status_line`]) |
//!
//! A column holds as many blocks as it has room for, the most important ones first. Nothing is told
//! by colour alone: what deserves a look has a `!` before it, and parts of a bar have different
//! characters.

mod blocks;
mod plot;
#[cfg(test)]
mod tests;
mod units;

use core::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use tercet_host::measure::sampler::Snapshot;

use self::blocks::Block;
use self::plot::Glyphs;
use super::theme::Theme;
use crate::stats::Stats;

/// Least width of a column of blocks.
const COLUMN: u16 = 28;
/// Least width of two of them.
const TWO: u16 = 60;
/// Least width of three.
const THREE: u16 = 96;
/// Least height of either.
const ROWS: u16 = 3;
/// Most rows of a sparkline.
const SPARK_ROWS_MAX: usize = 4;
/// Groups of blocks, between which there are empty lines.
const GROUPS: usize = 6;
/// Columns between columns.
const GAP: u16 = 2;

/// What the engine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The model is on its way to the device, in bytes.
    Loading {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The prompt goes into the cache; how far it is, the [`Stats`] know.
    Reading {
        /// Time since it began.
        elapsed: Duration,
    },
    /// Tokens come.
    Answering {
        /// Time since the last one.
        waiting: Duration,
    },
    /// Nothing.
    Idle,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLine<'a> {
    /// `CPU, AVX-512 VNNI, 2 threads`, `NVIDIA H200`.
    pub name: &'a str,
    /// Why it was chosen: `no NVIDIA driver`. May be empty.
    pub why: &'a str,
    /// Whether another device was hoped for.
    pub is_fallback: bool,
}

/// How full the context is, in positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextUse {
    /// Positions taken.
    pub used: usize,
    /// Positions there are; 0 before there is a session.
    pub limit: usize,
    /// Tokens of the oldest turn, which has to go first when there is no more room.
    pub next_out: Option<usize>,
}

/// What the panel shows. Names may hold anything: they are cleaned here.
#[derive(Debug, Clone, Copy)]
pub struct PanelView<'a> {
    /// Numbers of the answer.
    pub stats: &'a Stats,
    /// Memory, GPU and neighbours, as last seen.
    pub seen: Snapshot,
    /// Name of the model.
    pub model: &'a str,
    /// What computes.
    pub device: DeviceLine<'a>,
    /// The context.
    pub context: ContextUse,
    /// What the engine is doing.
    pub state: State,
    /// ASCII only: for dumb terminals, and for those who have the panel read out.
    pub ascii: bool,
}

/// Draws the panel into `area`, or into the part of it that `buf` has. Never writes outside; cells
/// that the panel does not need are left alone.
pub fn draw(area: Rect, buf: &mut Buffer, view: &PanelView<'_>, theme: &Theme) {
    let area = area.intersection(*buf.area());
    if area.is_empty() {
        return;
    }
    if area.height < ROWS {
        let line = status_line(view, area.width, theme);
        buf.set_line(area.x, area.y, &line, area.width);
        return;
    }
    if area.width < COLUMN {
        let glyphs = Glyphs::new(view.ascii);
        let words = blocks::fragments(view, theme)
            .into_iter()
            .map(|(text, style)| Line::styled(glyphs.fit(&text, usize::from(area.width)), style));
        return put(area, buf, words);
    }
    let columns = 1 + u16::from(area.width >= TWO) + u16::from(area.width >= THREE);
    let width = (area.width - (columns - 1) * GAP) / columns;
    let height = usize::from(area.height);
    let blocks = |spark_rows| {
        blocks::columns(view, theme, (usize::from(width), spark_rows), usize::from(columns))
    };
    // A higher sparkline where there is room for everything.
    let has_room = |blocks: &Vec<Vec<Block>>| {
        let lines =
            |column: &[Block]| -> usize { column.iter().map(|block| block.lines.len()).sum() };
        blocks.iter().all(|column| height > lines(column) + GROUPS)
    };
    let high = (2..=SPARK_ROWS_MAX).rev().map(blocks).find(has_room);
    for (column, blocks) in (0..columns).zip(high.unwrap_or_else(|| blocks(1))) {
        let x = area.x + column * (width + GAP);
        let column = Rect { x, width, ..area };
        put(column, buf, arrange(blocks, height));
    }
}

fn put(area: Rect, buf: &mut Buffer, lines: impl IntoIterator<Item = Line<'static>>) {
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buf.set_line(area.x, y, &line, area.width);
    }
}

/// As many blocks as fit into `height` lines, the most important first, in their order; where
/// lines are left, empty ones between groups.
fn arrange(blocks: Vec<Block>, height: usize) -> Vec<Line<'static>> {
    let mut by_rank: Vec<usize> = (0..blocks.len()).collect();
    by_rank.sort_by_key(|index| blocks[*index].rank);
    let mut left = height;
    let mut taken = vec![false; blocks.len()];
    for index in by_rank {
        let lines = blocks[index].lines.len();
        if (1..=left).contains(&lines) {
            taken[index] = true;
            left -= lines;
        }
    }
    let mut lines = Vec::with_capacity(height);
    let mut last = None;
    for block in blocks.into_iter().zip(taken).filter_map(|(block, taken)| taken.then_some(block)) {
        if last.is_some_and(|group| group != block.group) && left > 0 {
            lines.push(Line::default());
            left -= 1;
        }
        last = Some(block.group);
        lines.extend(block.lines);
    }
    lines
}

/// The most important numbers on one line of at most `width` columns; whole ones only, but the
/// first.
#[must_use]
pub fn status_line(view: &PanelView<'_>, width: u16, theme: &Theme) -> Line<'static> {
    let glyphs = Glyphs::new(view.ascii);
    let mut left = usize::from(width);
    let mut line = Line::default();
    for (text, style) in blocks::fragments(view, theme) {
        if line.spans.is_empty() {
            line.push_span(Span::styled(glyphs.fit(&text, left), style));
            left -= line.width();
            continue;
        }
        let separator = Span::styled(glyphs.separator, theme.dim);
        let fragment = Span::styled(text, style);
        let needed = separator.width() + fragment.width();
        if needed <= left {
            left -= needed;
            line.push_span(separator);
            line.push_span(fragment);
        }
    }
    line
}

/// Everything as lines of text with units: for `/stats`, and where nothing is drawn.
#[must_use]
pub fn lines(view: &PanelView<'_>) -> Vec<String> {
    blocks::report(view)
}
