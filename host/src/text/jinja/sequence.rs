//! Sequences: iteration, items, slices, and the arguments of calls.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::compare::{Number, equal, number};
use super::methods;
use super::python::error;

/// Assigns the arguments of a call to parameters by position and by name.
pub(super) fn bind<const N: usize>(
    function: &str,
    arguments: &[Value],
    parameters: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    let mut bound = [const { None }; N];
    for (index, argument) in arguments.iter().enumerate() {
        if argument.is_kwargs() {
            for name in argument.try_iter()? {
                let place =
                    parameters.iter().position(|parameter| name.as_str() == Some(parameter));
                match place {
                    Some(place) if bound[place].is_none() => {
                        bound[place] = Some(argument.get_item(&name)?);
                    }
                    _ => {
                        let message = format!("`{function}` takes no argument `{name}`");
                        return Err(Error::new(ErrorKind::TooManyArguments, message));
                    }
                }
            }
        } else {
            let place = bound.get_mut(index).ok_or_else(|| {
                let message = format!("`{function}` takes {N} arguments at most");
                Error::new(ErrorKind::TooManyArguments, message)
            })?;
            *place = Some(argument.clone());
        }
    }
    Ok(bound)
}

/// What was bound, or an error that says what is missing.
pub(super) fn required(
    bound: Option<Value>,
    function: &str,
    parameter: &str,
) -> Result<Value, Error> {
    bound.ok_or_else(|| {
        let message = format!("`{function}` needs its argument `{parameter}`");
        Error::new(ErrorKind::MissingArgument, message)
    })
}

/// A string argument.
pub(super) fn text(value: &Value, what: &str) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(error(format!("{what} must be a string, not {}", value.kind()))),
    }
}

/// A whole number, booleans counted.
pub(super) fn integer(value: &Value, what: &str) -> Result<i128, Error> {
    match number(value) {
        Some(Number::Integer(number)) => Ok(number),
        _ => Err(error(format!("{what} must be a whole number, not {}", value.kind()))),
    }
}

/// Everything that iterating over a value gives, as Python iterates.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::String => Ok(value
            .as_str()
            .unwrap_or_default()
            .chars()
            .map(|c| Value::from(c.to_string()))
            .collect()),
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.checked().collect(),
        ValueKind::Map if super::python::is_dict(value) => value.try_iter()?.checked().collect(),
        kind => Err(error(format!("{kind} cannot be iterated over"))),
    }
}

/// `len(value)`.
pub(super) fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            value.len().ok_or_else(|| error("a generator has no length"))
        }
        kind => Err(error(format!("{kind} has no length"))),
    }
}

/// `object[key]`; undefined when there is nothing.
pub(super) fn item(object: &Value, key: &Value) -> Result<Value, Error> {
    match object.kind() {
        ValueKind::Undefined => object.get_item(key),
        ValueKind::String | ValueKind::Seq => match number(key) {
            Some(Number::Integer(index)) => {
                let length = length(object)?;
                match position(index, length) {
                    Some(index) => object.get_item_by_index(index),
                    None => Ok(Value::UNDEFINED),
                }
            }
            _ => missing(object, key),
        },
        ValueKind::Map if super::python::is_dict(object) => {
            let found = map_item(object, key)?;
            if found.is_undefined() { missing(object, key) } else { Ok(found) }
        }
        ValueKind::Iterable => Err(error("an iterator has no items by index")),
        _ => object.get_item(key),
    }
}

/// What a dictionary has for a key; numbers that are equal are one key.
pub(super) fn map_item(object: &Value, key: &Value) -> Result<Value, Error> {
    if key.as_str().is_some() {
        return object.get_item(key);
    }
    check_key(key)?;
    for found in object.try_iter()?.checked() {
        let found = found?;
        if equal(&found, key)? {
            return object.get_item(&found);
        }
    }
    Ok(Value::UNDEFINED)
}

fn check_key(key: &Value) -> Result<(), Error> {
    let has_list = key.is_tuple() && items(key)?.iter().any(|item| check_key(item).is_err());
    let is_list = key.kind() == ValueKind::Seq && !key.is_tuple();
    if has_list || is_list || key.kind() == ValueKind::Map {
        return Err(error(format!("{} cannot be a key", key.kind())));
    }
    Ok(())
}

/// A dictionary from keys and values in turn: the first of equal keys, the last of their values.
pub(super) fn map(arguments: &[Value]) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for pair in arguments.chunks_exact(2) {
        let [key, value] = pair else { continue };
        check_key(key)?;
        let mut known = None;
        for (index, (other, _)) in pairs.iter().enumerate() {
            if equal(other, key)? {
                known = Some(index);
            }
        }
        match known.and_then(|index| pairs.get_mut(index)) {
            Some((_, old)) => *old = value.clone(),
            None => pairs.push((key.clone(), value.clone())),
        }
    }
    Ok(Value::from_pairs(pairs))
}

/// Jinja2 looks for an attribute where there is no item: a method, for what has one.
fn missing(object: &Value, key: &Value) -> Result<Value, Error> {
    match key.as_str() {
        Some(name) if methods::has_method(object, name) => {
            Err(error(format!("the method `{name}` without a call is not supported")))
        }
        _ => Ok(Value::UNDEFINED),
    }
}

fn position(index: i128, length: usize) -> Option<usize> {
    let length = i128::try_from(length).ok()?;
    let index = if index < 0 { index + length } else { index };
    usize::try_from(index).ok().filter(|_| index < length)
}

/// `object[start:stop:step]`.
pub(super) fn slice(object: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let [start, stop, step] = bounds else { return Err(error("a slice has three parts")) };
    let bound = |value: &Value| match value.kind() {
        ValueKind::None => Ok(None),
        _ => integer(value, "a bound of a slice").map(Some),
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(error("the step of a slice is zero"));
    }
    if !matches!(object.kind(), ValueKind::String | ValueKind::Seq) {
        // Jinja2 finds no item and no attribute.
        return if object.is_undefined() {
            object.get_item(&Value::from(0))
        } else {
            Ok(Value::UNDEFINED)
        };
    }
    let all = items(object)?;
    let length = i128::try_from(all.len()).unwrap_or(i128::MAX);
    // PySlice_AdjustIndices in CPython's Objects/sliceobject.c.
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |index: i128| {
        let index = if index < 0 { index.saturating_add(length) } else { index };
        index.clamp(lowest, highest)
    };
    let start = start.map_or(if step > 0 { lowest } else { highest }, clamp);
    let stop = stop.map_or(if step > 0 { highest } else { lowest }, clamp);
    let mut taken = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        if let Some(item) = usize::try_from(at).ok().and_then(|at| all.get(at)) {
            taken.push(item.clone());
        }
        at = at.saturating_add(step);
    }
    Ok(match object.kind() {
        ValueKind::String => {
            Value::from(taken.iter().filter_map(Value::as_str).collect::<String>())
        }
        _ if object.is_tuple() => Value::from(Tuple::from(taken)),
        _ => Value::from(taken),
    })
}
