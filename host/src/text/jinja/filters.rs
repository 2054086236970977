//! Jinja2's filters.

use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::compare::{self, Number, number};
use super::python::{self, Safe, error};
use super::sequence::{bind, integer, items, length, required, text};
use super::{json, methods, operators, selection, strings};

pub(super) type Filter = fn(&mut State, &[Value]) -> Result<Value, Error>;

/// Every filter that a template may use; the first argument is what it is applied to.
pub(super) const FILTERS: [(&str, Filter); 34] = [
    ("abs", |_, arguments| {
        let [value] = bind("abs", arguments, ["value"])?;
        match number(&required(value, "abs", "value")?) {
            Some(Number::Integer(number)) => Ok(operators::from_integer(number.saturating_abs())),
            Some(Number::Float(number)) => Ok(Value::from(number.abs())),
            None => Err(error("`abs` needs a number")),
        }
    }),
    ("capitalize", |_, arguments| map_text(arguments, "capitalize", strings::capitalize)),
    ("count", |_, arguments| count(arguments)),
    ("d", |_, arguments| default(arguments)),
    ("default", |_, arguments| default(arguments)),
    ("dictsort", |_, arguments| {
        let [value] = bind("dictsort", arguments, ["value"])?;
        let value = required(value, "dictsort", "value")?;
        let mut keyed = Vec::new();
        for pair in methods::pairs(&value)? {
            keyed.push((selection::sort_key(&pair.get_item_by_index(0)?, false), pair));
        }
        selection::sort_keyed(keyed, false).map(Value::from)
    }),
    ("first", |_, arguments| {
        let [value] = bind("first", arguments, ["value"])?;
        Ok(items(&required(value, "first", "value")?)?.into_iter().next().unwrap_or_default())
    }),
    ("float", |_, arguments| to_float(arguments)),
    ("format", |_, arguments| match arguments {
        [template, values @ ..] if !values.iter().any(Value::is_kwargs) => {
            let template = text(template, "a format")?;
            let values = Value::from(Tuple::from(values));
            super::percent::format(&template, &values).map(Value::from)
        }
        _ => Err(error("the filter `format` with named values is not supported")),
    }),
    ("indent", |_, arguments| indent(arguments)),
    ("int", |_, arguments| to_int(arguments)),
    ("items", |_, arguments| {
        let [value] = bind("items", arguments, ["value"])?;
        let value = required(value, "items", "value")?;
        match value.kind() {
            ValueKind::Undefined => Ok(generator(Vec::new())),
            ValueKind::Map => methods::pairs(&value).map(generator),
            kind => Err(error(format!("`items` needs a mapping, not {kind}"))),
        }
    }),
    ("join", |_, arguments| join(arguments)),
    ("last", |_, arguments| {
        let [value] = bind("last", arguments, ["value"])?;
        let value = required(value, "last", "value")?;
        if value.kind() == ValueKind::Iterable {
            return Err(error("`last` needs a sequence"));
        }
        Ok(items(&value)?.pop().unwrap_or_default())
    }),
    ("length", |_, arguments| count(arguments)),
    ("list", |_, arguments| {
        let [value] = bind("list", arguments, ["value"])?;
        items(&required(value, "list", "value")?).map(Value::from)
    }),
    ("lower", |_, arguments| map_text(arguments, "lower", |text| Ok(text.to_lowercase()))),
    ("map", selection::map),
    ("max", |_, arguments| selection::extreme(arguments, "max")),
    ("min", |_, arguments| selection::extreme(arguments, "min")),
    ("reject", |_, arguments| selection::select(arguments, false, false)),
    ("rejectattr", |_, arguments| selection::select(arguments, true, false)),
    ("replace", |_, arguments| {
        let [value, old, new, count] = bind("replace", arguments, ["s", "old", "new", "count"])?;
        let value = python::str(&required(value, "replace", "s")?)?;
        let old = python::str(&required(old, "replace", "old")?)?;
        let new = python::str(&required(new, "replace", "new")?)?;
        let count = match count.filter(|count| !count.is_none()) {
            Some(count) => integer(&count, "a count")?,
            None => -1,
        };
        Ok(Value::from(match usize::try_from(count) {
            Ok(count) => value.replacen(&old, &new, count),
            Err(_) => value.replace(&old, &new),
        }))
    }),
    ("reverse", |_, arguments| {
        let [value] = bind("reverse", arguments, ["value"])?;
        let value = required(value, "reverse", "value")?;
        if let Some(text) = value.as_str() {
            return Ok(Value::from(text.chars().rev().collect::<String>()));
        }
        let mut all = items(&value)?;
        all.reverse();
        Ok(generator(all))
    }),
    ("round", |_, arguments| round(arguments)),
    ("safe", |_, arguments| {
        let [value] = bind("safe", arguments, ["value"])?;
        let text = python::str(&required(value, "safe", "value")?)?;
        Ok(Value::from_object(Safe(text)))
    }),
    ("select", |_, arguments| selection::select(arguments, false, true)),
    ("selectattr", |_, arguments| selection::select(arguments, true, true)),
    ("sort", |_, arguments| selection::sort(arguments)),
    ("string", |_, arguments| map_text(arguments, "string", |text| Ok(text.to_owned()))),
    ("title", |_, arguments| map_text(arguments, "title", title)),
    ("tojson", |_, arguments| json::tojson(arguments)),
    ("trim", |_, arguments| {
        let [value, chars] = bind("trim", arguments, ["value", "chars"])?;
        let value = python::str(&required(value, "trim", "value")?)?;
        strings::strip(&value, "strip", chars).map(Value::from)
    }),
    ("upper", |_, arguments| map_text(arguments, "upper", |text| Ok(text.to_uppercase()))),
];

