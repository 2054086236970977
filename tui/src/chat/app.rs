//! [`App`]: the chat on a whole screen. Keys, pastes and news go in, frames come out; what is to be
//! done outside comes out as [`Effect`]s. No terminal, so that tests draw what recorded events lead
//! to.

use std::path::PathBuf;
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::event::{MouseEvent, MouseEventKind};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Clear, Widget};
use tercet_host::measure::sampler::Snapshot;

use super::command;
use super::editor::{Editor, Outcome};
use super::panel::{self, PanelView};
use super::screen::{Areas, areas};
use super::state::{Chat, Effect, State};
use super::theme::Theme;
use super::worker::News;

/// Lines that a step of the mouse's wheel moves.
const WHEEL: isize = 3;
/// Most candidates that are shown at a time.
const CANDIDATES: u16 = 8;

/// What keys do.
const KEYS: &str = "\
Keys:
  Enter                      send; Alt-Enter, Ctrl-J or a \\ at the end: a new line
  Esc                        stop the answer, and keep what is there of it
  Ctrl-C                     stop the answer; when there is none, leave
  Ctrl-D                     leave, when nothing is typed
  Tab                        complete a command, a setting, a file or a session
  Up, Down                   what was sent before
  PageUp, PageDown           scroll
  F2                         let the mouse scroll, or select as the terminal does
  Ctrl-L                     draw the screen anew";

/// How the screen looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Colours.
    pub theme: Theme,
    /// Whether bars and lines are drawn with letters of ASCII.
    pub ascii: bool,
    /// Whether it is but a part of the screen, above which complete lines stay.
    pub inline: bool,
}

/// The chat on a screen.
#[derive(Debug)]
pub struct App {
    /// What is shown.
    pub chat: Chat,
    /// What is being typed.
    pub editor: Editor,
    look: Look,
    /// Whether the numbers are shown.
    numbers: bool,
    /// Whether what is being typed shall take the place of the last message.
    revising: bool,
    /// Whether the last key was a Ctrl-C that had nothing to stop.
    leaving: bool,
    /// Whether the mouse is ours.
    mouse: bool,
    seen: Snapshot,
    places: Places,
}

/// What completion looks at.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Names of saved sessions.
    pub sessions: Vec<String>,
    /// Where relative paths begin.
    pub folder: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

/// What keys ask of the terminal, beside what the chat asks.
#[derive(Debug)]
pub enum Wish {
    /// Something of the chat.
    Chat(Effect),
    /// The text was sent: keep it in the history.
    Remember(String),
    /// Stop the program, as the shell's job control does.
    Suspend,
    /// Take the mouse, or leave it to the terminal.
    Mouse(bool),
    /// Draw everything anew.
    Redraw,
}

impl From<Effect> for Wish {
    fn from(effect: Effect) -> Self {
        Self::Chat(effect)
    }
}

