//! Blocks of code in an answer, for `/copy code`.

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

/// The text of every block of code in `answer`, which is Markdown; a block that is not closed ends
/// with the answer.
#[must_use]
pub fn blocks(answer: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for event in Parser::new(answer) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => open = Some(String::new()),
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            Event::Text(text) => {
                if let Some(open) = &mut open {
                    open.push_str(&text);
                }
            }
            _ => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn blocks_are_found_and_nothing_else() {
        let answer = "Try `this`:\n\n```rust\nfn main() {}\n\n```\n\n- or\n  ~~~\n  a\n    b\n  ~~~\n\nSo:\n\n    indented\n\n```\nopen";
        assert_eq!(blocks(answer), ["fn main() {}\n\n", "a\n  b\n", "indented\n", "open"]);
        assert!(blocks("no code, only `x`").is_empty());
    }
}