/// Whether a filter of this name is supported.
pub(super) fn is_known(name: &str) -> bool {
    FILTERS.iter().any(|(known, _)| *known == name)
}

/// Whether a test of this name is supported.
pub(super) fn is_known_test(name: &str) -> bool {
    compare::TESTS.contains(&name)
}

/// Makes the filters known to the program.
pub(super) fn install(environment: &mut Environment<'_>) {
    for (name, filter) in FILTERS {
        environment.add_filter(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            filter(state, &arguments.into_values())
        });
    }
}

/// What can be iterated over once, and has no length: a generator.
pub(super) fn generator(items: Vec<Value>) -> Value {
    Value::make_one_shot_iterator(items.into_iter())
}

fn map_text(
    arguments: &[Value],
    filter: &str,
    change: impl Fn(&str) -> Result<String, Error>,
) -> Result<Value, Error> {
    let [value] = bind(filter, arguments, ["value"])?;
    let value = required(value, filter, "value")?;
    change(&python::str(&value)?).map(Value::from)
}

fn count(arguments: &[Value]) -> Result<Value, Error> {
    let [value] = bind("length", arguments, ["value"])?;
    length(&required(value, "length", "value")?).map(Value::from)
}

fn default(arguments: &[Value]) -> Result<Value, Error> {
    let [value, default, boolean] =
        bind("default", arguments, ["value", "default_value", "boolean"])?;
    let value = value.unwrap_or_default();
    let use_default =
        value.is_undefined() || (boolean.is_some_and(|b| b.is_true()) && !value.is_true());
    Ok(if use_default { default.unwrap_or_else(|| Value::from("")) } else { value })
}

fn join(arguments: &[Value]) -> Result<Value, Error> {
    let [value, separator, attribute] = bind("join", arguments, ["value", "d", "attribute"])?;
    let separator = separator.map_or(Ok(String::new()), |separator| python::str(&separator))?;
    let mut out = String::new();
    for (index, item) in items(&required(value, "join", "value")?)?.into_iter().enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        let item = match attribute.as_ref().filter(|name| !name.is_none()) {
            Some(name) => selection::lookup(&item, name)?,
            None => item,
        };
        python::write_str(&item, &mut out)?;
        python::check_length(&out)?;
    }
    Ok(Value::from(out))
}

