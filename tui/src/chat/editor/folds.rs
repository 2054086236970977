//! Long pastes that stand in the text as one character each.

/// The characters that stand for pastes: Unicode calls them noncharacters, for use inside of
/// programs and never in a text that is passed on.
const MARKS: core::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// Whether a character stands for a paste.
pub(super) fn is_mark(c: char) -> bool {
    MARKS.contains(&c)
}

/// Which paste it stands for.
fn place(c: char) -> Option<usize> {
    is_mark(c).then(|| c as usize - *MARKS.start() as usize)
}

/// The folded pastes of one message.
#[derive(Debug, Default)]
pub(super) struct Folds(Vec<Fold>);

#[derive(Debug)]
struct Fold {
    text: String,
    label: String,
}

impl Folds {
    /// The character that stands for `text` from now on; the same one for the same text. `None`
    /// when all 32 are taken.
    pub(super) fn fold(&mut self, text: &str) -> Option<char> {
        let known = self.0.iter().position(|fold| fold.text == text);
        let place = known.unwrap_or(self.0.len());
        let mark = MARKS.clone().nth(place)?;
        if known.is_none() {
            let label = format!("[pasted {} characters]", grouped(text.chars().count()));
            self.0.push(Fold { text: text.to_owned(), label });
        }
        Some(mark)
    }

    /// What is shown for a cluster that begins with a mark.
    pub(super) fn label(&self, cluster: &str) -> Option<&str> {
        let place = place(cluster.chars().next()?)?;
        self.0.get(place).map(|fold| fold.label.as_str())
    }

    /// The text with pastes in the places of their marks.
    pub(super) fn unfold(&self, text: &str) -> String {
        let mut whole = String::with_capacity(text.len());
        for c in text.chars() {
            match place(c).and_then(|place| self.0.get(place)) {
                Some(fold) => whole.push_str(&fold.text),
                None => whole.push(c),
            }
        }
        whole
    }
}

/// Digits in threes.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
