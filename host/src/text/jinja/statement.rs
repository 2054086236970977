//! Statements: Jinja2's tags, written for minijinja.

use super::lexer::{self, SyntaxError, Token};
use super::reader::Reader;
use super::{BLOCK, VARIABLE};

/// Deepest nesting of tags.
const DEPTH_LIMIT: usize = 60;

/// Tags that a chat template has no use for, and that need other files or change escaping.
const UNSUPPORTED_TAGS: [&str; 8] =
    ["include", "import", "from", "extends", "block", "autoescape", "do", "trans"];

/// Turns a template into a program for minijinja, which [`super::Request`] runs.
///
/// White space is settled here; the program prints what stands between its tags as it is. Lines
/// of the program are lines of the template.
pub(in crate::text) fn translate(source: &str) -> Result<String, SyntaxError> {
    if let Some(found) = source.chars().find(|letter| ('\u{fdd0}'..='\u{fdef}').contains(letter)) {
        return Err(SyntaxError::new(1, format!("the character {found:?} is not supported")));
    }
    let mut translator = Translator {
        reader: Reader::new(lexer::tokens(source)?),
        out: String::new(),
        line: 1,
        open: Vec::new(),
    };
    translator.run()?;
    Ok(translator.out)
}

/// A tag that waits for its end.
struct Open {
    /// What the template calls it.
    name: &'static str,
    /// The end tag that minijinja wants.
    end: &'static str,
    line: u32,
    has_else: bool,
}

struct Translator {
    reader: Reader,
    out: String,
    /// Line in `out`.
    line: u32,
    open: Vec<Open>,
}

type Done = Result<(), SyntaxError>;

impl Translator {
    fn run(&mut self) -> Done {
        loop {
            let line = self.reader.line();
            match self.reader.next() {
                Token::Data(text) => self.data(&text),
                Token::VariableBegin => {
                    let code = self.reader.tuple(true, None, false)?.code;
                    self.reader.expect(&Token::VariableEnd)?;
                    self.emit(VARIABLE, line, &code);
                }
                Token::BlockBegin => {
                    self.statement(line)?;
                    self.reader.expect(&Token::BlockEnd)?;
                }
                Token::End => break,
                _ => return self.reader.error("unexpected token"),
            }
        }
        match self.open.last() {
            Some(open) => {
                let message = format!("`{}` is not ended", open.name);
                Err(SyntaxError::new(open.line, message))
            }
            None => Ok(()),
        }
    }

