//! What stands behind an expression: attributes, subscripts, calls, filters, tests.

use super::expression::{Parsed, Piece, call};
use super::filters;
use super::lexer::{SyntaxError, Token};
use super::methods::is_method_name;
use super::reader::{Reader, describe};

impl Reader {
    /// Attributes, subscripts and calls behind an expression.
    pub(super) fn postfix(&mut self, mut piece: Piece) -> Parsed {
        loop {
            piece = match self.peek() {
                Token::Operator(".") => self.attribute(piece)?,
                Token::Operator("[") => self.subscript(piece)?,
                Token::Operator("(") => self.call(piece)?,
                _ => return Ok(piece),
            };
        }
    }

    fn attribute(&mut self, piece: Piece) -> Parsed {
        self.skip();
        let object = piece.into_operand();
        let name = match self.next() {
            Token::Name(name) => name,
            Token::Integer(index) => return Ok(call("item", &format!("{object}, {index}"))),
            other => {
                self.back();
                return self.error(format!("expected a name, found {}", describe(&other)));
            }
        };
        if self.is_operator("(") {
            let arguments = self.arguments()?;
            let comma = if arguments.is_empty() { "" } else { ", " };
            return Ok(call("method", &format!("{object}, \"{name}\"{comma}{arguments}")));
        }
        if is_method_name(&name) {
            return Ok(call("attribute", &format!("{object}, \"{name}\"")));
        }
        Ok(Piece::tight(format!("{object}.{name}")))
    }

    fn subscript(&mut self, piece: Piece) -> Parsed {
        self.skip();
        let object = piece.into_operand();
        let start = self.slice_part()?;
        if !self.skip_operator(":") {
            self.expect_operator("]")?;
            return match start {
                Some(index) => Ok(call("item", &format!("{object}, {index}"))),
                None => self.error("expected a subscript"),
            };
        }
        let stop = self.slice_part()?;
        let step = if self.skip_operator(":") { self.slice_part()? } else { None };
        self.expect_operator("]")?;
        let [start, stop, step] =
            [start, stop, step].map(|part| part.unwrap_or_else(|| "none".to_owned()));
        Ok(call("slice", &format!("{object}, {start}, {stop}, {step}")))
    }

    fn slice_part(&mut self) -> Result<Option<String>, SyntaxError> {
        if self.is_operator(":") || self.is_operator("]") {
            return Ok(None);
        }
        Ok(Some(self.expression()?.into_operand()))
    }

    fn call(&mut self, piece: Piece) -> Parsed {
        let is_name = piece.code.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        let is_plain_call = is_name && !piece.is_loose;
        let function = piece.into_operand();
        let arguments = self.arguments()?;
        let code = format!("{function}({arguments})");
        Ok(Piece { code, is_loose: false, is_plain_call })
    }

    /// The arguments of a call, parentheses read but not written.
    fn arguments(&mut self) -> Result<String, SyntaxError> {
        self.expect_operator("(")?;
        let mut arguments = Vec::new();
        let mut named = false;
        while !self.skip_operator(")") {
            if !arguments.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator(")") {
                    break;
                }
            }
            if self.is_operator("*") || self.is_operator("**") {
                return self.error("`*` and `**` in a call are not supported");
            }
            let name = match (self.peek(), self.peek_second()) {
                (Token::Name(name), Token::Operator("=")) => Some(name.clone()),
                _ => None,
            };
            if let Some(name) = name {
                self.skip();
                self.skip();
                named = true;
                arguments.push(format!("{name}={}", self.expression()?.into_operand()));
            } else if named {
                return self.error("an argument without a name follows one with a name");
            } else {
                arguments.push(self.expression()?.into_operand());
            }
        }
        Ok(arguments.join(", "))
    }

    /// Filters and tests behind an expression.
    pub(super) fn filters_and_tests(&mut self, mut piece: Piece) -> Parsed {
        loop {
            piece = match self.peek() {
                Token::Operator("|") => {
                    let applied = self.filters()?;
                    Piece::loose(format!("{}{applied}", piece.into_operand()))
                }
                Token::Name(name) if name == "is" => self.test(piece)?,
                Token::Operator("(") => self.call(piece)?,
                _ => return Ok(piece),
            };
        }
    }

    /// `|name(...)|name`, as it is written in the program.
    pub(super) fn filters(&mut self) -> Result<String, SyntaxError> {
        let mut code = String::new();
        while self.skip_operator("|") {
            code.push('|');
            code.push_str(&self.filter()?);
        }
        Ok(code)
    }

    /// `name(...)` of a filter.
    pub(super) fn filter(&mut self) -> Result<String, SyntaxError> {
        let Token::Name(name) = self.peek().clone() else {
            return self.error(format!("expected a filter, found {}", describe(self.peek())));
        };
        if !filters::is_known(&name) {
            return self.error(format!("the filter `{name}` is not supported"));
        }
        self.skip();
        if !self.is_operator("(") {
            return Ok(name);
        }
        Ok(format!("{name}({})", self.arguments()?))
    }

    fn test(&mut self, piece: Piece) -> Parsed {
        self.skip();
        let negated = self.skip_name("not");
        let Token::Name(name) = self.peek().clone() else {
            return self.error(format!("expected a test, found {}", describe(self.peek())));
        };
        if !filters::is_known_test(&name) {
            return self.error(format!("the test `{name}` is not supported"));
        }
        self.skip();
        let mut arguments = format!("{}, \"{name}\"", piece.into_operand());
        let argument = match self.peek() {
            Token::Operator("(") => Some(self.arguments()?),
            Token::Name(name) if matches!(name.as_str(), "else" | "or" | "and") => None,
            Token::Name(name) if name == "is" => return self.error("`is` cannot follow `is`"),
            Token::Name(_)
            | Token::Text(_)
            | Token::Integer(_)
            | Token::Float(_)
            | Token::Operator("[" | "{") => {
                let argument = self.primary()?;
                Some(self.postfix(argument)?.into_operand())
            }
            _ => None,
        };
        if let Some(argument) = argument.filter(|argument| !argument.is_empty()) {
            arguments = format!("{arguments}, {argument}");
        }
        let tested = call("test", &arguments);
        if negated {
            return Ok(Piece::loose(format!("not {}", tested.code)));
        }
        Ok(tested)
    }
}
