//! One rendering: the program, its variables, its limits.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::clock::Clock;
use super::python::{self, Safe};
use super::sequence::{bind, integer, required, text};
use super::{BLOCK, COMMENT, VARIABLE, filters, operators};

/// Longest `range`, as in Jinja2's sandbox.
const RANGE_LIMIT: i128 = 100_000;
/// Macros in macros; minijinja's own limit is 500.
const RECURSION_LIMIT: usize = 200;

/// Everything that a rendering needs; what a child process is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::text) struct Request {
    program: String,
    variables: Map<String, serde_json::Value>,
    /// The variables a second time, with marks in them.
    pub(in crate::text) marked: Option<Map<String, serde_json::Value>>,
    now: Clock,
    /// Instructions that one rendering may take.
    fuel: u64,
    /// Bytes that one rendering may print.
    output: usize,
}

/// Why there is no text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::text) enum RenderError {
    /// `raise_exception`.
    Raised(String),
    /// Anything else that went wrong inside.
    Failed(String),
    /// Too many instructions.
    Fuel,
    /// Too much output.
    Output,
}

impl Request {
    /// Sets limits after the size of the input: conversations need about 60 instructions a
    /// message, and print little more than they contain.
    pub(in crate::text) fn new(program: String, variables: Map<String, serde_json::Value>) -> Self {
        let messages = variables.get("messages").and_then(|messages| messages.as_array());
        let messages = messages.map_or(0, Vec::len);
        let bytes: usize = variables.values().map(size).sum();
        let fuel = 10_000 + 200 * messages + 20 * bytes.div_ceil(1024);
        Self {
            program,
            variables,
            marked: None,
            now: Clock::now(),
            fuel: u64::try_from(fuel).unwrap_or(u64::MAX),
            output: (1 << 20) + 4 * bytes,
        }
    }

    /// Largest answer, in bytes, that an honest rendering can have as JSON.
    pub(in crate::text) fn answer_limit(&self) -> usize {
        // A control character takes six bytes in JSON, but text has few of them.
        4096 + 2 * (1 + usize::from(self.marked.is_some())) * self.output
    }

    /// The text, and the text with marks; both are the same when there are none.
    pub(in crate::text) fn render(&self) -> Result<[String; 2], RenderError> {
        let text = self.render_with(&self.variables)?;
        let marked = match &self.marked {
            Some(variables) => self.render_with(variables)?,
            None => String::new(),
        };
        Ok([text, marked])
    }

    fn render_with(
        &self,
        variables: &Map<String, serde_json::Value>,
    ) -> Result<String, RenderError> {
        let environment = self.environment().map_err(|error| explain(&error))?;
        let template = environment
            .template_from_named_str("chat template", &self.program)
            .map_err(|error| explain(&error))?;
        let mut out = Limited { bytes: Vec::new(), limit: self.output, exceeded: false };
        let rendered = template
            .render_captured_to(Serde(variables), &mut out)
            .map(drop)
            .map_err(|error| explain(&error));
        if out.exceeded {
            return Err(RenderError::Output);
        }
        rendered?;
        String::from_utf8(out.bytes)
            .map_err(|_| RenderError::Failed("the output is not UTF-8".to_owned()))
    }

    fn environment(&self) -> Result<Environment<'_>, Error> {
        let mut environment = Environment::empty();
        let strings = |letters: [char; 2]| letters.map(String::from);
        let [block, block_end] = strings(BLOCK);
        let [variable, variable_end] = strings(VARIABLE);
        let [comment, comment_end] = strings(COMMENT);
        environment.set_syntax(
            SyntaxConfig::builder()
                .block_delimiters(block, block_end)
                .variable_delimiters(variable, variable_end)
                .comment_delimiters(comment, comment_end)
                .keep_trailing_newline(true)
                .build()?,
        );
        environment.set_fuel(Some(self.fuel));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_formatter(|out, _state, value| {
            let result = match value.downcast_object_ref::<Safe>() {
                Some(Safe(text)) => out.write_str(text),
                None => out.write_str(&python::str(value)?),
            };
            result.map_err(Error::from)
        });
        operators::install(&mut environment);
        filters::install(&mut environment);
        self.install_globals(&mut environment);
        Ok(environment)
    }

    fn install_globals(&self, environment: &mut Environment<'_>) {
        environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
            Err(python::error("").with_source(Raised(python::str(&message)?)))
        });
        let now = self.now;
        environment.add_function("strftime_now", move |format: Value| {
            let format = text(&format, "the format of a date")?;
            now.format(&format).map_err(|directive| {
                python::error(format!("the date format `%{directive}` is not supported"))
            })
        });
        environment.add_function("range", |arguments: Rest<ValueOrKwargs>| {
            range(&arguments.into_values())
        });
        environment.add_function("dict", |arguments: Rest<ValueOrKwargs>| {
            match arguments.into_values().as_slice() {
                [] => Ok(Value::from_pairs(core::iter::empty::<(Value, Value)>())),
                [named] if named.is_kwargs() => {
                    let keys: Vec<Value> = named.try_iter()?.collect();
                    let pairs = keys.into_iter().map(|key| {
                        let value = named.get_item(&key)?;
                        Ok((key, value))
                    });
                    Ok(Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?))
                }
                _ => Err(python::error("`dict` takes named arguments only")),
            }
        });
        environment.add_function("namespace", minijinja::functions::namespace);
    }
}

fn range(arguments: &[Value]) -> Result<Value, Error> {
    let [first, second, step] = bind("range", arguments, ["start", "stop", "step"])?;
    let first = integer(&required(first, "range", "start")?, "a bound of a range")?;
    let second = second.map(|stop| integer(&stop, "a bound of a range")).transpose()?;
    let step = step.map_or(Ok(1), |step| integer(&step, "the step of a range"))?;
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    if step == 0 {
        return Err(python::error("the step of a range is zero"));
    }
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let count = distance.max(0).saturating_add(step.saturating_abs() - 1) / step.saturating_abs();
    if count > RANGE_LIMIT {
        return Err(python::error(format!("a range has more than {RANGE_LIMIT} items")));
    }
    let numbers = (0..count).map(|index| operators::from_integer(start + index * step));
    Ok(Value::from(numbers.collect::<Vec<_>>()))
}

/// The message of `raise_exception`, on its way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn explain(error: &Error) -> RenderError {
    let mut cause: Option<&(dyn core::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return RenderError::Raised(message.clone());
        }
        cause = inner.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return RenderError::Fuel;
    }
    let kind = error.kind().to_string();
    let what = error.detail().filter(|detail| !detail.is_empty()).unwrap_or(&kind);
    RenderError::Failed(match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what.to_owned(),
    })
}

/// About how many bytes a value takes.
fn size(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len() + 4,
        serde_json::Value::Array(items) => items.iter().map(size).sum::<usize>() + 4,
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, field)| name.len() + 4 + size(field)).sum::<usize>() + 4
        }
        _ => 8,
    }
}

/// Collects output up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.exceeded = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
