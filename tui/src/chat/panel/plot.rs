//! Bars, sparklines and histograms as lines of text, in blocks or in ASCII.

use core::time::Duration;

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::stats::Histogram;

/// The characters of the plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glyphs {
    /// An eighth of a cell to a whole one, behind nothing.
    levels: [char; 9],
    /// What a gauge is filled with, and what is left of it.
    gauge: [char; 2],
    /// Weights, cache, work, context, others, free: told apart without colours.
    pub(super) parts: [char; 6],
    /// Between the fragments of a line.
    pub(super) separator: &'static str,
    /// At the end of what was cut off.
    cut: char,
}

/// Marks what deserves a look, beside its colour.
pub(super) const MARK: char = '!';

const BLOCKS: Glyphs = Glyphs {
    levels: [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    gauge: ['█', '░'],
    parts: ['█', '▓', '▒', '░', '╱', '·'],
    separator: " · ",
    cut: '…',
};

const ASCII: Glyphs = Glyphs {
    levels: [' ', '_', '.', '-', '~', '=', '+', '*', '#'],
    gauge: ['#', '.'],
    parts: ['#', '%', '+', '=', '/', '.'],
    separator: " | ",
    cut: '~',
};

impl Glyphs {
    pub(super) fn new(ascii: bool) -> &'static Self {
        if ascii { &ASCII } else { &BLOCKS }
    }

    /// `text` in at most `width` columns.
    pub(super) fn fit(&self, text: &str, width: usize) -> String {
        use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
        if text.width() <= width {
            return text.to_owned();
        }
        let mut left = width.saturating_sub(1);
        let mut fitting = String::new();
        for c in text.chars() {
            let width = c.width().unwrap_or(0);
            if width > left {
                break;
            }
            left -= width;
            fitting.push(c);
        }
        if width > 0 {
            fitting.push(self.cut);
        }
        fitting
    }

    /// A bar of `width` cells, `share` (0..=1) of it filled.
    pub(super) fn gauge(&self, share: f64, width: usize) -> String {
        #[allow(clippy::cast_precision_loss, reason = "cells of a terminal")]
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cells")]
        let filled = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
        // Something is never shown as nothing, nor as all.
        let least = usize::from(share > 0.0).min(width);
        let most = if share < 1.0 { width.saturating_sub(1).max(least) } else { width };
        let filled = filled.clamp(least, most);
        let [full, empty] = self.gauge;
        (0..width).map(|cell| if cell < filled { full } else { empty }).collect()
    }

    /// `height` eighths as a column of `rows` cells, from the top.
    fn column(&self, eighths: usize, rows: usize) -> impl Iterator<Item = char> + '_ {
        (0..rows).rev().map(move |row| self.levels[eighths.saturating_sub(8 * row).min(8)])
    }

    /// The last gaps as columns, the newest at the right, on a scale from 0 to the longest that is
    /// no stall. A stall is a column of full height with a mark on top.
    pub(super) fn sparkline(
        &self,
        gaps: impl DoubleEndedIterator<Item = Duration> + ExactSizeIterator,
        stall: Option<Duration>,
        (width, rows): (usize, usize),
        [normal, warning]: [Style; 2],
    ) -> Vec<Line<'static>> {
        let skipped = gaps.len().saturating_sub(width);
        let gaps: Vec<Duration> = gaps.skip(skipped).collect();
        let is_stall = |gap: &Duration| stall.is_some_and(|limit| *gap > limit);
        let scale = gaps.iter().filter(|gap| !is_stall(gap)).max().copied().unwrap_or_default();
        let columns: Vec<(Vec<char>, bool)> = gaps
            .iter()
            .map(|gap| match is_stall(gap) {
                true => {
                    let mut column: Vec<_> = self.column(8 * rows, rows).collect();
                    column[..1.min(rows)].fill(MARK);
                    (column, true)
                }
                false => (self.column(eighths(*gap, scale, rows), rows).collect(), false),
            })
            .collect();
        rows_of(&columns, rows, [normal, warning])
    }

    /// A histogram, its buckets as wide as fit into `width`; buckets that hold stalls are marked.
    pub(super) fn histogram(
        &self,
        histogram: &Histogram,
        stall: Option<Duration>,
        (width, rows): (usize, usize),
        styles: [Style; 2],
    ) -> Vec<Line<'static>> {
        let most = histogram.counts.iter().max().copied().unwrap_or(0);
        let first_stall =
            stall.filter(|limit| *limit < histogram.high).map(|limit| histogram.place(limit) + 1);
        let wide = (width / histogram.counts.len()).clamp(1, BUCKET_CELLS_MAX);
        let columns: Vec<(Vec<char>, bool)> = histogram
            .counts
            .iter()
            .enumerate()
            .flat_map(|(index, &count)| {
                let marked = count > 0 && first_stall.is_some_and(|first| index >= first);
                let height = if most == 0 { 0 } else { (count * 8 * rows).div_ceil(most) };
                let mut column: Vec<_> = self.column(height, rows).collect();
                if let Some(top) = column.iter_mut().find(|c| marked && **c != ' ') {
                    *top = MARK;
                }
                core::iter::repeat_n((column, marked), wide)
            })
            .collect();
        rows_of(&columns, rows, styles)
    }

    /// Parts of a whole as one bar; each that is there has a cell at least.
    pub(super) fn parts(&self, parts: [u64; 6], width: usize, styles: [Style; 6]) -> Line<'static> {
        let cells = cells(parts, width);
        let spans = cells.iter().zip(self.parts).zip(styles).filter(|((cells, _), _)| **cells > 0);
        Line::from_iter(spans.map(|((&cells, glyph), style)| {
            Span::styled(core::iter::repeat_n(glyph, cells).collect::<String>(), style)
        }))
    }
}

