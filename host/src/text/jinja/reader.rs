//! Tokens, read one by one.

use super::lexer::{SyntaxError, Token};

/// Names that mean something else, or nothing, in minijinja.
const UNSUPPORTED_NAMES: [&str; 7] =
    ["self", "super", "varargs", "kwargs", "cycler", "joiner", "lipsum"];

/// Reads tokens one by one.
pub(super) struct Reader {
    tokens: Vec<(Token, u32)>,
    at: usize,
    /// How deep the expression that is being read is nested.
    pub(super) depth: u32,
}

impl Reader {
    pub(super) fn new(tokens: Vec<(Token, u32)>) -> Self {
        Self { tokens, at: 0, depth: 0 }
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    /// The token after the next one.
    pub(super) fn peek_second(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    /// Gives back the token that was taken last.
    pub(super) fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    pub(super) fn line(&self) -> u32 {
        let last = self.tokens.last();
        self.tokens.get(self.at).or(last).map_or(1, |(_, line)| *line)
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError::new(self.line(), message))
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Result<(), SyntaxError> {
        if self.skip_operator(operator) {
            return Ok(());
        }
        self.error(format!("expected `{operator}`, found {}", describe(self.peek())))
    }

    pub(super) fn expect(&mut self, token: &Token) -> Result<(), SyntaxError> {
        if self.peek() == token {
            self.at += 1;
            return Ok(());
        }
        self.error(format!("expected {}, found {}", describe(token), describe(self.peek())))
    }

    /// A name that the template may give to a variable.
    pub(super) fn expect_name(&mut self) -> Result<String, SyntaxError> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.check_name(&name)?;
                self.at += 1;
                Ok(name)
            }
            other => self.error(format!("expected a name, found {}", describe(&other))),
        }
    }

    pub(super) fn check_name(&self, name: &str) -> Result<(), SyntaxError> {
        if UNSUPPORTED_NAMES.contains(&name) || name.starts_with(super::PREFIX) {
            return self.error(format!("the name `{name}` is not supported"));
        }
        Ok(())
    }
}

/// A token as an error names it.
pub(super) fn describe(token: &Token) -> String {
    match token {
        Token::Data(_) => "text".to_owned(),
        Token::BlockBegin => "`{%`".to_owned(),
        Token::BlockEnd => "`%}`".to_owned(),
        Token::VariableBegin => "`{{`".to_owned(),
        Token::VariableEnd => "`}}`".to_owned(),
        Token::Name(name) => format!("`{name}`"),
        Token::Text(_) => "a string".to_owned(),
        Token::Integer(number) => format!("`{number}`"),
        Token::Float(number) => format!("`{number}`"),
        Token::Operator(operator) => format!("`{operator}`"),
        Token::End => "the end of the template".to_owned(),
    }
}
