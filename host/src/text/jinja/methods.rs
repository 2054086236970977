//! Methods of Python's strings, dictionaries and lists.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::compare::equal;
use super::python::{self, error};
use super::sequence::{bind, items, map_item, required};
use super::strings;

const STRING: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const MAP: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];
const LIST: [&str; 11] = [
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];

const NUMBER: [&str; 11] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "hex",
    "imag",
    "is_integer",
    "numerator",
    "real",
    "to_bytes",
];

/// Whether an attribute of this name may be a method of something.
pub(super) fn is_method_name(name: &str) -> bool {
    [&STRING[..], &MAP, &LIST, &NUMBER].iter().any(|names| names.contains(&name))
}

/// Whether Python's type for `object` has a method of this name.
pub(super) fn has_method(object: &Value, name: &str) -> bool {
    match object.kind() {
        ValueKind::String => STRING.contains(&name),
        ValueKind::Seq => LIST.contains(&name),
        ValueKind::Number | ValueKind::Bool => NUMBER.contains(&name),
        ValueKind::Map => python::is_dict(object) && MAP.contains(&name),
        _ => false,
    }
}

/// `object.name` without a call, where `name` may be a method.
pub(super) fn attribute(object: &Value, name: &str) -> Result<Value, Error> {
    if has_method(object, name) {
        return Err(error(format!("the method `{name}` without a call is not supported")));
    }
    object.get_attr(name)
}

/// `object.name(arguments)`.
pub(super) fn call(
    state: &mut State,
    object: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let result = match object.kind() {
        ValueKind::Undefined => return object.get_attr(name),
        ValueKind::String => strings::method(object.as_str().unwrap_or_default(), name, arguments)?,
        ValueKind::Seq => list(object, name, arguments)?,
        ValueKind::Map if has_method(object, name) => map(object, name, arguments)?,
        _ => Some(object.call_method(state, name, arguments)?),
    };
    result.ok_or_else(|| {
        error(format!("the method `{name}` of a {} is not supported", object.kind()))
    })
}

fn map(object: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "get" => {
            let [key, default] = bind(name, arguments, ["key", "default"])?;
            let found = map_item(object, &required(key, name, "key")?)?;
            if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found }
        }
        "keys" => {
            let [] = bind(name, arguments, [])?;
            view(items(object)?)
        }
        "values" => {
            let [] = bind(name, arguments, [])?;
            let keys = items(object)?;
            view(keys.iter().map(|key| object.get_item(key)).collect::<Result<_, _>>()?)
        }
        "items" => {
            let [] = bind(name, arguments, [])?;
            view(pairs(object)?)
        }
        _ => return Ok(None),
    }))
}

/// The items of a dictionary, as tuples.
pub(super) fn pairs(object: &Value) -> Result<Vec<Value>, Error> {
    let pair = |key: Value| {
        let value = object.get_item(&key)?;
        Ok(Value::from(Tuple::from([key, value])))
    };
    items(object)?.into_iter().map(pair).collect()
}

/// What can be counted and iterated over, and nothing else: a view of a dictionary.
fn view(items: Vec<Value>) -> Value {
    Value::make_object_iterable(Value::from(items).as_object().cloned(), |items| {
        match items.as_ref().and_then(|items| items.try_iter()) {
            Some(items) => items,
            None => Box::new(core::iter::empty()),
        }
    })
}

fn list(object: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let [wanted] = match name {
        "count" | "index" => bind(name, arguments, ["value"])?,
        _ => return Ok(None),
    };
    let wanted = required(wanted, name, "value")?;
    let mut count = 0_usize;
    for (index, item) in items(object)?.iter().enumerate() {
        if equal(item, &wanted)? {
            if name == "index" {
                return Ok(Some(Value::from(index)));
            }
            count += 1;
        }
    }
    match name {
        "count" => Ok(Some(Value::from(count))),
        _ => Err(error("the value is not in the list")),
    }
}
