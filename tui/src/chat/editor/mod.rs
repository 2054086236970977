//! The editor: a message of several lines, with history, folded pastes and completion.
//!
//! Text, undo and the kill buffer are `ratatui-textarea`'s. Motion goes by what people take for
//! characters (grapheme clusters), and drawing is ours: lines wrap at words, wide characters take
//! the cells that ratatui gives them, and a long paste is one unit that shows its length.
//!
//! | key | does |
//! |---|---|
//! | Enter | sends |
//! | Alt-Enter, Shift-Enter, Ctrl-J; Enter after `\` | new line |
//! | Up, Down on the first, last row; Ctrl-P, Ctrl-N | history |
//! | Tab, Shift-Tab; Esc | completion of a command; takes it back |
//! | Ctrl-A, Ctrl-E, Home, End | ends of the line; with Ctrl-Home, Ctrl-End of the text |
//! | Alt-B, Alt-F, Ctrl-Left, Ctrl-Right | by words |
//! | Ctrl-K, Ctrl-U, Ctrl-W, Alt-D; Ctrl-Y | cut to the end, to the beginning, a word; paste that |
//! | Ctrl-_, Alt-_ | undo, redo |

mod folds;
mod popup;
#[cfg(test)]
mod tests;
mod view;
mod walk;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui_textarea::{CursorMove, TextArea};
use unicode_segmentation::UnicodeSegmentation;

use self::folds::Folds;
use self::popup::Popup;
use self::view::View;
use self::walk::Walk;
use super::command::Candidate;
use super::theme::Theme;
use crate::clean::OneLine;

/// Longer pastes are folded, in characters: more than a screen, and then nobody edits by eye.
const PASTE_CHARS_MAX: usize = 8 * 1024;
/// Pastes of more lines are folded.
const PASTE_LINES_MAX: usize = 100;
/// Most characters that stand in the editor unfolded. Every key costs time in proportion to them,
/// and the text area jumps to places below 65,536 only.
const CHARS_MAX: usize = 32 * 1024;
/// Longest line that is completed, in bytes.
const COMPLETED_BYTES_MAX: usize = 4096;
/// Steps that can be undone.
const UNDO_MAX: usize = 1000;

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the key is not the editor's, or there was nothing to do. Others may use it.
    Ignored,
    /// Text, cursor or candidates changed: draw again.
    Changed,
    /// The text shall be sent. It stands in the editor until [`Editor::accept`], so that nothing
    /// is lost when it is refused.
    Submit(String),
    /// Candidates are wanted, for [`Editor::completable`]; [`Editor::offer`] takes them.
    Complete,
}

/// The editor.
#[derive(Debug)]
pub struct Editor {
    text: TextArea<'static>,
    folds: Folds,
    walk: Walk,
    popup: Option<Popup>,
    view: View,
    placeholder: String,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new(Vec::new(), "")
    }
}

impl Editor {
    /// An empty editor. `history` has what was sent before, oldest first; `placeholder` is shown
    /// while there is no text.
    #[must_use]
    pub fn new(history: Vec<String>, placeholder: &str) -> Self {
        Self {
            text: area(Vec::new()),
            folds: Folds::default(),
            walk: Walk::new(history),
            popup: None,
            view: View::default(),
            placeholder: placeholder.to_owned(),
        }
    }

    /// Takes a key. Releases of keys are ignored.
    pub fn handle(&mut self, key: KeyEvent) -> Outcome {
        if key.kind == KeyEventKind::Release {
            return Outcome::Ignored;
        }
        let modifiers = key.modifiers;
        let alt = modifiers.contains(KeyModifiers::ALT);
        let control = modifiers.contains(KeyModifiers::CONTROL);
        if let Some(outcome) = self.popup_key(key.code) {
            return outcome;
        }
        let vertical = matches!(key.code, KeyCode::Up | KeyCode::Down);
        let moved = match key.code {
            KeyCode::Enter if alt || control || modifiers.contains(KeyModifiers::SHIFT) => {
                self.insert("\n")
            }
            KeyCode::Enter => return self.enter(),
            KeyCode::Tab if self.completable().is_some() => return Outcome::Complete,
            KeyCode::Up => self.up(),
            KeyCode::Down => self.down(),
            KeyCode::Left if alt || control => self.by_word(CursorMove::WordBack),
            KeyCode::Right if alt || control => self.by_word(CursorMove::WordForward),
            KeyCode::Left => self.back(),
            KeyCode::Right => self.forward(),
            KeyCode::Home if control => self.jump(0, 0),
            KeyCode::End if control => self.jump(usize::MAX, usize::MAX),
            KeyCode::Home => self.line_start(),
            KeyCode::End => self.line_end(),
            KeyCode::Backspace if alt || control => self.text.delete_word(),
            KeyCode::Delete if alt || control => self.text.delete_next_word(),
            KeyCode::Backspace => self.delete_back(),
            KeyCode::Delete => self.delete_forward(),
            KeyCode::Char(letter) if control && !alt => self.control_key(letter),
            KeyCode::Char(letter) if alt && !control => self.alt_key(letter),
            KeyCode::Char(letter) if !alt && !control => {
                self.insert(letter.encode_utf8(&mut [0; 4]))
            }
            _ => false,
        };
        if !moved {
            return Outcome::Ignored;
        }
        self.view.changed(vertical);
        Outcome::Changed
    }

