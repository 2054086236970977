//! Comparisons and tests with Python's meaning.

use core::cmp::Ordering;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::python::{DEPTH_LIMIT, error, is_space};

/// `a op b op c ...`: all neighbouring pairs compare as asked.
pub(super) fn chain(arguments: &[Value]) -> Result<bool, Error> {
    for step in arguments.windows(3).step_by(2) {
        let [left, operator, right] = step else { continue };
        if !holds(left, operator.as_str().unwrap_or_default(), right)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    Ok(match operator {
        "==" => equal(left, right)?,
        "!=" => !equal(left, right)?,
        "<" => order(left, right, 0)? == Some(Ordering::Less),
        "<=" => matches!(order(left, right, 0)?, Some(Ordering::Less | Ordering::Equal)),
        ">" => order(left, right, 0)? == Some(Ordering::Greater),
        ">=" => matches!(order(left, right, 0)?, Some(Ordering::Greater | Ordering::Equal)),
        "in" => contains(right, left)?,
        "not in" => !contains(right, left)?,
        _ => return Err(error(format!("unknown operator `{operator}`"))),
    })
}

/// `left == right`.
pub(super) fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    equal_at(left, right, 0)
}

fn equal_at(left: &Value, right: &Value, depth: u32) -> Result<bool, Error> {
    if depth == DEPTH_LIMIT {
        return Err(error("values are nested too deeply to be compared"));
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Ok(left.compare(right) == Some(Ordering::Equal));
    }
    match (left.kind(), right.kind()) {
        (ValueKind::Undefined, ValueKind::Undefined) | (ValueKind::None, ValueKind::None) => {
            Ok(true)
        }
        (ValueKind::String, ValueKind::String) => Ok(left.as_str() == right.as_str()),
        (ValueKind::Seq, ValueKind::Seq) => {
            if left.is_tuple() != right.is_tuple() || left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.try_iter()?.checked().zip(right.try_iter()?.checked()) {
                if !equal_at(&left?, &right?, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (ValueKind::Map, ValueKind::Map) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for key in left.try_iter()?.checked() {
                let key = key?;
                let other = right.get_item(&key)?;
                if other.is_undefined() || !equal_at(&left.get_item(&key)?, &other, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (
            ValueKind::Iterable | ValueKind::Plain | ValueKind::Invalid,
            ValueKind::Iterable | ValueKind::Plain | ValueKind::Invalid,
        ) => Err(error("comparing such objects is not supported")),
        _ => Ok(false),
    }
}

/// How two values are ordered; `None` when they are not (`nan`).
pub(super) fn order(left: &Value, right: &Value, depth: u32) -> Result<Option<Ordering>, Error> {
    if depth == DEPTH_LIMIT {
        return Err(error("values are nested too deeply to be compared"));
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Ok(left.compare(right));
    }
    match (left.kind(), right.kind()) {
        (ValueKind::String, ValueKind::String) => Ok(left.as_str().partial_cmp(&right.as_str())),
        (ValueKind::Seq, ValueKind::Seq) if left.is_tuple() == right.is_tuple() => {
            for (left, right) in left.try_iter()?.checked().zip(right.try_iter()?.checked()) {
                let (left, right) = (left?, right?);
                if !equal_at(&left, &right, depth + 1)? {
                    return order(&left, &right, depth + 1);
                }
            }
            Ok(left.len().partial_cmp(&right.len()))
        }
        (left, right) => Err(error(format!("{left} and {right} have no order"))),
    }
}

/// `item in container`.
fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::String => match item.as_str() {
            Some(text) => Ok(container.as_str().unwrap_or_default().contains(text)),
            None => Err(error(format!("{} cannot be in a string", item.kind()))),
        },
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            for found in container.try_iter()?.checked() {
                if equal(&found?, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        kind => Err(error(format!("nothing can be in {kind}"))),
    }
}

/// A number, a boolean counted as one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "Python converts in the same way")]
    pub(super) fn to_float(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => Some(left.cmp(&right)),
            (left, right) => left.to_float().partial_cmp(&right.to_float()),
        }
    }
}

/// The number that a value is; `None` for what is none or does not fit.
pub(super) fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Integer(value.is_true().into())),
        ValueKind::Number if value.is_integer() => {
            i128::try_from(value.clone()).ok().map(Number::Integer)
        }
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

/// Names of the tests that [`test`] knows.
pub(super) const TESTS: [&str; 36] = [
    "sameas",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "true",
    "undefined",
    "upper",
    "==",
    "!=",
    "<",
    "<=",
    ">",
];

/// `value is name(argument)`.
pub(super) fn test(value: &Value, name: &str, arguments: &[Value]) -> Result<bool, Error> {
    let kind = value.kind();
    let answer = match (name, arguments) {
        ("defined", []) => kind != ValueKind::Undefined,
        ("undefined", []) => kind == ValueKind::Undefined,
        ("none", []) => kind == ValueKind::None,
        ("boolean", []) => kind == ValueKind::Bool,
        ("true", []) => kind == ValueKind::Bool && value.is_true(),
        ("false", []) => kind == ValueKind::Bool && !value.is_true(),
        ("integer", []) => value.is_integer(),
        ("float", []) => kind == ValueKind::Number && !value.is_integer(),
        ("number", []) => matches!(kind, ValueKind::Number | ValueKind::Bool),
        ("string", []) => kind == ValueKind::String,
        ("mapping", []) => super::python::is_dict(value),
        ("sequence", []) => {
            matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Undefined)
                || super::python::is_dict(value)
        }
        ("iterable", []) => {
            matches!(
                kind,
                ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Undefined
            ) || super::python::is_dict(value)
        }
        ("callable", []) => match kind {
            ValueKind::Plain => return Err(error("the test `callable` is not supported here")),
            ValueKind::Undefined => true,
            _ => false,
        },
        ("odd", []) => remainder(value, &Value::from(2))? == 1,
        ("even", []) => remainder(value, &Value::from(2))? == 0,
        ("divisibleby", [by]) => remainder(value, by)? == 0,
        ("lower", []) => is_case(value, char::is_ascii_lowercase, char::is_ascii_uppercase)?,
        ("upper", []) => is_case(value, char::is_ascii_uppercase, char::is_ascii_lowercase)?,
        ("eq" | "equalto" | "==", [other]) => equal(value, other)?,
        ("ne" | "!=", [other]) => !equal(value, other)?,
        ("lt" | "lessthan" | "<", [other]) => holds(value, "<", other)?,
        ("le" | "<=", [other]) => holds(value, "<=", other)?,
        ("gt" | "greaterthan" | ">", [other]) => holds(value, ">", other)?,
        ("ge" | ">=", [other]) => holds(value, ">=", other)?,
        ("sameas", [other]) => match (kind, other.kind()) {
            (ValueKind::None, ValueKind::None) => true,
            (ValueKind::Bool, ValueKind::Bool) => value.is_true() == other.is_true(),
            (ValueKind::None | ValueKind::Bool, _) | (_, ValueKind::None | ValueKind::Bool) => {
                false
            }
            _ => return Err(error("`sameas` is supported for none and booleans only")),
        },
        ("in", [container]) => contains(container, value)?,
        _ => return Err(error(format!("the test `{name}` does not take these arguments"))),
    };
    Ok(answer)
}

fn remainder(value: &Value, by: &Value) -> Result<i128, Error> {
    match (number(value), number(by)) {
        (Some(Number::Integer(value)), Some(Number::Integer(by))) if by != 0 => {
            Ok(value.rem_euclid(by))
        }
        _ => Err(error("the test takes whole numbers only")),
    }
}

/// `str.islower` and `str.isupper` of ASCII text.
pub(super) fn is_case(
    value: &Value,
    wanted: fn(&char) -> bool,
    other: fn(&char) -> bool,
) -> Result<bool, Error> {
    let text = super::python::str(value)?;
    ascii_only(&text)?;
    Ok(text.chars().any(|letter| wanted(&letter)) && !text.chars().any(|letter| other(&letter)))
}

/// Refuses text about whose letters Python and Rust may disagree.
pub(super) fn ascii_only(text: &str) -> Result<(), Error> {
    if text.is_ascii() || text.chars().all(is_space) {
        return Ok(());
    }
    Err(error("asking for the class of characters that are not ASCII is not supported"))
}
