//! Colours of the chat.
//!
//! Meaning never rests on colour alone, and the colours are told apart by people who see no
//! difference between red and green: blue, orange and sky blue of Okabe and Ito's palette
//! ("Color Universal Design", 2008), or the nearest of the 16 colours that every terminal has.

use ratatui::style::{Color, Modifier, Style};

/// What each kind of text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Answers, and everything that is not mentioned below.
    pub text: Style,
    /// What matters less: hints, labels, borders.
    pub dim: Style,
    /// What the user said.
    pub user: Style,
    /// Names, headings, the selected entry.
    pub accent: Style,
    /// Code, in lines and in blocks.
    pub code: Style,
    /// Bars and plots.
    pub plot: Style,
    /// What deserves a look: a stall, a context that fills, the CPU instead of a GPU.
    pub warning: Style,
    /// What went wrong.
    pub error: Style,
}

/// Orange of the palette.
const ORANGE: Color = Color::Rgb(230, 159, 0);
/// Dark orange (vermillion) of the palette, readable on white too.
const VERMILLION: Color = Color::Rgb(213, 94, 0);
/// Sky blue of the palette.
const SKY: Color = Color::Rgb(86, 180, 233);
/// Blue of the palette, readable on white.
const BLUE: Color = Color::Rgb(0, 114, 178);

impl Theme {
    /// No colours: weight and slant only (`NO_COLOR`).
    #[must_use]
    pub fn plain() -> Self {
        let text = Style::new();
        let bold = text.add_modifier(Modifier::BOLD);
        Self {
            text,
            dim: text.add_modifier(Modifier::DIM),
            user: bold,
            accent: bold,
            code: text,
            plot: text,
            warning: bold,
            error: bold.add_modifier(Modifier::REVERSED),
        }
    }

    /// For light letters on a dark screen.
    #[must_use]
    pub fn dark() -> Self {
        Self::colours(SKY, ORANGE, ORANGE)
    }

    /// For dark letters on a light screen.
    #[must_use]
    pub fn light() -> Self {
        Self::colours(BLUE, VERMILLION, VERMILLION)
    }

    /// For terminals of 16 colours, light or dark.
    #[must_use]
    pub fn basic() -> Self {
        Self::colours(Color::Cyan, Color::Yellow, Color::Magenta)
    }

    fn colours(cool: Color, warm: Color, code: Color) -> Self {
        let text = Style::new();
        let bold = |colour| text.fg(colour).add_modifier(Modifier::BOLD);
        Self {
            text,
            dim: text.add_modifier(Modifier::DIM),
            user: bold(cool),
            accent: bold(cool),
            code: text.fg(code),
            plot: text.fg(cool),
            warning: bold(warm),
            error: bold(warm).add_modifier(Modifier::REVERSED),
        }
    }
}
