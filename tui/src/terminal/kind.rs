//! What a terminal can show.

use crate::chat::theme::Theme;

/// What the environment says about the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// It cannot move its cursor (`TERM` is `dumb` or not set): only lines can be written.
    pub dumb: bool,
    /// The colours it has, and the user wants.
    pub colours: Colours,
    /// What `COLORFGBG` says; the terminal itself may say more, see
    /// [`Incoming::Background`](super::Incoming::Background).
    pub background: Option<Background>,
    /// Whether it may be asked questions: it answers those that it understands and drops the
    /// others.
    pub answers: bool,
}

/// Colours that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// None (`NO_COLOR`).
    None,
    /// The 16 that every terminal has.
    Basic,
    /// All (`COLORTERM` is `truecolor` or `24bit`, or `TERM` ends in `-direct`).
    Full,
}

/// Behind the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// Light letters on a dark screen.
    Dark,
    /// Dark letters on a light screen.
    Light,
}

impl Kind {
    /// Of the terminal that the program was started on.
    #[must_use]
    pub fn detect() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    /// From the value of each environment variable.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        // Empty is the same as absent, as no-color.org says.
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let term = variable("TERM").unwrap_or_else(|| "dumb".into());
        let full = |value: String| matches!(&*value, "truecolor" | "24bit");
        let colours = if variable("NO_COLOR").is_some() || term.ends_with("-mono") {
            Colours::None
        } else if variable("COLORTERM").is_some_and(full) || term.ends_with("-direct") {
            Colours::Full
        } else {
            Colours::Basic
        };
        // `text;background` or `text;default;background`, as numbers of the 16 colours.
        let background = variable("COLORFGBG").and_then(|value| {
            match value.rsplit(';').next()?.parse::<u8>().ok()? {
                0..=6 | 8 => Some(Background::Dark),
                7 | 9..=15 => Some(Background::Light),
                _ => None,
            }
        });
        let dumb = term == "dumb";
        // The console of Linux knows neither the question nor how to leave it unanswered.
        Self { dumb, colours, background, answers: !dumb && !term.starts_with("linux") }
    }

    /// The theme for this terminal, on `background` if that is known.
    #[must_use]
    pub fn theme(self, background: Option<Background>) -> Theme {
        match (self.colours, background.or(self.background)) {
            (Colours::None, _) => Theme::plain(),
            (Colours::Basic, _) => Theme::basic(),
            (Colours::Full, Some(Background::Light)) => Theme::light(),
            (Colours::Full, Some(Background::Dark) | None) => Theme::dark(),
        }
    }
}

impl Background {
    /// Of a colour; red, green and blue go from 0 to 1.
    pub(super) fn of([red, green, blue]: [f32; 3]) -> Self {
        // Perceived lightness (ITU-R BT.601); half of it is the usual border.
        let light = 0.299 * red + 0.587 * green + 0.114 * blue;
        if light > 0.5 { Self::Light } else { Self::Dark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(variables: &[(&str, &str)]) -> Kind {
        Kind::of(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn dumb_terminals_are_known() {
        assert!(kind(&[]).dumb && kind(&[("TERM", "")]).dumb && kind(&[("TERM", "dumb")]).dumb);
        assert!(!kind(&[("TERM", "dumb")]).answers);
        let xterm = kind(&[("TERM", "xterm-256color")]);
        assert!(!xterm.dumb && xterm.answers);
        let console = kind(&[("TERM", "linux")]);
        assert!(!console.dumb && !console.answers);
    }

    #[test]
    fn colours_are_asked_for_or_refused() {
        let colours = |variables: &[_]| kind(&[variables, &[("TERM", "xterm")]].concat()).colours;
        assert_eq!(colours(&[]), Colours::Basic);
        assert_eq!(colours(&[("COLORTERM", "truecolor")]), Colours::Full);
        assert_eq!(colours(&[("COLORTERM", "24bit")]), Colours::Full);
        assert_eq!(colours(&[("COLORTERM", "truecolor"), ("NO_COLOR", "1")]), Colours::None);
        assert_eq!(colours(&[("COLORTERM", "truecolor"), ("NO_COLOR", "")]), Colours::Full);
        assert_eq!(kind(&[("TERM", "xterm-direct")]).colours, Colours::Full);
    }

    #[test]
    fn the_background_chooses_the_theme() {
        let on = |value| kind(&[("TERM", "x"), ("COLORTERM", "24bit"), ("COLORFGBG", value)]);
        let (dark, light) = (Some(Background::Dark), Some(Background::Light));
        for (value, background) in [
            ("15;0", dark),
            ("0;15", light),
            ("0;default;15", light),
            ("7;8", dark),
            ("0;7", light),
            ("default", None),
            ("1;99", None),
        ] {
            assert_eq!(on(value).background, background, "{value}");
        }
        assert_eq!(on("15;0").theme(None), Theme::dark());
        assert_eq!(on("0;15").theme(None), Theme::light());
        assert_eq!(on("15;0").theme(light), Theme::light(), "the terminal knows best");
        assert_eq!(kind(&[("TERM", "x")]).theme(light), Theme::basic());
        assert_eq!(kind(&[("NO_COLOR", "1")]).theme(dark), Theme::plain());
        assert_eq!(Background::of([1.0, 1.0, 0.9]), Background::Light);
        assert_eq!(Background::of([0.1, 0.2, 0.4]), Background::Dark);
    }
}