/// `title` of Jinja2, which is not `str.title`: words begin after white space, `-` and brackets.
fn title(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for letter in text.chars() {
        if begins {
            out.push(strings::title_case(letter)?);
        } else {
            out.extend(letter.to_lowercase());
        }
        begins = python::is_space(letter) || matches!(letter, '-' | '(' | '{' | '[' | '<');
    }
    Ok(out)
}

fn indent(arguments: &[Value]) -> Result<Value, Error> {
    let [value, width, first, blank] = bind("indent", arguments, ["s", "width", "first", "blank"])?;
    let value = text(&required(value, "indent", "s")?, "what is indented")?;
    let unit = match &width {
        Some(width) if width.as_str().is_some() => text(width, "a width")?,
        Some(width) => {
            let width = integer(width, "a width")?.clamp(0, 10_000);
            " ".repeat(usize::try_from(width).unwrap_or_default())
        }
        None => " ".repeat(4),
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is_true(first), is_true(blank));
    if value
        .chars()
        .any(|c| matches!(c, '\x0b'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'))
    {
        return Err(error("`indent` of unusual line breaks is not supported"));
    }
    // Jinja2 adds a line break first, so that one at the end of the text stays.
    let mut out = String::new();
    for (index, line) in value.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index == 0 && first) || (index > 0 && (blank || !line.is_empty())) {
            out.push_str(&unit);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn to_float(arguments: &[Value]) -> Result<Value, Error> {
    let [value, default] = bind("float", arguments, ["value", "default"])?;
    let value = required(value, "float", "value")?;
    let found = match value.as_str() {
        Some(text) => plain_number(text)?.and_then(|text| text.parse().ok()),
        None => number(&value).map(Number::to_float),
    };
    Ok(found.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
}

fn to_int(arguments: &[Value]) -> Result<Value, Error> {
    let [value, default] = bind("int", arguments, ["value", "default"])?;
    let value = required(value, "int", "value")?;
    let found = match (value.as_str(), number(&value)) {
        (Some(text), _) => match plain_number(text)? {
            Some(text) => match (text.parse::<i128>(), text.parse::<f64>()) {
                (Ok(number), _) => Some(number),
                (Err(_), Ok(number)) => Some(truncate(number)?),
                _ => None,
            },
            None => None,
        },
        (None, Some(Number::Integer(number))) => Some(number),
        (None, Some(Number::Float(number))) => Some(truncate(number)?),
        (None, None) => None,
    };
    Ok(found.map_or_else(|| default.unwrap_or_else(|| Value::from(0)), operators::from_integer))
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn truncate(number: f64) -> Result<i128, Error> {
    if number.abs() < 1e18 {
        return Ok(number.trunc() as i128);
    }
    Err(error("`int` of so large a number is not supported"))
}

/// Text that Python and Rust read as the same number; `None` when both see none.
fn plain_number(text: &str) -> Result<Option<&str>, Error> {
    let text = text.trim_matches(python::is_space);
    let is_plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
    if text.chars().all(is_plain) {
        return Ok(Some(text));
    }
    let name = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if text.contains('_') || !text.is_ascii() || matches!(name.as_str(), "nan" | "inf" | "infinity")
    {
        return Err(error("a number in unusual writing is not supported"));
    }
    Ok(None)
}

fn round(arguments: &[Value]) -> Result<Value, Error> {
    let [value, precision, method] = bind("round", arguments, ["value", "precision", "method"])?;
    let value = required(value, "round", "value")?;
    let precision = precision.map_or(Ok(0), |value| integer(&value, "a precision"))?;
    let method = method.map_or(Ok("common".to_owned()), |value| text(&value, "a method"))?;
    match (number(&value), usize::try_from(precision), method.as_str()) {
        (Some(Number::Integer(_)), Ok(_), "common") => Ok(value),
        (Some(Number::Float(number)), Ok(precision @ ..300), "common") if number.is_finite() => {
            // Both round the exact binary value, half to even.
            let text = format!("{number:.precision$}");
            text.parse::<f64>().map(Value::from).map_err(|_| error("cannot round"))
        }
        _ => Err(error("this use of `round` is not supported")),
    }
}
