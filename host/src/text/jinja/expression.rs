//! Expressions: read by the grammar of Jinja2 3.1 (`jinja2/parser.py`), written for minijinja.
//!
//! Every operator whose result differs between the two becomes a call of a function in
//! [`operators`](super::operators), so that precedence is decided here and meaning there.

use super::filters;
use super::lexer::{SyntaxError, Token};
use super::methods::is_method_name;
use super::python;

/// Deepest nesting of expressions; Python's own parser stops near 100 as well.
const DEPTH_LIMIT: u32 = 60;

/// Names that mean something else, or nothing, in minijinja.
const UNSUPPORTED_NAMES: [&str; 7] =
    ["self", "super", "varargs", "kwargs", "cycler", "joiner", "lipsum"];

/// A piece of the translated program.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) code: String,
    /// Whether the code must be put in parentheses before something is applied to it.
    is_loose: bool,
    /// Whether it is `name(...)`, which is what a `call` block takes.
    pub(super) is_plain_call: bool,
}

impl Piece {
    fn tight(code: String) -> Self {
        Self { code, is_loose: false, is_plain_call: false }
    }

    fn loose(code: String) -> Self {
        Self { code, is_loose: true, is_plain_call: false }
    }

    fn into_operand(self) -> String {
        if self.is_loose { format!("({})", self.code) } else { self.code }
    }
}

type Parsed = Result<Piece, SyntaxError>;

/// Reads tokens one by one.
pub(super) struct Reader {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: u32,
}

impl Reader {
    pub(super) fn new(tokens: Vec<(Token, u32)>) -> Self {
        Self { tokens, at: 0, depth: 0 }
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn peek_second(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
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

    fn check_name(&self, name: &str) -> Result<(), SyntaxError> {
        if UNSUPPORTED_NAMES.contains(&name) || name.starts_with(super::PREFIX) {
            return self.error(format!("the name `{name}` is not supported"));
        }
        Ok(())
    }

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
                    self.at += 1;
                    "not in"
                }
                _ => break,
            };
            self.at += 1;
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
            self.at += 1;
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
                self.at += 1;
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

    fn primary(&mut self) -> Parsed {
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
                    self.at += 1;
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
                self.at -= 1;
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

    fn postfix(&mut self, mut piece: Piece) -> Parsed {
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
        self.at += 1;
        let object = piece.into_operand();
        let name = match self.next() {
            Token::Name(name) => name,
            Token::Integer(index) => return Ok(call("item", &format!("{object}, {index}"))),
            other => {
                self.at -= 1;
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
        self.at += 1;
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
                self.at += 2;
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

    fn filters_and_tests(&mut self, mut piece: Piece) -> Parsed {
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
        self.at += 1;
        if !self.is_operator("(") {
            return Ok(name);
        }
        Ok(format!("{name}({})", self.arguments()?))
    }

    fn test(&mut self, piece: Piece) -> Parsed {
        self.at += 1;
        let negated = self.skip_name("not");
        let Token::Name(name) = self.peek().clone() else {
            return self.error(format!("expected a test, found {}", describe(self.peek())));
        };
        if !filters::is_known_test(&name) {
            return self.error(format!("the test `{name}` is not supported"));
        }
        self.at += 1;
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

fn call(function: &str, arguments: &str) -> Piece {
    Piece::tight(format!("{}{function}({arguments})", super::PREFIX))
}

/// A token as an error names it.
fn describe(token: &Token) -> String {
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