    fn control_key(&mut self, letter: char) -> bool {
        match letter {
            'j' => self.insert("\n"),
            'a' => self.line_start(),
            'e' => self.line_end(),
            'b' => self.back(),
            'f' => self.forward(),
            'p' => self.history_back(),
            'n' => self.history_forward(),
            'h' => self.delete_back(),
            // On an empty text it means the end of input, which is not the editor's.
            'd' => !self.is_empty() && self.delete_forward(),
            'k' => self.text.delete_line_by_end(),
            'u' => self.text.delete_line_by_head(),
            'w' => self.text.delete_word(),
            'y' => self.yank(),
            // Terminals send the same byte for Ctrl-_, Ctrl-/ and Ctrl-7.
            '_' | '/' | '7' => self.text.undo(),
            _ => false,
        }
    }

    fn alt_key(&mut self, letter: char) -> bool {
        match letter {
            'b' => self.by_word(CursorMove::WordBack),
            'f' => self.by_word(CursorMove::WordForward),
            'd' => self.text.delete_next_word(),
            '_' | '/' | '7' => self.text.redo(),
            _ => false,
        }
    }

    /// A new line after `\`, else the text, unless it is blank.
    fn enter(&mut self) -> Outcome {
        let (row, column) = self.cursor();
        let line = &self.text.lines()[row];
        if column == line.chars().count() && line.ends_with('\\') {
            self.text.delete_char();
            self.text.insert_newline();
            self.view.changed(false);
            return Outcome::Changed;
        }
        let text = self.text();
        if text.trim().is_empty() { Outcome::Ignored } else { Outcome::Submit(text) }
    }

    /// Inserts a paste at the cursor, as it is but for line ends (`\n` from here on) and control
    /// sequences, which disappear; tabs stay. A long one is folded: it stands in the text as one
    /// character, shows as its length, and is whole again in what is sent.
    pub fn insert_paste(&mut self, paste: &str) -> Outcome {
        let clean = clean(paste);
        let chars = clean.chars().count();
        let lines = clean.matches('\n').count() + 1;
        let full = self.chars() + chars > CHARS_MAX;
        let inserted = if chars > PASTE_CHARS_MAX || lines > PASTE_LINES_MAX || full {
            match self.folds.fold(&clean) {
                Some(mark) => self.text.insert_str(mark.encode_utf8(&mut [0; 4])),
                // All marks are taken: the whole text becomes one paste.
                None => {
                    self.text.insert_str(clean);
                    self.show(&self.text());
                    true
                }
            }
        } else {
            self.text.insert_str(clean)
        };
        if !inserted {
            return Outcome::Ignored;
        }
        self.popup = None;
        self.view.changed(false);
        Outcome::Changed
    }

    /// Replaces the text; the cursor stands at its end. A very long one is folded.
    pub fn set_text(&mut self, text: &str) {
        self.walk.leave();
        self.show(text);
    }