impl App {
    /// The chat with an editor that knows what was sent before.
    #[must_use]
    pub fn new(mut chat: Chat, history: Vec<String>, places: Places, look: Look) -> Self {
        chat.keys = KEYS;
        let editor = Editor::new(history, "Type a message, /help for commands");
        Self {
            chat,
            editor,
            look,
            numbers: true,
            revising: false,
            leaving: false,
            mouse: false,
            seen: Snapshot::default(),
            places,
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Vec<Wish> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        let leaving = core::mem::take(&mut self.leaving);
        if let Some(wishes) = self.own_key(key, leaving) {
            return wishes;
        }
        match self.editor.handle(key) {
            Outcome::Submit(text) => self.submit(&text),
            Outcome::Complete => {
                let candidates = self.candidates();
                self.editor.offer(candidates);
                Vec::new()
            }
            Outcome::Changed => {
                self.suggest();
                Vec::new()
            }
            Outcome::Ignored => Vec::new(),
        }
    }

    /// Keys that are not the editor's; `None` for others.
    fn own_key(&mut self, key: KeyEvent, leaving: bool) -> Option<Vec<Wish>> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let shift = key.modifiers.contains(KeyModifiers::SHIFT);
        let mut wishes = Vec::new();
        match key.code {
            // It has been asked already.
            KeyCode::Char('c') if control && self.chat.state == State::Stopping => {
                wishes.push(Effect::Quit.into());
            }
            KeyCode::Char('c') if control => match self.chat.stop() {
                Some(stop) => wishes.push(stop.into()),
                None if leaving || self.editor.is_empty() => wishes.push(Effect::Quit.into()),
                None => {
                    self.leaving = true;
                    self.revising = false;
                    // Up brings it back.
                    self.editor.accept();
                    self.chat.notice("Ctrl-C once more leaves");
                }
            },
            KeyCode::Char('d') if control && self.editor.is_empty() => {
                wishes.push(Effect::Quit.into());
            }
            KeyCode::Char('l') if control => wishes.push(Wish::Redraw),
            KeyCode::Char('z') if control => wishes.push(Wish::Suspend),
            KeyCode::Esc if self.chat.is_asked() || self.editor.candidates().is_empty() => {
                match self.chat.stop() {
                    Some(stop) => wishes.push(stop.into()),
                    None if self.revising => {
                        self.revising = false;
                        self.editor.clear();
                    }
                    None => self.chat.transcript.scroll_to_end(),
                }
            }
            KeyCode::PageUp => self.chat.transcript.scroll_screens(1),
            KeyCode::PageDown => self.chat.transcript.scroll_screens(-1),
            KeyCode::Up if shift => self.chat.transcript.scroll(1),
            KeyCode::Down if shift => self.chat.transcript.scroll(-1),
            KeyCode::F(2) => {
                self.mouse = !self.mouse;
                wishes.push(Wish::Mouse(self.mouse));
            }
            _ => return None,
        }
        Some(wishes)
    }

    /// Takes a paste.
    pub fn paste(&mut self, text: &str) {
        self.leaving = false;
        self.editor.insert_paste(text);
        self.suggest();
    }

    /// Takes what the mouse did, where it is ours.
    pub fn mouse(&mut self, event: MouseEvent) {
        match event.kind {
            MouseEventKind::ScrollUp => self.chat.transcript.scroll(WHEEL),
            MouseEventKind::ScrollDown => self.chat.transcript.scroll(-WHEEL),
            _ => {}
        }
    }

    /// Sends what was typed.
    fn submit(&mut self, text: &str) -> Vec<Wish> {
        let is_message = matches!(command::read(text), Ok(command::Input::Message(_)));
        let done = if self.revising && is_message && !self.chat.is_asked() {
            Ok(vec![self.chat.revise(text.to_owned())])
        } else {
            self.chat.say(text)
        };
        // What was refused stays in the editor.
        let Ok(effects) = done else { return Vec::new() };
        self.revising = false;
        self.editor.accept();
        let remember = Wish::Remember(text.to_owned());
        core::iter::once(remember).chain(self.inner(effects)).collect()
    }

    /// Takes what the engine tells.
    pub fn news(&mut self, news: News) -> Vec<Wish> {
        let effects = self.chat.hear(news);
        self.inner(effects)
    }

    /// Does what concerns the screen; gives back the rest.
    fn inner(&mut self, effects: Vec<Effect>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for effect in effects {
            match effect {
                Effect::Revise(text) => {
                    self.revising = true;
                    self.editor.set_text(&text);
                }
                Effect::GiveBack(text) if self.editor.is_empty() => self.editor.set_text(&text),
                Effect::GiveBack(_) => {
                    self.chat.notice("what was asked is a key away (Up), behind what is typed");
                }
                Effect::ShowNumbers(on) => self.numbers = on.unwrap_or(!self.numbers),
                other => wishes.push(other.into()),
            }
        }
        wishes
    }

    /// Takes what the sampler last saw. Returns whether it is new.
    pub fn see(&mut self, seen: Snapshot) -> bool {
        let is_new = seen.looks != self.seen.looks;
        self.seen = seen;
        self.chat.stats.note_neighbours(seen.neighbours);
        is_new
    }

