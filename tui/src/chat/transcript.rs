//! What was said, as lines on a screen: wrapped once for each width, drawn from any place.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::markdown;
use super::theme::Theme;

/// Columns of the mark before what the user said.
const MARK: u16 = 2;

/// Something that was said, in clean text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// By the user.
    User(String),
    /// By the model.
    Answer(String),
    /// Numbers about the answer above.
    Numbers(String),
    /// By the program.
    Notice(String),
    /// By the program: what went wrong, and what to do.
    Error {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
}

/// An entry with its lines.
#[derive(Debug, Clone)]
struct Shown {
    entry: Entry,
    /// Entries before it, those that are gone included.
    number: u64,
    /// Which turn it belongs to.
    turn: usize,
    /// What the lines were made for; `None` before the first time and after a change.
    made_for: Option<Shape>,
    lines: Vec<Line<'static>>,
}

/// What lines depend on beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    width: u16,
    raw: bool,
    theme: Theme,
}

/// The conversation on the screen.
#[derive(Debug, Default, Clone)]
pub struct Transcript {
    shown: Vec<Shown>,
    /// Entries there ever were.
    count: u64,
    /// Whether answers are shown as they were written, without Markdown.
    raw: bool,
    /// The line at the top of the screen; `None` follows the end.
    top: Option<usize>,
    /// Height and number of lines when last drawn, for scrolling.
    seen: (usize, usize),
    /// What has been settled: entries before this number, and so many bytes of that one.
    settled: (u64, usize),
}

impl Transcript {
    /// Adds an entry to turn `turn`.
    pub fn push(&mut self, turn: usize, entry: Entry) {
        let (number, made_for, lines) = (self.count, None, Vec::new());
        self.shown.push(Shown { entry, number, turn, made_for, lines });
        self.count += 1;
    }

    /// Adds text to the answer that is being given; begins one where there is none.
    pub fn append(&mut self, turn: usize, text: &str) {
        if let Some(last) = self.shown.last_mut()
            && let Entry::Answer(answer) = &mut last.entry
            && last.turn == turn
        {
            answer.push_str(text);
            last.made_for = None;
        } else {
            self.push(turn, Entry::Answer(text.to_owned()));
        }
    }

    /// Removes turn `turn` and all that follow.
    pub fn cut(&mut self, turn: usize) {
        self.shown.retain(|shown| shown.turn < turn);
        self.top = None;
    }

    /// Removes what is there of the answer of turn `turn`, and what was said after it.
    pub fn cut_answer(&mut self, turn: usize) {
        let user = |shown: &Shown| matches!(shown.entry, Entry::User(_));
        self.shown.retain(|shown| shown.turn < turn || shown.turn == turn && user(shown));
        self.top = None;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.shown.clear();
        self.top = None;
    }

    /// Shows answers as they were written, or as Markdown again.
    pub fn set_raw(&mut self, raw: bool) {
        self.raw = raw;
        self.top = None;
    }

