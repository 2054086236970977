//! What was said, as lines on a screen: wrapped once for each width, drawn from any place.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::markdown::{self, Form, Look, Rendered, Stage};
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
    made_for: Option<Look>,
    /// An empty line where it stands apart, and everything but an answer's own lines.
    head: Vec<Line<'static>>,
    /// The lines of an answer.
    answer: Rendered,
}

/// How much of the conversation stands above the screen for good.
#[derive(Debug, Clone, Copy, Default)]
struct Settled {
    /// Entries before this number, whole.
    number: u64,
    /// And so many lines of that one.
    lines: usize,
    /// Which are those of so many bytes of its text.
    bytes: usize,
    /// As they were made.
    look: Option<Look>,
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
    settled: Settled,
    /// Whether the last answer grows.
    open: bool,
}

impl Transcript {
    /// Adds an entry to turn `turn`.
    pub fn push(&mut self, turn: usize, entry: Entry) {
        let (number, head, answer) = (self.count, Vec::new(), Rendered::default());
        self.shown.push(Shown { entry, number, turn, made_for: None, head, answer });
        self.count += 1;
    }

    /// Adds text to the answer that is being given; begins one where there is none.
    pub fn append(&mut self, turn: usize, text: &str) {
        let grows = self.open;
        self.open = true;
        let entries = self.shown.iter_mut().rev().filter(|shown| shown.turn == turn);
        // Notices may stand after it.
        let answer = entries.map(|shown| &mut shown.entry).find_map(|entry| match entry {
            Entry::Answer(answer) => Some(answer),
            _ => None,
        });
        match answer.filter(|_| grows) {
            Some(answer) => answer.push_str(text),
            None => self.push(turn, Entry::Answer(text.to_owned())),
        }
    }

    /// The answer that was being given is complete.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Removes turn `turn` and all that follow.
    pub fn cut(&mut self, turn: usize) {
        // Notices that came before its question belong to none.
        let is_question =
            |shown: &Shown| shown.turn >= turn && matches!(shown.entry, Entry::User(_));
        if let Some(first) = self.shown.iter().position(is_question) {
            self.shown.truncate(first);
        }
        self.top = None;
    }

    /// Removes the turns before `turn`, which gets number 0.
    pub fn drop_before(&mut self, turn: usize) {
        self.shown.retain(|shown| shown.turn >= turn);
        self.shown.iter_mut().for_each(|shown| shown.turn -= turn);
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

    /// Takes the lines that are complete, `width` columns wide; they are not drawn any more. Of an
    /// answer that grows those blocks are complete that others have followed.
    pub fn settle(&mut self, width: u16, theme: &Theme) -> Vec<Line<'static>> {
        let look = self.look(width, theme);
        self.make(look);
        let mut lines = Vec::new();
        let mut settled = Settled { look: Some(look), ..self.settled };
        let growing = self.growing();
        for shown in self.unsettled() {
            let is_first = shown.number == self.settled.number;
            let before = if is_first { self.settled_lines(look) } else { 0 };
            if growing == Some(shown.number) {
                let bytes = shown.answer.settled_bytes();
                let complete = shown.answer.settled_lines();
                let complete = if complete > 0 { shown.head.len() + complete } else { 0 };
                let fresh = complete.saturating_sub(before);
                lines.extend(shown.lines().skip(before).take(fresh).cloned());
                let (number, lines) = (shown.number, before + fresh);
                settled = Settled { number, lines, bytes, look: Some(look) };
                break;
            }
            lines.extend(shown.lines().skip(before).cloned());
            let number = shown.number + 1;
            settled = Settled { number, lines: 0, bytes: 0, look: Some(look) };
        }
        self.settled = settled;
        lines
    }

    /// Draws the part that the screen shows.
    pub fn draw(&mut self, area: Rect, buf: &mut Buffer, theme: &Theme) {
        let look = self.look(area.width, theme);
        self.make(look);
        let above = self.settled_lines(look);
        let lines = self.unsettled().map(|shown| shown.lines().count()).sum::<usize>() - above;
        let height = usize::from(area.height);
        self.seen = (height, lines);
        let last = lines.saturating_sub(height);
        let top = self.top.unwrap_or(last).min(last);
        let visible = self.unsettled().flat_map(Shown::lines).skip(above + top);
        for (line, row) in visible.zip(area.rows()) {
            line.render(row, buf);
        }
    }

    fn look(&self, width: u16, theme: &Theme) -> Look {
        let form = if self.raw { Form::Raw } else { Form::Markdown };
        Look { width, theme: *theme, form }
    }