/// Widest bucket of a histogram.
const BUCKET_CELLS_MAX: usize = 3;

/// `gap` as a part of `scale`, in eighths of `rows` cells; at least one.
fn eighths(gap: Duration, scale: Duration, rows: usize) -> usize {
    let all = 8 * rows;
    if scale.is_zero() {
        return 1.min(all);
    }
    #[allow(clippy::cast_precision_loss, reason = "some cells")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `all`")]
    let part = (gap.as_secs_f64() / scale.as_secs_f64() * all as f64).ceil() as usize;
    part.clamp(1.min(all), all)
}

/// Columns, top row first, as lines.
fn rows_of(
    columns: &[(Vec<char>, bool)],
    rows: usize,
    [normal, warning]: [Style; 2],
) -> Vec<Line<'static>> {
    let line = |row: usize| {
        let stretches = columns.chunk_by(|one, next| one.1 == next.1);
        Line::from_iter(stretches.map(|stretch| {
            let text: String = stretch.iter().map(|(column, _)| column[row]).collect();
            Span::styled(text, if stretch[0].1 { warning } else { normal })
        }))
    };
    (0..rows).map(line).collect()
}

/// `width` cells shared out by `parts`: in proportion, but at least one for every part that is
/// there, as far as the cells go.
fn cells(parts: [u64; 6], width: usize) -> [usize; 6] {
    let total: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    let mut cells = [0; 6];
    if total == 0 {
        return cells;
    }
    // Where the border of the first parts stands, rounded: the sum is the width by construction.
    let (mut so_far, mut before) = (0_u128, 0);
    for (part, cells) in parts.iter().zip(&mut cells) {
        so_far += u128::from(*part);
        let border = (so_far * width as u128 * 2 + total) / (2 * total);
        let border = usize::try_from(border).unwrap_or(width);
        *cells = border - before;
        before = border;
    }
    for index in 0..cells.len() {
        if parts[index] > 0 && cells[index] == 0 {
            let largest = (0..cells.len()).max_by_key(|other| cells[*other]).unwrap_or(index);
            if cells[largest] > 1 {
                cells[largest] -= 1;
                cells[index] += 1;
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn text(lines: &[Line<'_>]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gauges_show_something_and_not_all() {
        let glyphs = Glyphs::new(true);
        let bars = [0.0, 0.001, 0.5, 0.999, 1.0, 7.0, -1.0].map(|share| glyphs.gauge(share, 6));
        assert_eq!(bars, ["......", "#.....", "###...", "#####.", "######", "######", "......"]);
        assert_eq!((glyphs.gauge(0.5, 0), glyphs.gauge(0.5, 1)), (String::new(), "#".into()));
    }

    #[test]
    fn the_newest_gap_is_at_the_right_and_stalls_stand_out() {
        let gaps = [9, 8, 4, 90, 1].map(|n| n * MS);
        let styles = [Style::new(), Style::new().bold()];
        let draw = |rows, stall: Option<Duration>| {
            Glyphs::new(false).sparkline(gaps.into_iter(), stall, (4, rows), styles)
        };
        let lines = draw(1, Some(30 * MS));
        assert_eq!(text(&lines), ["█▄!▁"]);
        assert_eq!(lines[0].spans[1].style, styles[1]);
        assert_eq!(text(&draw(2, Some(30 * MS))), ["█ ! ", "███▂"]);
        // Nobody knows yet what a stall is: it is the scale.
        assert_eq!(text(&draw(1, None)), ["▁▁█▁"]);
        assert_eq!(text(&draw(0, None)), [""; 0]);
    }

    #[test]
    fn parts_fill_the_bar_and_none_is_lost() {
        assert_eq!(cells([50, 25, 25, 0, 0, 0], 8), [4, 2, 2, 0, 0, 0]);
        assert_eq!(cells([1, 1, 1, 1, 1000, 100_000], 20), [1, 1, 1, 1, 1, 15]);
        assert_eq!(cells([0; 6], 20), [0; 6]);
        assert_eq!(cells([u64::MAX; 6], 3).iter().sum::<usize>(), 3);
        for width in 0..40 {
            assert_eq!(cells([7, 0, 1, 3, 900, 12], width).iter().sum::<usize>(), width);
        }
        let bar = Glyphs::new(true).parts([50, 25, 25, 0, 0, 0], 8, [Style::new(); 6]);
        assert_eq!(bar.to_string(), "####%%++");
    }

    #[test]
    fn text_is_cut_by_columns() {
        let glyphs = Glyphs::new(false);
        assert_eq!(glyphs.fit("abcdef", 6), "abcdef");
        assert_eq!(glyphs.fit("abcdef", 4), "abc…");
        assert_eq!(glyphs.fit("世界世界", 4), "世…");
        assert_eq!((glyphs.fit("ab", 1), glyphs.fit("ab", 0)), ("…".into(), String::new()));
    }
}