    /// Whether answers are shown as they were written.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.raw
    }

    /// Entries from number `first` on, with their numbers; entries are counted from 0, and those
    /// that are gone keep theirs.
    pub fn since(&self, first: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let late = self.shown.iter().filter(move |shown| shown.number >= first);
        late.map(|shown| (shown.number, &shown.entry))
    }

    /// Goes up or, where negative, down by lines; at the end it follows again.
    pub fn scroll(&mut self, up: isize) {
        let (height, lines) = self.seen;
        let last = lines.saturating_sub(height);
        let top = self.top.unwrap_or(last).min(last);
        let top = top.saturating_add_signed(-up);
        self.top = (top < last).then_some(top);
    }

    /// Goes up or, where negative, down by screens less a line.
    pub fn scroll_screens(&mut self, up: isize) {
        let screen = isize::try_from(self.seen.0.saturating_sub(1).max(1)).unwrap_or(1);
        self.scroll(up.saturating_mul(screen));
    }

    /// Goes to the beginning.
    pub fn scroll_to_start(&mut self) {
        self.top = Some(0);
    }

    /// Goes to the end, and follows it.
    pub fn scroll_to_end(&mut self) {
        self.top = None;
    }

    /// Lines below the screen when it was last drawn: 0 where it follows the end.
    #[must_use]
    pub fn lines_below(&self) -> usize {
        let (height, lines) = self.seen;
        self.top.map_or(0, |top| lines.saturating_sub(top + height))
    }

    /// Takes the lines that are complete, `width` columns wide; they are not drawn any more. While
    /// the last answer is `open`, its paragraphs are complete when the next one has begun.
    pub fn settle(&mut self, width: u16, open: bool, theme: &Theme) -> Vec<Line<'static>> {
        let shape = Shape { width, raw: self.raw, theme: *theme };
        let (first, bytes) = self.settled;
        let mut settled = Vec::new();
        let mut entries = self.shown.iter().filter(|shown| shown.number >= first).peekable();
        while let Some(shown) = entries.next() {
            let hidden = if shown.number == first { bytes } else { 0 };
            let number = shown.number;
            match &shown.entry {
                Entry::Answer(text) if open && entries.peek().is_none() => {
                    let end = hidden + markdown::complete(&text[hidden..]);
                    if end > hidden {
                        let part = Entry::Answer(text[hidden..end].to_owned());
                        settled.extend(spaced(&part, number, hidden, shape));
                        self.settled = (number, end);
                    }
                    break;
                }
                entry => {
                    settled.extend(spaced(&entry.after(hidden), number, hidden, shape));
                    self.settled = (number + 1, 0);
                }
            }
        }
        for shown in &mut self.shown {
            shown.made_for = None;
        }
        settled
    }

    /// Draws the part that the screen shows.
    pub fn draw(&mut self, area: Rect, buf: &mut Buffer, theme: &Theme) {
        let shape = Shape { width: area.width, raw: self.raw, theme: *theme };
        let (first, bytes) = self.settled;
        for shown in &mut self.shown {
            let hidden = if shown.number == first { bytes } else { 0 };
            shown.make(shape, hidden);
        }
        let drawn = || self.shown.iter().filter(|shown| shown.number >= first);
        let lines = drawn().map(|shown| shown.lines.len()).sum();
        let height = usize::from(area.height);
        self.seen = (height, lines);
        let last = lines.saturating_sub(height);
        let top = self.top.unwrap_or(last).min(last);
        let visible = drawn().flat_map(|shown| &shown.lines).skip(top);
        for (line, row) in visible.zip(area.rows()) {
            line.render(row, buf);
        }
    }
}

impl Shown {
    /// Makes the lines, without the first `hidden` bytes of the text, unless they are there.
    fn make(&mut self, shape: Shape, hidden: usize) {
        if self.made_for == Some(shape) {
            return;
        }
        self.made_for = Some(shape);
        self.lines = spaced(&self.entry.after(hidden), self.number, hidden, shape);
    }
}

/// The lines of entry `number`, after an empty one where it stands apart from the one before or
/// from its own `hidden` beginning.
fn spaced(entry: &Entry, number: u64, hidden: usize, shape: Shape) -> Vec<Line<'static>> {
    let mut lines = lines(entry, shape.width, shape.raw, &shape.theme);
    if number > 0 && (entry.stands_apart() || hidden > 0) {
        lines.insert(0, Line::default());
    }
    lines
}

impl Entry {
    /// The entry without the first `bytes` of its text, which only answers can lack.
    fn after(&self, bytes: usize) -> Cow<'_, Self> {
        match self {
            Self::Answer(text) if bytes > 0 => {
                Cow::Owned(Self::Answer(text.get(bytes..).unwrap_or_default().to_owned()))
            }
            other => Cow::Borrowed(other),
        }
    }

    /// Whether an empty line belongs before it.
    #[must_use]
    pub fn stands_apart(&self) -> bool {
        !matches!(self, Self::Numbers(_))
    }
}

/// The lines of one entry.
#[must_use]
pub fn lines(entry: &Entry, width: u16, raw: bool, theme: &Theme) -> Vec<Line<'static>> {
    let plain = |text: &str, style: Style| -> Vec<Line<'static>> {
        let lines = markdown::raw_lines(text, width, theme).into_iter();
        lines.map(|line| line.patch_style(style)).collect()
    };
    match entry {
        Entry::User(text) => {
            let room = width.saturating_sub(MARK).max(1);
            let mut lines = markdown::raw_lines(text, room, theme);
            for (index, line) in lines.iter_mut().enumerate() {
                if width > MARK {
                    line.spans.insert(0, Span::raw(if index == 0 { "> " } else { "  " }));
                }
                *line = core::mem::take(line).patch_style(theme.user);
            }
            lines
        }
        Entry::Answer(text) if raw => markdown::raw_lines(text, width, theme),
        Entry::Answer(text) => markdown::lines(text, width, theme),
        Entry::Numbers(text) | Entry::Notice(text) => plain(text, theme.dim),
        Entry::Error { what, hint } => {
            let mut lines = plain(&format!("error: {what}"), theme.error);
            lines.extend(plain(&format!("hint: {hint}"), theme.warning));
            lines
        }
    }
}
