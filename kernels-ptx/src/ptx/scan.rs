//! The scanner: tokens, and the heads that are made of them.

use super::{Entry, Parameter, PtxError, Target, Version};

/// What stands outside of functions and is of interest.
pub(super) enum Head<'a> {
    Version(Version),
    Target(Target),
    Entry(Entry<'a>),
    External(&'a str),
}

/// Walks the text from head to head, over the bodies of functions.
pub(super) struct Heads<'a> {
    tokens: Tokens<'a>,
    depth: usize,
}

impl<'a> Heads<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { tokens: Tokens { text, at: 0 }, depth: 0 }
    }

    /// The next head, `None` at the end of the text.
    pub(super) fn next(&mut self) -> Result<Option<Head<'a>>, PtxError> {
        while let Some(token) = self.tokens.next() {
            match token {
                "{" => self.depth += 1,
                "}" => {
                    self.depth =
                        self.depth.checked_sub(1).ok_or_else(|| self.malformed("no `}` here"))?;
                }
                ".version" if self.depth == 0 => {
                    return self.version().map(Head::Version).map(Some);
                }
                ".target" if self.depth == 0 => {
                    let target = self.tokens.next().and_then(Target::parse);
                    let target = target.ok_or_else(|| self.malformed("a target `sm_NN`"))?;
                    return Ok(Some(Head::Target(target)));
                }
                ".entry" if self.depth == 0 => return self.entry().map(Head::Entry).map(Some),
                ".extern" if self.depth == 0 => {
                    if let Some(name) = self.external()? {
                        return Ok(Some(Head::External(name)));
                    }
                }
                _ => {}
            }
        }
        if self.depth == 0 { Ok(None) } else { Err(self.malformed("a `}` for every `{`")) }
    }

    /// `8.0`, after `.version`.
    fn version(&mut self) -> Result<Version, PtxError> {
        let parse = |token: &str| {
            let (major, minor) = token.split_once('.')?;
            Some(Version { major: parse_u32(major)?, minor: parse_u32(minor)? })
        };
        self.tokens.next().and_then(parse).ok_or_else(|| self.malformed("a version such as `8.0`"))
    }

    /// `name ( parameters ) directives`, after `.entry` and up to the body, which stays.
    fn entry(&mut self) -> Result<Entry<'a>, PtxError> {
        let name = self.name()?;
        let mut entry = Entry { name, parameters: 0, argument: None, threads: None };
        if self.tokens.peek() == Some("(") {
            self.tokens.next();
            loop {
                match self.tokens.next() {
                    Some(")") => break,
                    Some(",") if entry.parameters > 0 => {}
                    Some(".param") => {
                        let parameter = self.parameter()?;
                        entry.argument = entry.argument.or(Some(parameter));
                        entry.parameters += 1;
                    }
                    _ => return Err(self.malformed("a parameter or `)`")),
                }
            }
        }
        loop {
            match self.tokens.peek() {
                Some("{" | ";") => return Ok(entry),
                None => return Err(self.malformed("the body of the entry")),
                Some(".maxntid" | ".reqntid") => {
                    self.tokens.next();
                    entry.threads = Some(self.threads()?);
                }
                Some(_) => {
                    self.tokens.next();
                }
            }
        }
    }

    /// `.align 8 .b8 name[48]` or `.u64 .ptr .global .align 1 name`, after `.param`.
    fn parameter(&mut self) -> Result<Parameter, PtxError> {
        let mut alignment = None;
        let mut unit = None;
        let mut pointer = false;
        loop {
            match self.tokens.next() {
                Some(".align") => {
                    let number = self.number()?;
                    // After `.ptr` it is the alignment of what the parameter points to.
                    if !pointer {
                        alignment = Some(number);
                    }
                }
                Some(".ptr") => pointer = true,
                Some(word) if word.starts_with('.') => unit = unit.or(size_of_type(word)),
                Some(word) if is_name(word) => break,
                _ => return Err(self.malformed("a parameter's name")),
            }
        }
        let unit = unit.ok_or_else(|| self.malformed("a parameter's type"))?;
        let mut size = unit;
        if self.tokens.peek() == Some("[") {
            self.tokens.next();
            let overflow = self.malformed("a smaller parameter");
            size = self.number()?.checked_mul(unit).ok_or(overflow)?;
            if self.tokens.next() != Some("]") {
                return Err(self.malformed("`]`"));
            }
        }
        Ok(Parameter { size, alignment: alignment.unwrap_or(unit) })
    }

    /// `256, 1, 1`, `16, 16` or `256`, after `.maxntid`.
    fn threads(&mut self) -> Result<[u32; 3], PtxError> {
        let mut threads = [1; 3];
        for (axis, count) in threads.iter_mut().enumerate() {
            if axis > 0 {
                if self.tokens.peek() != Some(",") {
                    break;
                }
                self.tokens.next();
            }
            let number = self.tokens.next().and_then(parse_u32);
            *count = number.ok_or_else(|| self.malformed("a number of threads"))?;
        }
        Ok(threads)
    }

    /// The rest of an external declaration; its name unless it is shared memory.
    ///
    /// The name is the last word outside of parentheses and brackets:
    /// `.func (.param .b32 result) vprintf (.param .b64 format);`, `.global .align 4 .b8 table[];`
    fn external(&mut self) -> Result<Option<&'a str>, PtxError> {
        let mut name = None;
        let mut shared = false;
        let mut nested = 0_usize;
        loop {
            match self.tokens.next() {
                Some(";") => break,
                Some("(" | "[") => nested += 1,
                Some(")" | "]") => nested = nested.saturating_sub(1),
                Some(".shared") => shared = true,
                Some(word) if nested == 0 && is_name(word) => name = Some(word),
                Some("{" | "}") | None => return Err(self.malformed("`;`")),
                Some(_) => {}
            }
        }
        let name = name.ok_or_else(|| self.malformed("the name of an external"))?;
        Ok((!shared).then_some(name))
    }

    fn name(&mut self) -> Result<&'a str, PtxError> {
        let name = self.tokens.next().filter(|word| is_name(word));
        name.ok_or_else(|| self.malformed("a name"))
    }

    fn number(&mut self) -> Result<usize, PtxError> {
        let number = self.tokens.next().filter(|word| is_decimal(word));
        let number = number.and_then(|word| word.parse().ok());
        number.ok_or_else(|| self.malformed("a number"))
    }

    fn malformed(&self, wanted: &'static str) -> PtxError {
        let read = self.tokens.text.as_bytes().get(..self.tokens.at).unwrap_or_default();
        let line = 1 + read.iter().filter(|&&byte| byte == b'\n').count();
        PtxError::Malformed { line, wanted }
    }
}

