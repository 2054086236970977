//! Filters that choose, change and order the items of a sequence.

use minijinja::{Error, State, Value};

use super::compare;
use super::filters::{FILTERS, generator};
use super::python::error;
use super::sequence::{self, bind, items, required, text};

/// `min` and `max`.
pub(super) fn extreme(arguments: &[Value], filter: &str) -> Result<Value, Error> {
    let [value] = bind(filter, arguments, ["value"])?;
    let mut best: Option<(Value, Value)> = None;
    for item in items(&required(value, filter, "value")?)? {
        let key = sort_key(&item, false);
        let wins = match &best {
            None => true,
            Some((best, _)) => {
                let order = compare::order(&key, best, 0)?;
                order.is_some_and(
                    |order| if filter == "max" { order.is_gt() } else { order.is_lt() },
                )
            }
        };
        if wins {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

/// What Jinja2 compares: text without its case.
pub(super) fn sort_key(value: &Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value.clone(),
    }
}

/// `value|sort(reverse, case_sensitive, attribute)`.
pub(super) fn sort(arguments: &[Value]) -> Result<Value, Error> {
    let [value, reverse, case_sensitive, attribute] =
        bind("sort", arguments, ["value", "reverse", "case_sensitive", "attribute"])?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let case_sensitive = is_true(case_sensitive);
    let mut keyed = Vec::new();
    for item in items(&required(value, "sort", "value")?)? {
        let key = match attribute.as_ref().filter(|name| !name.is_none()) {
            Some(name) => lookup(&item, name)?,
            None => item.clone(),
        };
        keyed.push((sort_key(&key, case_sensitive), item));
    }
    sort_keyed(keyed, is_true(reverse)).map(Value::from)
}

/// A stable sort; with `reverse`, equal items keep their order as in Python.
pub(super) fn sort_keyed(
    mut keyed: Vec<(Value, Value)>,
    reverse: bool,
) -> Result<Vec<Value>, Error> {
    let mut failure = None;
    keyed.sort_by(|(left, _), (right, _)| {
        let (left, right) = if reverse { (right, left) } else { (left, right) };
        match compare::order(left, right, 0) {
            Ok(order) => order.unwrap_or(core::cmp::Ordering::Equal),
            Err(error) => {
                failure = Some(error);
                core::cmp::Ordering::Equal
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

/// An attribute by its name; `a.b` goes deeper, a number is an index.
pub(super) fn lookup(item: &Value, name: &Value) -> Result<Value, Error> {
    let Some(name) = name.as_str() else { return sequence::item(item, name) };
    let mut found = item.clone();
    for part in name.split('.') {
        let key = part.parse::<u64>().map_or_else(|_| Value::from(part), Value::from);
        found = sequence::item(&found, &key)?;
    }
    Ok(found)
}

/// `value|map(filter, ...)` and `value|map(attribute=...)`.
pub(super) fn map(state: &mut State, arguments: &[Value]) -> Result<Value, Error> {
    let Some((value, rest)) = arguments.split_first() else {
        return Err(error("`map` needs a value"));
    };
    let mapped: Result<Vec<Value>, Error> = match rest {
        [named] if named.is_kwargs() => {
            let [attribute, default] = bind("map", rest, ["attribute", "default"])?;
            let name = required(attribute, "map", "attribute")?;
            let find = |item: &Value| {
                let found = lookup(item, &name)?;
                let missing = found.is_undefined();
                Ok(default.clone().filter(|_| missing).unwrap_or(found))
            };
            items(value)?.iter().map(find).collect()
        }
        [name, more @ ..] => {
            let name = text(name, "the name of a filter")?;
            let known = FILTERS.iter().find(|(known, _)| *known == name);
            let Some((_, filter)) = known else {
                return Err(error(format!("the filter `{name}` is not supported")));
            };
            let mut apply = |item: Value| {
                let mut arguments = vec![item];
                arguments.extend_from_slice(more);
                filter(state, &arguments)
            };
            items(value)?.into_iter().map(&mut apply).collect()
        }
        [] => Err(error("`map` needs a filter or an attribute")),
    };
    mapped.map(generator)
}

/// `select`, `reject` and their forms for attributes.
pub(super) fn select(
    arguments: &[Value],
    by_attribute: bool,
    wanted: bool,
) -> Result<Value, Error> {
    let Some((value, mut rest)) = arguments.split_first() else {
        return Err(error("`select` needs a value"));
    };
    if rest.iter().any(Value::is_kwargs) {
        return Err(error("named arguments of a test are not supported"));
    }
    let mut attribute = None;
    if by_attribute {
        let (name, after) = rest.split_first().ok_or_else(|| error("no attribute is named"))?;
        attribute = Some(name);
        rest = after;
    }
    let mut selected = Vec::new();
    for item in items(value)? {
        let tested = match attribute {
            Some(name) => lookup(&item, name)?,
            None => item.clone(),
        };
        let holds = match rest {
            [name, more @ ..] => compare::test(&tested, &text(name, "a test")?, more)?,
            [] => tested.is_true(),
        };
        if holds == wanted {
            selected.push(item);
        }
    }
    Ok(generator(selected))
}
