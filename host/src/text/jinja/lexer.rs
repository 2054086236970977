//! Splits a template into tokens exactly as Jinja2 3.1 does (`jinja2/lexer.py`), with
//! `trim_blocks` and `lstrip_blocks` on.

use super::python::is_space;

/// Something in a template that is wrong or not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::text) struct SyntaxError {
    /// Line in the source, from 1.
    pub(in crate::text) line: u32,
    /// What is wrong; lower case, no full stop.
    pub(in crate::text) message: String,
}

impl SyntaxError {
    pub(super) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between tags, white space already removed where tags ask for it.
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Text(String),
    Integer(u128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longest first, so that the first one that fits is the right one.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";", "!",
];

/// Tokens with the lines where they begin; the last one is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>, SyntaxError> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer =
        Lexer { source: &source, at: 0, line: 1, line_starting: true, tokens: Vec::new() };
    lexer.root()?;
    lexer.push(Token::End);
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// Whether the last tag took the end of its line with it.
    line_starting: bool,
    tokens: Vec<(Token, u32)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Variable,
    Block,
    Comment,
    Raw,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError::new(self.line, message))
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn push_data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
    }

    /// Moves on by `bytes` and counts lines.
    fn advance(&mut self, bytes: usize) {
        let passed = &self.rest()[..bytes];
        self.line += u32::try_from(passed.matches('\n').count()).unwrap_or(u32::MAX);
        self.line_starting = passed.ends_with('\n');
        self.at += bytes;
    }

    fn root(&mut self) -> Result<(), SyntaxError> {
        while let Some((offset, tag, sign, length)) = self.next_tag() {
            let line_starting = self.line_starting;
            let text = &self.rest()[..offset];
            self.push_data(strip_end(text, sign, tag, line_starting));
            self.advance(offset + length);
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Raw => self.raw()?,
                Tag::Block => {
                    self.push(Token::BlockBegin);
                    self.inside(tag)?;
                }
                Tag::Variable => {
                    self.push(Token::VariableBegin);
                    self.inside(tag)?;
                }
            }
        }
        let rest = self.rest();
        self.push_data(rest);
        self.advance(rest.len());
        Ok(())
    }

    /// Offset of the next tag, what it is, its sign and the length of its beginning.
    fn next_tag(&self) -> Option<(usize, Tag, Option<char>, usize)> {
        let rest = self.rest();
        let (offset, tag) = rest.match_indices('{').find_map(|(offset, _)| {
            let tag = match rest.as_bytes().get(offset + 1)? {
                b'{' => Tag::Variable,
                b'%' => Tag::Block,
                b'#' => Tag::Comment,
                _ => return None,
            };
            Some((offset, tag))
        })?;
        let after = &rest[offset + 2..];
        let sign = after.chars().next().filter(|sign| matches!(sign, '-' | '+'));
        let length = 2 + usize::from(sign.is_some());
        if tag == Tag::Block
            && let Some(raw) = raw_begin(&rest[offset + length..])
        {
            return Some((offset, Tag::Raw, sign, length + raw));
        }
        Some((offset, tag, sign, length))
    }

    fn comment(&mut self) -> Result<(), SyntaxError> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return self.error("a comment does not end") };
        let sign = rest[..end].chars().next_back().filter(|sign| matches!(sign, '-' | '+'));
        let length = end + 2;
        self.advance(length + after_end(&rest[length..], sign));
        Ok(())
    }

    fn raw(&mut self) -> Result<(), SyntaxError> {
        let rest = self.rest();
        for (offset, _) in rest.match_indices("{%") {
            let after = &rest[offset + 2..];
            let sign = after.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let name = after[usize::from(sign.is_some())..].trim_start_matches(is_space);
            let Some(end) = name.strip_prefix("endraw") else { continue };
            let end = end.trim_start_matches(is_space);
            let end_sign = end.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let Some(left) = end[usize::from(end_sign.is_some())..].strip_prefix("%}") else {
                continue;
            };
            let length = rest.len() - left.len();
            let data = strip_end(&rest[..offset], sign, Tag::Raw, self.line_starting);
            self.push_data(data);
            self.advance(length + after_end(left, end_sign));
            return Ok(());
        }
        self.error("a raw block does not end")
    }

    /// The tokens of one tag, its end included.
    fn inside(&mut self, tag: Tag) -> Result<(), SyntaxError> {
        let mut open: Vec<char> = Vec::new();
        loop {
            let rest = self.rest();
            if open.is_empty()
                && let Some((length, token)) = tag_end(rest, tag)
            {
                self.push(token);
                self.advance(length);
                return Ok(());
            }
            let Some(first) = rest.chars().next() else {
                return self.error("a tag does not end");
            };
            if is_space(first) {
                self.advance(rest.len() - rest.trim_start_matches(is_space).len());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphabetic() {
                let is_letter = |letter: char| letter == '_' || letter.is_alphanumeric();
                let name = &rest[..rest.len() - rest.trim_start_matches(is_letter).len()];
                if !name.is_ascii() {
                    return self.error(format!("the name `{name}` is not ASCII"));
                }
                self.push(Token::Name(name.to_owned()));
                self.advance(name.len());
            } else if first == '\'' || first == '"' {
                self.text(first)?;
            } else {
                self.operator(&mut open)?;
            }
        }
    }

    fn operator(&mut self, open: &mut Vec<char>) -> Result<(), SyntaxError> {
        let rest = self.rest();
        let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
            let letter = rest.chars().next().unwrap_or_default();
            return self.error(format!("unexpected character {letter:?}"));
        };
        match *operator {
            "(" => open.push(')'),
            "[" => open.push(']'),
            "{" => open.push('}'),
            ")" | "]" | "}" if !open.pop().is_some_and(|close| operator.starts_with(close)) => {
                return self.error(format!("unexpected `{operator}`"));
            }
            _ => {}
        }
        self.push(Token::Operator(operator));
        self.advance(operator.len());
        Ok(())
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        let rest = self.rest();
        // Jinja2 takes no fraction right after a dot: `a.1.2` is `a[1][2]`.
        let after_dot = self.source[..self.at].ends_with('.');
        let (length, is_float) =
            if after_dot { (digits(rest), false) } else { number_length(rest) };
        let written: String = rest[..length].chars().filter(|letter| *letter != '_').collect();
        let token = if is_float {
            written.parse().ok().map(Token::Float)
        } else {
            integer(&written).map(Token::Integer)
        };
        let Some(token) = token else {
            return self.error(format!("the number `{written}` is not supported"));
        };
        self.push(token);
        self.advance(length);
        Ok(())
    }

    fn text(&mut self, quote: char) -> Result<(), SyntaxError> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, letter)| {
            let ends = !escaped && *letter == quote;
            escaped = !escaped && *letter == '\\';
            ends
        });
        let Some((end, _)) = end else { return self.error("a string does not end") };
        match super::python::unescape(&rest[1..end]) {
            Ok(text) => self.push(Token::Text(text)),
            Err(message) => return self.error(message),
        }
        self.advance(end + 1);
        Ok(())
    }
}

