//! Answers as lines on the screen: Markdown, or text as it is.
//!
//! An answer that is still being written is rendered again for every piece of it. What is complete
//! stays as it is: a block that another one has followed is rendered once ([`Rendered`]). In the
//! last one, emphasis and code that are not closed yet look as they will.
//!
//! The text may come from anybody. It has been cleaned (see [`crate::clean`]) when it gets here,
//! and is again on its way out, because Markdown spells characters in ways of its own: `&#27;` is
//! ESC.

mod growing;
mod render;
mod table;

use ratatui::text::Line;

use super::theme::Theme;
use super::wrap::{self, Text};
use crate::clean::clean;

/// Renders Markdown in lines of at most `width` columns; see [`Rendered`].
///
/// Paragraphs are wrapped at words, code where a line is full. A single line end in a paragraph
/// stays one, HTML is shown as text, links are text and address, and tables are aligned if they
/// fit. A line can be wider than `width` only if it is a single wide character.
#[must_use]
pub fn lines(text: &str, width: u16, theme: &Theme) -> Vec<Line<'static>> {
    let mut rendered = Rendered::default();
    rendered.update(text, Look { width, theme: *theme, form: Form::Markdown }, Stage::Complete);
    rendered.lines
}

/// Wraps text as it is, at words: what `/raw` shows.
#[must_use]
pub fn raw_lines(text: &str, width: u16, theme: &Theme) -> Vec<Line<'static>> {
    wrap::words(&Text::of(&clean(text), theme.text), width.into())
}

/// What an answer is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Markdown.
    Markdown,
    /// Text.
    Raw,
}

/// What lines depend on, beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns of a line; 0 counts as 1.
    pub width: u16,
    /// Colours.
    pub theme: Theme,
    /// Markdown or not.
    pub form: Form,
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The text ends anywhere: in a word, or in the middle of `**`.
    Growing,
    /// That was all.
    Complete,
}

/// The lines of one text that grows.
///
/// ```
/// use tercet::chat::markdown::{Form, Look, Rendered, Stage};
/// use tercet::chat::theme::Theme;
///
/// let look = Look { width: 40, theme: Theme::plain(), form: Form::Markdown };
/// let mut answer = Rendered::default();
/// answer.update("Trits are\n- **neg", look, Stage::Growing);
/// assert_eq!(answer.lines()[2].to_string(), "• neg");
/// answer.update("Trits are\n- **negative**,\n- zero", look, Stage::Complete);
/// assert_eq!(answer.lines()[3].to_string(), "• zero");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    look: Option<Look>,
    lines: Vec<Line<'static>>,
    /// The beginning of the text, whose lines nothing can change any more.
    settled: String,
    settled_lines: usize,
    /// What the other lines were made from.
    rest: String,
    stage: Option<Stage>,
}

impl Rendered {
    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[Line<'static>] {
        &self.lines
    }

    /// How many of them stay as they are, whatever else is written.
    #[must_use]
    pub fn settled_lines(&self) -> usize {
        self.settled_lines
    }

    /// Bytes of the text that made [those lines](Self::settled_lines).
    #[must_use]
    pub fn settled_bytes(&self) -> usize {
        self.settled.len()
    }

    /// Takes `text`, the whole of it, and renders what is new. Where neither text nor look has
    /// changed, that is nothing; where the text is another one or the look has changed, it is all.
    pub fn update(&mut self, text: &str, look: Look, stage: Stage) {
        if self.look != Some(look) || !text.starts_with(&self.settled) {
            *self = Self { look: Some(look), ..Self::default() };
        }
        let rest = &text[self.settled.len()..];
        if self.stage == Some(stage) && self.rest == rest {
            return;
        }
        self.lines.truncate(self.settled_lines);
        let settled = match look.form {
            Form::Markdown => self.markdown(rest, look, stage),
            Form::Raw => self.raw(rest, look),
        };
        self.settled.push_str(&rest[..settled]);
        self.rest.clear();
        self.rest.push_str(&rest[settled..]);
        self.stage = Some(stage);
    }

    /// Renders `rest`; returns how many bytes of it are settled by that.
    fn markdown(&mut self, rest: &str, look: Look, stage: Stage) -> usize {
        let shown = match stage {
            Stage::Growing => growing::completed(rest),
            Stage::Complete => rest.into(),
        };
        let follows = self.settled_lines > 0;
        let rendered = render::render(&shown, look.width.into(), &look.theme, follows);
        self.lines.extend(rendered.lines);
        self.settled_lines += rendered.settled_lines;
        rendered.settled
    }

    fn raw(&mut self, rest: &str, look: Look) -> usize {
        let settled = rest.rfind('\n').map_or(0, |place| place + 1);
        if settled > 0 {
            self.lines.extend(raw_lines(&rest[..settled - 1], look.width, &look.theme));
            self.settled_lines = self.lines.len();
        }
        self.lines.extend(raw_lines(&rest[settled..], look.width, &look.theme));
        settled
    }
}