    fn data(&mut self, text: &str) {
        self.line += u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX);
        self.out.push_str(text);
    }

    /// Writes a tag, with so many line breaks inside that its line is right.
    fn emit(&mut self, [begin, end]: [char; 2], line: u32, code: &str) {
        self.out.push(begin);
        self.out.push(' ');
        while self.line < line {
            self.out.push('\n');
            self.line += 1;
        }
        self.out.push_str(code);
        self.out.push(' ');
        self.out.push(end);
    }

    fn emit_block(&mut self, line: u32, code: &str) {
        self.emit(BLOCK, line, code);
    }

    fn begin(&mut self, name: &'static str, end: &'static str, line: u32) -> Done {
        if self.open.len() == DEPTH_LIMIT {
            return self.reader.error("tags are nested too deeply");
        }
        self.open.push(Open { name, end, line, has_else: false });
        // Jinja2 takes a colon where Python would want one.
        self.reader.skip_operator(":");
        Ok(())
    }

    fn statement(&mut self, line: u32) -> Done {
        let name = match self.reader.next() {
            Token::Name(name) => name,
            _ => return self.reader.error("a tag has no name"),
        };
        if let Some(ended) = name.strip_prefix("end") {
            return self.end(ended, line);
        }
        match name.as_str() {
            "if" => {
                let condition = self.reader.tuple(false, None, false)?.code;
                self.emit_block(line, &format!("if {condition}"));
                self.begin("if", "endif", line)
            }
            "elif" => {
                match self.open.last() {
                    Some(Open { name: "if", has_else: false, .. }) => {}
                    _ => return self.reader.error("`elif` does not follow `if`"),
                }
                let condition = self.reader.tuple(false, None, false)?.code;
                self.reader.skip_operator(":");
                self.emit_block(line, &format!("elif {condition}"));
                Ok(())
            }
            "else" => {
                match self.open.last_mut() {
                    Some(open) if matches!(open.name, "if" | "for") && !open.has_else => {
                        open.has_else = true;
                    }
                    _ => return self.reader.error("`else` does not follow `if` or `for`"),
                }
                self.reader.skip_operator(":");
                self.emit_block(line, "else");
                Ok(())
            }
            "for" => self.for_loop(line),
            "set" => self.set(line),
            "macro" => {
                let name = self.reader.expect_name()?;
                let signature = self.signature()?;
                self.emit_block(line, &format!("macro {name}({signature})"));
                self.begin("macro", "endmacro", line)
            }
            "call" => {
                let signature =
                    if self.reader.is_operator("(") { self.signature()? } else { String::new() };
                let call = self.reader.expression()?;
                if !call.is_plain_call {
                    return self.reader.error("`call` must call a macro by its name");
                }
                self.emit_block(line, &format!("call({signature}) {}", call.code));
                self.begin("call", "endcall", line)
            }
            "filter" => {
                let filter = self.reader.filter()? + &self.reader.filters()?;
                self.emit_block(line, &format!("filter {filter}"));
                self.begin("filter", "endfilter", line)
            }
            "with" => self.with(line),
            // `transformers` marks the assistant's words in this way; it prints its body.
            "generation" => {
                self.emit_block(line, "with");
                self.begin("generation", "endwith", line)
            }
            "print" => {
                while !matches!(self.reader.peek(), Token::BlockEnd) {
                    let code = self.reader.expression()?.code;
                    self.emit(VARIABLE, line, &code);
                    if !matches!(self.reader.peek(), Token::BlockEnd) {
                        self.reader.expect_operator(",")?;
                    }
                }
                Ok(())
            }
            "break" | "continue" => self.leave(line, &name),
            _ if UNSUPPORTED_TAGS.contains(&name.as_str()) => {
                self.reader.error(format!("the tag `{name}` is not supported"))
            }
            _ => self.reader.error(format!("unknown tag `{name}`")),
        }
    }

    fn end(&mut self, ended: &str, line: u32) -> Done {
        match self.open.pop() {
            Some(open) if open.name == ended => {
                self.emit_block(line, open.end);
                Ok(())
            }
            Some(open) => {
                let message = format!("`end{ended}` where `{}` is open", open.name);
                self.reader.error(message)
            }
            None => self.reader.error(format!("`end{ended}` ends nothing")),
        }
    }

    /// `break` and `continue`; minijinja cannot leave a loop out of an inner scope.
    fn leave(&mut self, line: u32, name: &str) -> Done {
        let around = self.open.iter().rev().find(|open| open.name != "if");
        match around {
            Some(Open { name: "for", has_else: false, .. }) => {
                self.emit_block(line, name);
                Ok(())
            }
            Some(open) if open.name != "for" && self.open.iter().any(|open| open.name == "for") => {
                let message = format!("`{name}` out of `{}` is not supported", open.name);
                self.reader.error(message)
            }
            _ => self.reader.error(format!("`{name}` outside of a loop")),
        }
    }

    fn for_loop(&mut self, line: u32) -> Done {
        let target = self.target()?;
        if !self.reader.skip_name("in") {
            return self.reader.error("`for` without `in`");
        }
        let items = self.reader.tuple(false, Some("recursive"), false)?.code;
        let mut code = format!("for {target} in {}items({items})", super::PREFIX);
        if self.reader.skip_name("if") {
            code = format!("{code} if {}", self.reader.expression()?.code);
        }
        if self.reader.skip_name("recursive") {
            code.push_str(" recursive");
        }
        self.emit_block(line, &code);
        self.begin("for", "endfor", line)
    }

    fn set(&mut self, line: u32) -> Done {
        let target = self.target()?;
        if self.reader.skip_operator("=") {
            let value = self.reader.tuple(true, None, false)?.code;
            self.emit_block(line, &format!("set {target} = {value}"));
            return Ok(());
        }
        let filters = self.reader.filters()?;
        self.emit_block(line, &format!("set {target}{filters}"));
        self.begin("set", "endset", line)
    }

    fn with(&mut self, line: u32) -> Done {
        let mut targets = Vec::new();
        let mut values = Vec::new();
        while !matches!(self.reader.peek(), Token::BlockEnd) && !self.reader.is_operator(":") {
            if !targets.is_empty() {
                self.reader.expect_operator(",")?;
            }
            targets.push(self.reader.expect_name()?);
            self.reader.expect_operator("=")?;
            values.push(self.reader.expression()?.code);
        }
        // One tuple, so that a value does not see the names that are given beside it.
        let code = match targets.as_slice() {
            [] => "with".to_owned(),
            [only] => format!("with {only} = {}", values.concat()),
            _ => {
                let values: String = values.iter().map(|value| format!("({value}), ")).collect();
                format!("with ({}) = ({})", targets.join(", "), values.trim_end())
            }
        };
        self.emit_block(line, &code);
        self.begin("with", "endwith", line)
    }

    /// What a value is given to: a name, `name.attribute` of a namespace, or several names.
    fn target(&mut self) -> Result<String, SyntaxError> {
        let in_parentheses = self.reader.skip_operator("(");
        let mut names = Vec::new();
        let mut is_tuple = false;
        loop {
            let mut name = self.reader.expect_name()?;
            if self.reader.skip_operator(".") {
                name = format!("{name}.{}", self.reader.expect_name()?);
            }
            names.push(name);
            if !self.reader.skip_operator(",") {
                break;
            }
            is_tuple = true;
            if self.reader.is_name("in") || self.reader.is_operator("=") {
                break;
            }
        }
        if in_parentheses {
            self.reader.expect_operator(")")?;
        }
        match names.as_slice() {
            [only] if is_tuple => Ok(format!("({only},)")),
            _ if is_tuple => Ok(format!("({})", names.join(", "))),
            _ => Ok(names.concat()),
        }
    }

    fn signature(&mut self) -> Result<String, SyntaxError> {
        self.reader.expect_operator("(")?;
        let mut names: Vec<String> = Vec::new();
        let mut code = Vec::new();
        let mut has_defaults = false;
        while !self.reader.skip_operator(")") {
            if !names.is_empty() {
                self.reader.expect_operator(",")?;
            }
            let name = self.reader.expect_name()?;
            if self.reader.skip_operator("=") {
                has_defaults = true;
                let default = self.reader.expression()?.code;
                // minijinja evaluates a default before the parameters have values.
                if words(&default).any(|word| names.iter().any(|name| name == word)) {
                    return self.reader.error("a default that uses a parameter is not supported");
                }
                code.push(format!("{name}={default}"));
            } else if has_defaults {
                return self.reader.error("a parameter without default follows one with default");
            } else {
                code.push(name.clone());
            }
            names.push(name);
        }
        Ok(code.join(", "))
    }
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric())
}