    /// The text, folded pastes in full.
    #[must_use]
    pub fn text(&self) -> String {
        self.folds.unfold(&self.raw())
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text for sent: it joins the history (unless it is the last entry there already),
    /// and the editor is empty.
    pub fn accept(&mut self) {
        self.walk.push(self.text());
        self.clear();
    }

    /// Empties the editor.
    pub fn clear(&mut self) {
        self.walk.leave();
        self.restart(Vec::new(), Folds::default());
    }

    /// Rows that the text takes at `width` columns: at least 1, at most `max`.
    pub fn height(&mut self, width: u16, max: u16) -> u16 {
        let rows = self.view.rows(self.text.lines(), &self.folds, width).len();
        u16::try_from(rows).unwrap_or(u16::MAX).min(max).max(1)
    }

    /// Draws the part of the text where the cursor is; gives the place of the cursor, which lies
    /// in `area` unless that is empty.
    pub fn draw(&mut self, area: Rect, buf: &mut Buffer, theme: &Theme) -> Position {
        let area = area.intersection(buf.area);
        if area.is_empty() {
            return area.as_position();
        }
        if self.is_empty() {
            buf.set_stringn(area.x, area.y, &self.placeholder, area.width.into(), theme.dim);
            self.view.rows(self.text.lines(), &self.folds, area.width);
            return area.as_position();
        }
        let cursor = self.cursor();
        self.view.draw(self.text.lines(), &self.folds, cursor, area, buf, theme)
    }

    /// The line and the place of the cursor in it, in bytes, where it can be completed: a single
    /// line that begins with a slash.
    #[must_use]
    pub fn completable(&self) -> Option<(String, usize)> {
        let [line] = self.text.lines() else { return None };
        if !line.starts_with('/') || line.len() > COMPLETED_BYTES_MAX {
            return None;
        }
        let (_, column) = self.cursor();
        Some((line.clone(), byte(line, column)))
    }

    /// Answers [`Outcome::Complete`]: a single candidate is taken, several are shown, and the first
    /// is in the line already.
    pub fn offer(&mut self, candidates: Vec<Candidate>) {
        let single = candidates.len() == 1;
        self.suggest(candidates);
        self.turn(true);
        if single {
            self.popup = None;
        }
    }

    /// Shows candidates while the user types; Tab takes the first of them.
    pub fn suggest(&mut self, candidates: Vec<Candidate>) {
        self.popup = match self.completable() {
            Some((line, _)) => Popup::new(line, candidates),
            None => None,
        };
    }

    /// The candidates that are shown.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        self.popup.as_ref().map_or(&[], Popup::candidates)
    }

    /// Which of the candidates is in the line.
    #[must_use]
    pub fn selected(&self) -> Option<usize> {
        self.popup.as_ref().and_then(Popup::selected)
    }

    /// Draws as many candidates as `area` has rows, the selected one among them.
    pub fn draw_candidates(&self, area: Rect, buf: &mut Buffer, theme: &Theme) {
        if let Some(popup) = &self.popup {
            popup.draw(area.intersection(buf.area), buf, theme);
        }
    }

    /// Keys while candidates are shown: every other key closes them and does what it does.
    fn popup_key(&mut self, code: KeyCode) -> Option<Outcome> {
        self.popup.as_ref()?;
        match code {
            KeyCode::Tab => self.turn(true),
            KeyCode::BackTab => self.turn(false),
            KeyCode::Esc => {
                let popup = self.popup.take()?;
                if popup.selected().is_some() {
                    self.replace(popup.line());
                }
            }
            _ => {
                self.popup = None;
                return None;
            }
        }
        Some(Outcome::Changed)
    }

    /// Puts the next candidate into the line, or the one before.
    fn turn(&mut self, forward: bool) {
        let Some(popup) = &mut self.popup else { return };
        let (line, cursor) = popup.turn(forward);
        self.replace(&line);
        let column = line[..cursor].chars().count();
        self.jump(0, column);
    }

    /// Replaces the only line; undo leads back, and the kill buffer stays.
    fn replace(&mut self, line: &str) {
        let killed = self.text.yank_text();
        let chars = self.text.lines()[0].chars().count();
        self.jump(0, 0);
        self.text.delete_str(chars);
        self.text.insert_str(line);
        self.text.set_yank_text(killed);
        self.view.changed(false);
    }

    /// Shows `text` without leaving the history.
    fn show(&mut self, text: &str) {
        let clean = clean(text);
        let mut folds = Folds::default();
        let mark = if clean.chars().count() > CHARS_MAX { folds.fold(&clean) } else { None };
        let shown = mark.map_or(clean, String::from);
        self.restart(shown.split('\n').map(str::to_owned).collect(), folds);
        self.jump(usize::MAX, usize::MAX);
    }

    /// Another text, with its folds; the kill buffer stays.
    fn restart(&mut self, lines: Vec<String>, folds: Folds) {
        let killed = self.folds.unfold(&self.text.yank_text());
        self.folds = folds;
        self.text = area(lines);
        self.text.set_yank_text(killed);
        self.popup = None;
        self.view.changed(false);
    }

    /// The text with marks for folded pastes.
    fn raw(&self) -> String {
        self.text.lines().join("\n")
    }

    fn chars(&self) -> usize {
        self.text.lines().iter().map(|line| line.chars().count() + 1).sum()
    }

