//! Candidates, one of which may be in the line.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use unicode_width::UnicodeWidthStr;

use super::super::command::Candidate;
use super::super::theme::Theme;

/// Widest column of labels.
const LABEL_WIDTH_MAX: usize = 32;

/// The candidates for a line.
#[derive(Debug)]
pub(super) struct Popup {
    /// As it was before a candidate came into it.
    line: String,
    candidates: Vec<Candidate>,
    selected: Option<usize>,
}

impl Popup {
    /// `None` without candidates that fit into the line.
    pub(super) fn new(line: String, mut candidates: Vec<Candidate>) -> Option<Self> {
        candidates.retain(|candidate| line.get(candidate.range.clone()).is_some());
        (!candidates.is_empty()).then_some(Self { line, candidates, selected: None })
    }

    pub(super) fn line(&self) -> &str {
        &self.line
    }

    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub(super) fn selected(&self) -> Option<usize> {
        self.selected
    }

    /// Selects the next candidate or the one before, round and round; gives the line with it, and
    /// the byte after it.
    pub(super) fn turn(&mut self, forward: bool) -> (String, usize) {
        let last = self.candidates.len() - 1;
        let place = match (self.selected, forward) {
            (Some(place), true) if place < last => place + 1,
            (None, true) | (Some(_), true) => 0,
            (Some(0) | None, false) => last,
            (Some(place), false) => place - 1,
        };
        self.selected = Some(place);
        let Candidate { range, text, .. } = &self.candidates[place];
        let mut line = self.line.clone();
        line.replace_range(range.clone(), text);
        (line, range.start + text.len())
    }

    /// One candidate a row: what it is, and what it means.
    pub(super) fn draw(&self, area: Rect, buf: &mut Buffer, theme: &Theme) {
        let rows = usize::from(area.height);
        let top = self.selected.map_or(0, |place| (place + 1).saturating_sub(rows));
        let labels = self.candidates.iter().map(|candidate| candidate.label.width());
        let column = labels.max().unwrap_or(0).min(LABEL_WIDTH_MAX);
        let shown = self.candidates.iter().enumerate().skip(top);
        for ((place, candidate), y) in shown.zip(area.top()..area.bottom()) {
            let style = if self.selected == Some(place) {
                theme.accent.add_modifier(Modifier::REVERSED)
            } else {
                theme.text
            };
            let width = usize::from(area.width);
            let (end, _) = buf.set_stringn(area.x, y, &candidate.label, width, style);
            let help = usize::from(end - area.x).max(column) + 2;
            if let Some(left) = width.checked_sub(help).filter(|left| *left > 0) {
                let x = area.right() - u16::try_from(left).unwrap_or(area.width);
                buf.set_stringn(x, y, candidate.help, left, theme.dim);
            }
        }
    }
}