    /// Makes the lines of every entry, where they are not there.
    fn make(&mut self, look: Look) {
        let (growing, Settled { number, .. }) = (self.growing(), self.settled);
        for shown in self.shown.iter_mut().filter(|shown| shown.number >= number) {
            let grows = growing == Some(shown.number);
            shown.make(look, if grows { Stage::Growing } else { Stage::Complete });
        }
    }

    /// Number of the answer that grows.
    fn growing(&self) -> Option<u64> {
        let is_answer = |shown: &&Shown| matches!(shown.entry, Entry::Answer(_));
        let last = self.shown.iter().rfind(is_answer).filter(|_| self.open);
        last.map(|shown| shown.number)
    }

    fn unsettled(&self) -> impl Iterator<Item = &Shown> {
        let Settled { number, .. } = self.settled;
        self.shown.iter().filter(move |shown| shown.number >= number)
    }

    /// Lines of the first unsettled entry that stand above the screen, as they would be now.
    fn settled_lines(&self, look: Look) -> usize {
        let Settled { number, lines, bytes, look: made_for } = self.settled;
        let first = self.unsettled().next().filter(|first| first.number == number);
        let Some(Shown { entry: Entry::Answer(text), head, .. }) = first else { return 0 };
        if lines == 0 || made_for == Some(look) {
            return lines;
        }
        // The terminal has another width by now, or answers are shown in another way.
        let mut rendered = Rendered::default();
        rendered.update(text.get(..bytes).unwrap_or_default(), look, Stage::Complete);
        head.len() + rendered.lines().len()
    }
}

impl Shown {
    /// Makes the lines, unless they are there.
    fn make(&mut self, look: Look, stage: Stage) {
        if let Entry::Answer(text) = &self.entry {
            // It knows by itself what is new.
            self.answer.update(text, look, stage);
        }
        if self.made_for == Some(look) {
            return;
        }
        self.made_for = Some(look);
        self.head.clear();
        if self.number > 0 && !matches!(self.entry, Entry::Numbers(_)) {
            self.head.push(Line::default());
        }
        self.head.extend(self.entry.lines(look));
    }

    fn lines(&self) -> impl Iterator<Item = &Line<'static>> {
        self.head.iter().chain(self.answer.lines())
    }
}

impl Entry {
    /// The lines of everything but answers.
    fn lines(&self, look: Look) -> Vec<Line<'static>> {
        let Look { width, theme, .. } = look;
        let plain = |text: &str, style: Style| -> Vec<Line<'static>> {
            let lines = markdown::raw_lines(text, width, &theme).into_iter();
            lines.map(|line| line.patch_style(style)).collect()
        };
        match self {
            Self::User(text) => {
                let room = width.saturating_sub(MARK).max(1);
                let mut lines = markdown::raw_lines(text, room, &theme);
                for (index, line) in lines.iter_mut().enumerate() {
                    if width > MARK {
                        line.spans.insert(0, Span::raw(if index == 0 { "> " } else { "  " }));
                    }
                    *line = core::mem::take(line).patch_style(theme.user);
                }
                lines
            }
            Self::Answer(_) => Vec::new(),
            Self::Numbers(text) | Self::Notice(text) => plain(text, theme.dim),
            Self::Error { what, hint } => {
                let mut lines = plain(&format!("error: {what}"), theme.error);
                lines.extend(plain(&format!("hint: {hint}"), theme.warning));
                lines
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line by line as it comes, or at once: the same lines, each of them once.
    #[test]
    fn every_line_is_settled_once() {
        let theme = Theme::plain();
        let pieces = [
            "# Title\n\nsome ",
            "words **bold",
            "** more\n\n- a\n- b\n\n",
            "```\nx\n",
            "```\n\nend",
        ];
        for raw in [false, true] {
            let (mut growing, mut whole) = (Transcript::default(), Transcript::default());
            let mut settled = Vec::new();
            growing.set_raw(raw);
            whole.set_raw(raw);
            for turn in 0..3 {
                growing.push(turn, Entry::User("hello".into()));
                whole.push(turn, Entry::User("hello".into()));
                for piece in pieces {
                    growing.append(turn, piece);
                    settled.extend(growing.settle(20, &theme));
                }
                whole.append(turn, &pieces.concat());
                for transcript in [&mut growing, &mut whole] {
                    transcript.close();
                    transcript.push(turn, Entry::Numbers("[5 tokens]".into()));
                }
                settled.extend(growing.settle(20, &theme));
            }
            assert_eq!(settled, whole.settle(20, &theme), "raw: {raw}");
            assert!(growing.settle(20, &theme).is_empty());
        }
    }
}
