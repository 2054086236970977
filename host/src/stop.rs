//! [`StopTexts`]: ends an answer where a given text appears, without showing any of it.

/// Watches text that arrives in pieces for any of a list of stop texts.
#[derive(Debug)]
pub(crate) struct StopTexts<'a> {
    texts: &'a [String],
    /// Text that could be the beginning of a stop text.
    held: String,
}

impl<'a> StopTexts<'a> {
    /// Watches for `texts`; empty ones are ignored.
    pub(crate) fn new(texts: &'a [String]) -> Self {
        Self { texts, held: String::new() }
    }

    /// Takes the next piece; returns what can be shown and whether a stop text appeared.
    pub(crate) fn push(&mut self, piece: String) -> (String, bool) {
        if self.texts.is_empty() {
            return (piece, false);
        }
        self.held.push_str(&piece);
        let found = self.texts().filter_map(|text| self.held.find(text)).min();
        if let Some(place) = found {
            self.held.truncate(place);
            return (core::mem::take(&mut self.held), true);
        }
        let keep = self.held.len() - self.longest_beginning();
        let rest = self.held.split_off(keep);
        (core::mem::replace(&mut self.held, rest), false)
    }

    /// The rest, at the end of an answer that no stop text ended: `last` and what was held, up to a
    /// stop text that `last` completes.
    pub(crate) fn finish(mut self, last: String) -> String {
        let (mut text, stopped) = self.push(last);
        if !stopped {
            text.push_str(&self.held);
        }
        text
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Bytes at the end of `held` that begin a stop text.
    fn longest_beginning(&self) -> usize {
        let beginning = |text: &str| {
            let ends = text.char_indices().map(|(end, _)| end).skip(1);
            ends.filter(|end| self.held.ends_with(&text[..*end])).max().unwrap_or(0)
        };
        self.texts().map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::StopTexts;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut watch = StopTexts::new(&stops);
        let mut shown = String::new();
        for piece in pieces {
            let (text, stopped) = watch.push((*piece).to_owned());
            shown += &text;
            if stopped {
                return (shown, true);
            }
        }
        (shown + &watch.finish(String::new()), false)
    }

    #[test]
    fn stops_wherever_the_text_is_split() {
        let text = "Once upon a time.\nUser: more";
        for split in 0..=text.len() {
            let (a, b) = text.split_at(split);
            assert_eq!(run(&["\nUser:"], &[a, b]), ("Once upon a time.".into(), true), "{split}");
        }
    }

    #[test]
    fn shows_what_only_looked_like_a_stop_text() {
        assert_eq!(run(&["###"], &["a#", "#", "b##"]), ("a##b##".into(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["é!"], &["é", "?"]), ("é?".into(), false));
    }

    #[test]
    fn the_earliest_stop_text_wins() {
        assert_eq!(run(&["later", "now"], &["x now later"]), ("x ".into(), true));
        assert_eq!(run(&[""], &["text"]), ("text".into(), false));
    }
}