    /// Takes other colours.
    pub fn set_theme(&mut self, theme: Theme) {
        self.look.theme = theme;
    }

    /// Lines of the conversation that are complete: to be put where they stay, `width` columns
    /// wide. They are not drawn any more.
    pub fn settle(&mut self, width: u16) -> Vec<Line<'static>> {
        self.chat.transcript.settle(width, &self.look.theme)
    }

    /// Takes new names of sessions.
    pub fn know_sessions(&mut self, sessions: Vec<String>) {
        self.places.sessions = sessions;
    }

    /// Whether what is drawn changes by itself, as time goes by.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.chat.is_busy() || matches!(self.chat.state, State::Loading(..))
    }

    /// Offers names while one is being typed.
    fn suggest(&mut self) {
        let is_name = self.editor.completable().is_some_and(|(line, _)| !line.contains(' '));
        let candidates = if is_name { self.candidates() } else { Vec::new() };
        self.editor.suggest(candidates);
    }

    fn candidates(&self) -> Vec<command::Candidate> {
        let Some((line, cursor)) = self.editor.completable() else { return Vec::new() };
        let Places { sessions, folder, home } = &self.places;
        let context = command::Context { sessions, folder, home: home.as_deref() };
        command::complete(&line, cursor, &context)
    }

    /// Draws everything, as it is at `now`.
    pub fn draw(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let area = frame.area();
        let Look { theme, .. } = self.look;
        let editor = &mut self.editor;
        let parts =
            areas(area, (self.numbers, self.look.inline), |width| editor.height(width, u16::MAX));
        let Areas { transcript, panel, status, rule, editor } = parts;
        let buf = frame.buffer_mut();
        self.chat.transcript.draw(transcript, buf, &theme);
        self.draw_rule(rule, buf);
        if panel.area() > 0 {
            panel::draw(panel, buf, &self.view(now), &theme);
        }
        if status.area() > 0 {
            let line = panel::status_line(&self.view(now), status.width, &theme);
            line.render(status, buf);
        }
        let cursor = self.editor.draw(editor, buf, &theme);
        self.draw_candidates(transcript, buf);
        if editor.area() > 0 {
            frame.set_cursor_position(cursor);
        }
    }

    /// Candidates stand over the end of the conversation, next to what is being typed.
    fn draw_candidates(&self, above: Rect, buf: &mut Buffer) {
        let count = u16::try_from(self.editor.candidates().len()).unwrap_or(u16::MAX);
        let height = count.min(CANDIDATES).min(above.height);
        let area = Rect { y: above.bottom() - height, height, ..above };
        Clear.render(area, buf);
        self.editor.draw_candidates(area, buf, &self.look.theme);
    }

    /// The line between the conversation and the editor, with what is not as it usually is.
    fn draw_rule(&self, area: Rect, buf: &mut Buffer) {
        if area.area() == 0 {
            return;
        }
        let Look { theme, ascii, .. } = self.look;
        let stroke = if ascii { "-" } else { "─" };
        let mut words = Vec::new();
        if self.revising {
            words.push("changing the last message: Esc leaves it".to_owned());
        }
        if self.chat.transcript.is_raw() {
            words.push("raw".to_owned());
        }
        if self.mouse {
            words.push("mouse scrolls (F2)".to_owned());
        }
        match self.chat.transcript.lines_below() {
            0 => {}
            1 => words.push("1 line below (PageDown)".to_owned()),
            lines => words.push(format!("{lines} lines below (PageDown)")),
        }
        let strokes = stroke.repeat(usize::from(area.width));
        buf.set_stringn(area.x, area.y, strokes, usize::from(area.width), theme.dim);
        if !words.is_empty() && area.width > 4 {
            let text = format!(" {} ", words.join(", "));
            let room = usize::from(area.width - 2);
            buf.set_stringn(area.x + 2, area.y, text, room, theme.accent);
        }
    }

    fn view(&self, now: Instant) -> PanelView<'_> {
        self.chat.view(self.seen, self.look.ascii, now)
    }
}

#[cfg(test)]
mod tests;