/// Length of the rest of `{% raw %}` after its sign, white space behind `-%}` included.
fn raw_begin(after_sign: &str) -> Option<usize> {
    let rest = after_sign.trim_start_matches(is_space).strip_prefix("raw")?;
    let rest = rest.trim_start_matches(is_space);
    let rest = match rest.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => rest.strip_prefix("%}")?,
    };
    Some(after_sign.len() - rest.len())
}

/// Removes white space before a tag, as its sign or `lstrip_blocks` asks.
fn strip_end(text: &str, sign: Option<char>, tag: Tag, line_starting: bool) -> &str {
    match sign {
        Some('-') => text.trim_end_matches(is_space),
        None if tag != Tag::Variable => {
            let line = text.rfind('\n').map_or(0, |newline| newline + 1);
            let is_blank = text[line..].chars().all(is_space);
            if is_blank && (line > 0 || line_starting) { &text[..line] } else { text }
        }
        _ => text,
    }
}

/// How much white space the end of a block, comment or raw block takes with it.
fn after_end(rest: &str, sign: Option<char>) -> usize {
    match sign {
        Some('-') => rest.len() - rest.trim_start_matches(is_space).len(),
        Some(_) => 0,
        None => usize::from(rest.starts_with('\n')),
    }
}

fn tag_end(rest: &str, tag: Tag) -> Option<(usize, Token)> {
    let (end, token) = match tag {
        Tag::Variable => ("}}", Token::VariableEnd),
        _ => ("%}", Token::BlockEnd),
    };
    let sign = rest.chars().next().filter(|sign| matches!(sign, '-' | '+'));
    let length = usize::from(sign.is_some()) + end.len();
    let left = rest[usize::from(sign.is_some())..].strip_prefix(end)?;
    match (tag, sign) {
        (Tag::Variable, Some('+')) => None,
        (Tag::Variable, None) => Some((length, token)),
        _ => Some((length + after_end(left, sign), token)),
    }
}

/// Length of digits in which single underscores may stand.
fn digits(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut length = 0;
    while bytes.get(length).is_some_and(u8::is_ascii_digit)
        || (length > 0
            && bytes.get(length) == Some(&b'_')
            && bytes.get(length + 1).is_some_and(u8::is_ascii_digit))
    {
        length += 1;
    }
    length
}

/// Length of a number and whether it is a float.
fn number_length(text: &str) -> (usize, bool) {
    let radix = text.get(..2).unwrap_or_default().to_ascii_lowercase();
    if matches!(radix.as_str(), "0x" | "0o" | "0b") {
        let is_digit = |letter: char| letter == '_' || letter.is_ascii_hexdigit();
        return (2 + text[2..].len() - text[2..].trim_start_matches(is_digit).len(), false);
    }
    let mut length = digits(text);
    let mut is_float = false;
    if let Some(fraction) = text[length..].strip_prefix('.')
        && digits(fraction) > 0
    {
        length += 1 + digits(fraction);
        is_float = true;
    }
    if let Some(exponent) = text[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let count = digits(&exponent[sign..]);
        if count > 0 {
            length += 1 + sign + count;
            is_float = true;
        }
    }
    (length, is_float)
}

fn integer(written: &str) -> Option<u128> {
    let radix = match written.get(..2).unwrap_or_default() {
        "0x" | "0X" => 16,
        "0o" | "0O" => 8,
        "0b" | "0B" => 2,
        _ => 10,
    };
    if radix != 10 {
        return u128::from_str_radix(&written[2..], radix).ok();
    }
    // Python and Jinja2 do not read `012` as one number.
    let is_padded = written.len() > 1 && written.starts_with('0') && written != "0";
    if is_padded && written.bytes().any(|digit| digit != b'0') {
        return None;
    }
    written.parse().ok()
}