    /// Row and column of the cursor, in lines and characters.
    fn cursor(&self) -> (usize, usize) {
        let cursor = self.text.cursor();
        (cursor.0, cursor.1)
    }

    fn insert(&mut self, text: &str) -> bool {
        self.chars() < 2 * CHARS_MAX && self.text.insert_str(clean(text))
    }

    fn yank(&mut self) -> bool {
        let killed = self.folds.unfold(&self.text.yank_text());
        self.insert_paste(&killed) == Outcome::Changed
    }

    /// Moves the cursor to a line and a character of it, or the last there is; whether it moved.
    fn jump(&mut self, row: usize, column: usize) -> bool {
        let before = self.cursor();
        let short = |place| u16::try_from(place).unwrap_or(u16::MAX);
        self.text.move_cursor(CursorMove::Jump(short(row), short(column)));
        before != self.cursor()
    }

    fn line_start(&mut self) -> bool {
        self.jump(self.cursor().0, 0)
    }

    fn line_end(&mut self) -> bool {
        self.jump(self.cursor().0, usize::MAX)
    }

    fn by_word(&mut self, motion: CursorMove) -> bool {
        let before = self.cursor();
        self.text.move_cursor(motion);
        before != self.cursor()
    }

    /// Characters of the cluster before the cursor; none at the beginning of a line.
    fn cluster_before(&self) -> usize {
        let (row, column) = self.cursor();
        let line = &self.text.lines()[row];
        let before = line[..byte(line, column)].graphemes(true).next_back();
        before.map_or(0, |cluster| cluster.chars().count())
    }

    /// Characters of the cluster after the cursor; none at the end of a line.
    fn cluster_after(&self) -> usize {
        let (row, column) = self.cursor();
        let line = &self.text.lines()[row];
        let after = line[byte(line, column)..].graphemes(true).next();
        after.map_or(0, |cluster| cluster.chars().count())
    }

    fn back(&mut self) -> bool {
        let (row, column) = self.cursor();
        match self.cluster_before() {
            0 if row == 0 => false,
            0 => self.jump(row - 1, usize::MAX),
            chars => self.jump(row, column - chars),
        }
    }

    fn forward(&mut self) -> bool {
        let (row, column) = self.cursor();
        match self.cluster_after() {
            0 if row + 1 == self.text.lines().len() => false,
            0 => self.jump(row + 1, 0),
            chars => self.jump(row, column + chars),
        }
    }

    fn delete_back(&mut self) -> bool {
        match self.cluster_before() {
            0 => self.text.delete_newline(),
            chars => (0..chars).fold(false, |_, _| self.text.delete_char()),
        }
    }

    fn delete_forward(&mut self) -> bool {
        self.forward() && self.delete_back()
    }

    /// One row up; from the first row, one message back.
    fn up(&mut self) -> bool {
        match self.view.above(self.text.lines(), &self.folds, self.cursor()) {
            Some((row, column)) => self.jump(row, column),
            None => self.history_back(),
        }
    }

    /// One row down; from the last row, one message on.
    fn down(&mut self) -> bool {
        match self.view.below(self.text.lines(), &self.folds, self.cursor()) {
            Some((row, column)) => self.jump(row, column),
            None => self.history_forward(),
        }
    }

    fn history_back(&mut self) -> bool {
        let text = self.text();
        self.walk.back(text).is_some_and(|text| {
            self.show(&text);
            true
        })
    }

    fn history_forward(&mut self) -> bool {
        let text = self.text();
        self.walk.forward(text).is_some_and(|text| {
            self.show(&text);
            true
        })
    }
}

fn area(lines: Vec<String>) -> TextArea<'static> {
    let mut area = TextArea::new(lines);
    area.set_max_histories(UNDO_MAX);
    area
}

/// Byte of the character `column` of `line`, or its end.
fn byte(line: &str, column: usize) -> usize {
    line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
}

/// Text from outside: line ends are `\n`, tabs stay, control sequences and marks of folds go.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let text = text.replace("\r\n", "\n");
    for piece in text.split_inclusive(['\n', '\r', '\t']) {
        let end = piece.chars().next_back().filter(|c| matches!(c, '\n' | '\r' | '\t'));
        let body = &piece[..piece.len() - end.map_or(0, char::len_utf8)];
        if body.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            clean.push_str(body);
        } else {
            let body = OneLine(body).to_string();
            clean.extend(body.chars().filter(|c| !folds::is_mark(*c)));
        }
        clean.extend(end.map(|end| if end == '\r' { '\n' } else { end }));
    }
    clean
}
