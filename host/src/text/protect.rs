//! Marks the text of special tokens inside of messages, so that it is still text after rendering.

use core::ops::Range;

use aho_corasick::AhoCorasick;
use serde_json::{Map, Value};

use super::Message;

/// Two noncharacters that stand round the text of a special token while a template is rendered.
///
/// Neither they nor their escapes (`\ufdd0`, as `tojson` and `repr` write them) occur in what is
/// rendered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brackets {
    open: char,
    close: char,
}

impl Brackets {
    /// Picks two of U+FDD0..=U+FDEF that do not occur in any of `texts`.
    pub(super) fn choose<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let mut free = ('\u{fdd0}'..='\u{fdef}').filter(|&letter| {
            let escape = escape(letter);
            texts.clone().all(|text| !text.contains(letter) && !text.contains(&escape))
        });
        Some(Self { open: free.next()?, close: free.next()? })
    }

    /// Puts brackets round the text of every special token in the messages and in `extra`.
    pub(super) fn wrap(
        self,
        specials: &Specials,
        messages: &mut [Message],
        extra: &mut Map<String, Value>,
    ) {
        for message in messages {
            self.wrap_text(specials, &mut message.role);
            self.wrap_text(specials, &mut message.content);
        }
        for value in extra.values_mut() {
            self.wrap_value(specials, value);
        }
    }

    fn wrap_value(self, specials: &Specials, value: &mut Value) {
        match value {
            Value::String(text) => self.wrap_text(specials, text),
            Value::Array(items) => {
                items.iter_mut().for_each(|item| self.wrap_value(specials, item));
            }
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.wrap_value(specials, field));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn wrap_text(self, specials: &Specials, text: &mut String) {
        let ranges = specials.find(text);
        if ranges.is_empty() {
            return;
        }
        let mut marked = String::with_capacity(text.len() + 6 * ranges.len());
        let mut start = 0;
        for range in ranges {
            marked.push_str(&text[start..range.start]);
            marked.push(self.open);
            marked.push_str(&text[range.clone()]);
            marked.push(self.close);
            start = range.end;
        }
        marked.push_str(&text[start..]);
        *text = marked;
    }

    /// Takes the brackets out of a rendered text; returns it with what stood between them.
    ///
    /// A template may cut a message between two brackets: one without its partner marks nothing.
    pub(super) fn unwrap(self, marked: &str) -> (String, Vec<Range<usize>>) {
        let marks = [
            (self.open.to_string(), true),
            (escape(self.open), true),
            (self.close.to_string(), false),
            (escape(self.close), false),
        ];
        let mut text = String::with_capacity(marked.len());
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut opened = None;
        let mut rest = marked;
        while let Some((at, mark, opens)) = first_mark(rest, &marks) {
            text.push_str(&rest[..at]);
            rest = &rest[at + mark..];
            if opens {
                opened = Some(text.len());
            } else if let Some(start) = opened.take()
                && start < text.len()
            {
                ranges.push(start..text.len());
            }
        }
        text.push_str(rest);
        (text, ranges)
    }
}

fn escape(letter: char) -> String {
    format!("\\u{:04x}", u32::from(letter))
}

/// Where the next mark begins, how long it is, and whether it opens.
fn first_mark(text: &str, marks: &[(String, bool)]) -> Option<(usize, usize, bool)> {
    let mut from = 0;
    loop {
        // Every mark begins with a backslash or with a noncharacter.
        let is_start = |letter| letter == '\\' || ('\u{fdd0}'..='\u{fdef}').contains(&letter);
        let at = from + text[from..].find(is_start)?;
        let mark = marks.iter().find(|(mark, _)| text[at..].starts_with(mark.as_str()));
        if let Some((mark, opens)) = mark {
            return Some((at, mark.len(), *opens));
        }
        from = at + text[at..].chars().next().map_or(1, char::len_utf8);
    }
}

/// The texts of special tokens, ready to be searched for in one pass.
#[derive(Clone, Debug)]
pub(super) struct Specials(Option<AhoCorasick>);

impl Specials {
    /// Texts that are empty are left out; a set that is too large to search for is `None`.
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
        if texts.is_empty() {
            return Some(Self(None));
        }
        AhoCorasick::new(texts).ok().map(|search| Self(Some(search)))
    }

    /// Where special tokens stand in `text`; overlapping ones are one range.
    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let Some(search) = &self.0 else { return ranges };
        // Matches come in the order of their ends.
        for found in search.find_overlapping_iter(text) {
            let mut range = found.range();
            while let Some(last) = ranges.last()
                && range.start < last.end
            {
                range.start = range.start.min(last.start);
                ranges.pop();
            }
            ranges.push(range);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> (Brackets, String) {
        let specials = Specials::new(["<s>", "s><e", "<end>"].into_iter()).unwrap();
        let brackets = Brackets::choose([text].into_iter()).unwrap();
        let mut text = text.to_owned();
        brackets.wrap_text(&specials, &mut text);
        (brackets, text)
    }

    #[test]
    fn overlapping_specials_are_one_range() {
        let (brackets, text) = marked("a<s><end>b <s>");
        assert_eq!(text, "a\u{fdd0}<s><end>\u{fdd1}b \u{fdd0}<s>\u{fdd1}");
        assert_eq!(brackets.unwrap(&text), ("a<s><end>b <s>".to_owned(), vec![1..9, 11..14]));
    }

    #[test]
    fn letters_and_escapes_of_the_text_are_avoided() {
        let (brackets, text) = marked("\u{fdd0} \\ufdd1 <s>");
        assert_eq!(text, "\u{fdd0} \\ufdd1 \u{fdd2}<s>\u{fdd3}");
        assert_eq!(brackets.unwrap(&text).0, "\u{fdd0} \\ufdd1 <s>");
    }

    #[test]
    fn escaped_and_lonely_brackets_are_taken_out() {
        let (brackets, _) = marked("<s>");
        let (text, ranges) = brackets.unwrap("\u{fdd1}x\u{fdd0}y\\ufdd0<s>\\ufdd1z\u{fdd1}");
        assert_eq!(text, "xy<s>z");
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges[0], 2..5);
    }
}
