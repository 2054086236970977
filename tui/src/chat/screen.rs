//! Where everything stands, for every size of a terminal.

use ratatui::layout::{Constraint, Layout, Rect};

/// Columns from which the numbers stand beside the conversation.
const WIDE: u16 = 100;
/// Columns from which they have a strip of several lines.
const MIDDLE: u16 = 60;
/// Rows below which all that is no conversation takes as little as it can.
const LOW: u16 = 10;
/// Columns of the numbers beside the conversation.
const SIDE: u16 = 36;
/// Columns between the two.
const GAP: u16 = 2;
/// Rows of the strip.
const STRIP: u16 = 5;
/// Most rows of the editor.
const EDITOR: u16 = 10;

/// Parts of the screen. An empty area is not drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// The conversation.
    pub transcript: Rect,
    /// The numbers: a column or a strip.
    pub panel: Rect,
    /// One line of them, where there is no room for more.
    pub status: Rect,
    /// A line between the conversation and the editor.
    pub rule: Rect,
    /// What is being typed.
    pub editor: Rect,
}

/// Cuts `area`, with the `numbers` or without. Where it is but a part of the screen (`inline`) they
/// may take more of it. `editor_rows` is what the text that is being typed
/// would take in a given width.
#[must_use]
pub fn areas(
    area: Rect,
    (numbers, inline): (bool, bool),
    mut editor_rows: impl FnMut(u16) -> u16,
) -> Areas {
    let empty = Rect::new(area.x, area.y, 0, 0);
    if area.height < LOW {
        let rows = editor_rows(area.width).clamp(1, (area.height / 3).max(1));
        let status = u16::from(numbers && area.height >= 3);
        let [transcript, status, editor] = Layout::vertical([
            Constraint::Min(0),
            Constraint::Length(status),
            Constraint::Length(rows),
        ])
        .areas(area);
        return Areas { transcript, panel: empty, status, rule: empty, editor };
    }
    let is_wide = area.width >= WIDE && !inline;
    let (left, side) = if numbers && is_wide {
        let [left, side] = Layout::horizontal([Constraint::Min(0), Constraint::Length(SIDE)])
            .spacing(GAP)
            .areas(area);
        (left, side)
    } else {
        (area, empty)
    };
    let rows = editor_rows(left.width).clamp(1, EDITOR.min(area.height / 3));
    let strip = if !numbers || is_wide {
        0
    } else if area.width >= MIDDLE && (inline || area.height >= LOW + STRIP + 3) {
        STRIP
    } else {
        1
    };
    let [transcript, rule, strip, editor] = Layout::vertical([
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(strip),
        Constraint::Length(rows),
    ])
    .areas(left);
    match strip.height {
        0 => Areas { transcript, panel: side, status: empty, rule, editor },
        1 => Areas { transcript, panel: empty, status: strip, rule, editor },
        _ => Areas { transcript, panel: strip, status: empty, rule, editor },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(width: u16, height: u16) -> Areas {
        areas(Rect::new(0, 0, width, height), (true, false), |_| 2)
    }

    #[test]
    fn each_tier_shows_the_numbers_in_its_own_way() {
        let wide = at(120, 40);
        assert_eq!((wide.panel.width, wide.panel.height), (SIDE, 40));
        assert_eq!(wide.status.area(), 0);
        let middle = at(80, 24);
        assert_eq!((middle.panel.width, middle.panel.height), (80, STRIP));
        let narrow = at(40, 24);
        assert_eq!((narrow.panel.area(), narrow.status.height), (0, 1));
        let low = at(120, 8);
        assert_eq!((low.panel.area(), low.status.height, low.rule.area()), (0, 1, 0));
    }

    #[test]
    fn parts_fill_the_screen_and_never_overlap() {
        for width in 0..=130 {
            for height in 0..=50 {
                let area = Rect::new(0, 0, width, height);
                for rows in [0, 1, 5, 200] {
                    let numbers = rows != 5;
                    let Areas { transcript, panel, status, rule, editor } =
                        areas(area, (numbers, false), |_| rows);
                    assert!(numbers || panel.area() + status.area() == 0);
                    let parts = [transcript, panel, status, rule, editor];
                    let parts: Vec<_> = parts.into_iter().filter(|part| part.area() > 0).collect();
                    for (index, part) in parts.iter().enumerate() {
                        assert_eq!(part.intersection(area), *part, "{width}x{height}");
                        for other in &parts[index + 1..] {
                            assert_eq!(part.intersection(*other).area(), 0, "{width}x{height}");
                        }
                    }
                    let filled: u32 = parts.iter().map(|part| part.area()).sum();
                    let gap = if width >= WIDE && panel.area() > 0 { GAP * height } else { 0 };
                    assert_eq!(filled + u32::from(gap), area.area(), "{width}x{height}: {parts:?}");
                    if area.area() > 0 {
                        assert!(editor.height >= 1, "{width}x{height}");
                    }
                    if height >= 6 && width > 0 {
                        assert!(transcript.height >= height / 3, "{width}x{height}");
                    }
                }
            }
        }
    }
}
