//! The walk through what was sent before. What was typed on the way stays where it was typed.

use std::collections::BTreeMap;

/// Messages sent, and where the user is among them.
#[derive(Debug)]
pub(super) struct Walk {
    /// Oldest first.
    sent: Vec<String>,
    /// The entry that is shown; `sent.len()` is the draft.
    at: usize,
    /// Entries, and the draft, as the user changed them.
    changed: BTreeMap<usize, String>,
}

impl Walk {
    pub(super) fn new(sent: Vec<String>) -> Self {
        Self { at: sent.len(), sent, changed: BTreeMap::new() }
    }

    /// The message before; `shown` is what the editor has now.
    pub(super) fn back(&mut self, shown: String) -> Option<String> {
        let to = self.at.checked_sub(1)?;
        Some(self.go(to, shown))
    }

    /// The message after, at last the draft.
    pub(super) fn forward(&mut self, shown: String) -> Option<String> {
        (self.at < self.sent.len()).then(|| self.go(self.at + 1, shown))
    }

    fn go(&mut self, to: usize, shown: String) -> String {
        if self.sent.get(self.at) == Some(&shown) {
            self.changed.remove(&self.at);
        } else {
            self.changed.insert(self.at, shown);
        }
        self.at = to;
        self.changed.get(&to).or_else(|| self.sent.get(to)).cloned().unwrap_or_default()
    }

    /// The user is at the draft, and what was changed is forgotten.
    pub(super) fn leave(&mut self) {
        self.at = self.sent.len();
        self.changed.clear();
    }

    /// A message was sent.
    pub(super) fn push(&mut self, text: String) {
        if !text.is_empty() && self.sent.last() != Some(&text) {
            self.sent.push(text);
        }
        self.leave();
    }
}
