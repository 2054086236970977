//! Expressions: read by the grammar of Jinja2 3.1 (`jinja2/parser.py`), written for minijinja.
//!
//! Every operator whose result differs between the two becomes a call of a function in
//! [`operators`](super::operators), so that precedence is decided here and meaning there.

use super::lexer::{SyntaxError, Token};
use super::python;
use super::reader::{Reader, describe};

/// Deepest nesting of expressions; Python's own parser stops near 100 as well.
const DEPTH_LIMIT: u32 = 60;

/// A piece of the translated program.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) code: String,
    /// Whether the code must be put in parentheses before something is applied to it.
    pub(super) is_loose: bool,
    /// Whether it is `name(...)`, which is what a `call` block takes.
    pub(super) is_plain_call: bool,
}

impl Piece {
    pub(super) fn tight(code: String) -> Self {
        Self { code, is_loose: false, is_plain_call: false }
    }

    pub(super) fn loose(code: String) -> Self {
        Self { code, is_loose: true, is_plain_call: false }
    }

    /// The code, in parentheses where they are needed.
    pub(super) fn into_operand(self) -> String {
        if self.is_loose { format!("({})", self.code) } else { self.code }
    }
}

pub(super) type Parsed = Result<Piece, SyntaxError>;

impl Reader {
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth == DEPTH_LIMIT {
            return self.error("expressions are nested too deeply");
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn is_tuple_end(&self, end_name: Option<&str>) -> bool {
        matches!(self.peek(), Token::VariableEnd | Token::BlockEnd | Token::Operator(")"))
            || end_name.is_some_and(|name| self.is_name(name))
    }

    /// An expression, or several with commas between: a tuple.
    pub(super) fn tuple(
        &mut self,
        with_condition: bool,
        end_name: Option<&str>,
        in_parentheses: bool,
    ) -> Parsed {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            if self.is_tuple_end(end_name) {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.or()? });
            if !self.is_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            None if !in_parentheses => {
                self.error(format!("expected an expression, found {}", describe(self.peek())))
            }
            None => Ok(Piece::tight("()".to_owned())),
            Some(last) => {
                items.push(last);
                let items: String =
                    items.into_iter().map(|item| item.into_operand() + ", ").collect();
                Ok(Piece::tight(format!("({})", items.trim_end())))
            }
        }
    }

    /// An expression with its conditions: `a if b else c`.
    pub(super) fn expression(&mut self) -> Parsed {
        self.deeper(|reader| {
            let mut piece = reader.or()?;
            while reader.skip_name("if") {
                let condition = reader.or()?.into_operand();
                let value = piece.into_operand();
                piece = if reader.skip_name("else") {
                    let other = reader.expression()?.into_operand();
                    Piece::loose(format!("{value} if {condition} else {other}"))
                } else {
                    Piece::loose(format!("{value} if {condition}"))
                };
            }
            Ok(piece)
        })
    }

    fn or(&mut self) -> Parsed {
        self.chain("or", Self::and)
    }

    fn and(&mut self) -> Parsed {
        self.chain("and", Self::not)
    }

    fn chain(&mut self, name: &str, operand: fn(&mut Self) -> Parsed) -> Parsed {
        let mut piece = operand(self)?;
        if !self.is_name(name) {
            return Ok(piece);
        }
        let mut code = piece.into_operand();
        while self.skip_name(name) {
            piece = operand(self)?;
            code = format!("{code} {name} {}", piece.into_operand());
        }
        Ok(Piece::loose(code))
    }

    fn not(&mut self) -> Parsed {
        if !self.skip_name("not") {
            return self.compare();
        }
        let piece = self.deeper(Self::not)?;
        Ok(Piece::loose(format!("not {}", piece.into_operand())))
    }

    fn compare(&mut self) -> Parsed {
        let first = self.sum()?;
        let mut arguments = String::new();
        loop {
            let operator = match self.peek() {
                Token::Operator(operator @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => *operator,
                Token::Name(name) if name == "in" => "in",
                Token::Name(name)
                    if name == "not"
                        && matches!(self.peek_second(), Token::Name(name) if name == "in") =>
                {
                    self.skip();
                    "not in"
                }
                _ => break,
            };
            self.skip();
            let operand = self.sum()?.into_operand();
            arguments.push_str(&format!(", \"{operator}\", {operand}"));
        }
        if arguments.is_empty() {
            return Ok(first);
        }
        Ok(call("compare", &format!("{}{arguments}", first.into_operand())))
    }

    fn sum(&mut self) -> Parsed {
        self.arithmetic(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Parsed {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut arguments = first.into_operand();
        while self.skip_operator("~") {
            arguments = format!("{arguments}, {}", self.product()?.into_operand());
        }
        Ok(call("concat", &arguments))
    }

    fn product(&mut self) -> Parsed {
        self.arithmetic(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Parsed {
        self.arithmetic(&["**"], |reader| reader.unary(true))
    }

    fn arithmetic(&mut self, operators: &[&str], operand: fn(&mut Self) -> Parsed) -> Parsed {
        let first = operand(self)?;
        let mut arguments = String::new();
        while let Token::Operator(operator) = *self.peek()
            && operators.contains(&operator)
        {
            self.skip();
            let operand = operand(self)?.into_operand();
            arguments.push_str(&format!(", \"{operator}\", {operand}"));
        }
        if arguments.is_empty() {
            return Ok(first);
        }
        Ok(call("calculate", &format!("{}{arguments}", first.into_operand())))
    }

    fn unary(&mut self, with_filter: bool) -> Parsed {
        let mut piece = match self.peek() {
            Token::Operator(sign @ ("-" | "+")) => {
                let sign = *sign;
                self.skip();
                let operand = self.deeper(|reader| reader.unary(false))?.into_operand();
                call("sign", &format!("\"{sign}\", {operand}"))
            }
            _ => self.primary()?,
        };
        piece = self.postfix(piece)?;
        if with_filter {
            piece = self.filters_and_tests(piece)?;
        }
        Ok(piece)
    }

    /// A name, a literal, or an expression in brackets.
    pub(super) fn primary(&mut self) -> Parsed {
        match self.next() {
            Token::Name(name) => match name.as_str() {
                "true" | "True" => Ok(Piece::tight("true".to_owned())),
                "false" | "False" => Ok(Piece::tight("false".to_owned())),
                "none" | "None" => Ok(Piece::tight("none".to_owned())),
                _ => {
                    self.check_name(&name)?;
                    Ok(Piece::tight(name))
                }
            },
            Token::Text(mut text) => {
                while let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.skip();
                }
                Ok(Piece::tight(python::literal(&text)))
            }
            Token::Integer(number) => Ok(Piece::tight(number.to_string())),
            Token::Float(number) if number.is_infinite() => Ok(Piece::tight("1e999".to_owned())),
            Token::Float(number) => Ok(Piece::tight(format!("{number:?}"))),
            Token::Operator("(") => self.deeper(|reader| {
                let piece = reader.tuple(true, None, true)?;
                reader.expect_operator(")")?;
                Ok(Piece::tight(format!("({})", piece.code)))
            }),
            Token::Operator("[") => self.deeper(Self::list),
            Token::Operator("{") => self.deeper(Self::map),
            other => {
                self.back();
                self.error(format!("expected an expression, found {}", describe(&other)))
            }
        }
    }

    fn list(&mut self) -> Parsed {
        let mut items = Vec::new();
        while !self.skip_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator("]") {
                    break;
                }
            }
            items.push(self.expression()?.into_operand());
        }
        Ok(Piece::tight(format!("[{}]", items.join(", "))))
    }

    fn map(&mut self) -> Parsed {
        let mut items = Vec::new();
        while !self.skip_operator("}") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator("}") {
                    break;
                }
            }
            items.push(self.expression()?.into_operand());
            self.expect_operator(":")?;
            items.push(self.expression()?.into_operand());
        }
        Ok(call("map", &items.join(", ")))
    }
}

/// A call of a function of ours.
pub(super) fn call(function: &str, arguments: &str) -> Piece {
    Piece::tight(format!("{}{function}({arguments})", super::PREFIX))
}