/// Words, strings and single characters of PTX, without comments and white space.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let rest = self.text.get(self.at..)?;
        let first = rest.chars().next()?;
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if first == '"' {
            // PTX strings have no escapes.
            rest.get(1..)?.find('"').map_or(rest.len(), |end| end + 2)
        } else {
            first.len_utf8()
        };
        self.at += length;
        rest.get(..length)
    }

    fn peek(&self) -> Option<&'a str> {
        Tokens { ..*self }.next()
    }

    fn skip_blanks(&mut self) {
        while let Some(rest) = self.text.get(self.at..) {
            let blank = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else {
                rest.len() - rest.trim_start().len()
            };
            if blank == 0 {
                return;
            }
            self.at += blank;
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| is_word(c) && c != '.' && !c.is_ascii_digit())
}

fn is_decimal(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// A decimal number and nothing else.
pub(super) fn parse_u32(word: &str) -> Option<u32> {
    // `parse` alone would take `+8`.
    if is_decimal(word) { word.parse().ok() } else { None }
}

/// Bytes of a fundamental type such as `.u64`; `None` for any other directive.
fn size_of_type(word: &str) -> Option<usize> {
    match word.strip_prefix(['.'])?.strip_prefix(['b', 'u', 's', 'f'])? {
        "8" => Some(1),
        "16" => Some(2),
        "32" => Some(4),
        "64" => Some(8),
        _ => None,
    }
}
