//! Methods of Python's strings.

use minijinja::{Error, Value};

use super::compare::{ascii_only, is_case};
use super::python::{error, is_space};
use super::sequence::{bind, integer, items, required, text};
use super::{operators, percent};

/// `object.name(arguments)` of a string; `None` when the method is not supported.
pub(super) fn method(
    object: &str,
    name: &str,
    arguments: &[Value],
) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = bind(name, arguments, ["chars"])?;
            Value::from(strip(object, name, chars)?)
        }
        "split" | "rsplit" => {
            let [sep, maxsplit] = bind(name, arguments, ["sep", "maxsplit"])?;
            split(object, name, sep, maxsplit)?
        }
        "splitlines" => {
            let [keepends] = bind(name, arguments, ["keepends"])?;
            split_lines(object, keepends.is_some_and(|keep| keep.is_true()))
        }
        "startswith" | "endswith" => {
            let [affix] = bind(name, arguments, ["affix"])?;
            let affix = required(affix, name, "affix")?;
            let affixes = if affix.is_tuple() { items(&affix)? } else { vec![affix] };
            let mut found = false;
            for affix in affixes {
                let affix = text(&affix, "an affix")?;
                found |= if name == "startswith" {
                    object.starts_with(&affix)
                } else {
                    object.ends_with(&affix)
                };
            }
            Value::from(found)
        }
        "replace" => {
            let [old, new, count] = bind(name, arguments, ["old", "new", "count"])?;
            let old = text(&required(old, name, "old")?, "what is replaced")?;
            let new = text(&required(new, name, "new")?, "the replacement")?;
            let count = count.map_or(Ok(-1), |count| integer(&count, "a count"))?;
            Value::from(match usize::try_from(count) {
                Ok(count) => object.replacen(&old, &new, count),
                Err(_) => object.replace(&old, &new),
            })
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(name, arguments, ["affix"])?;
            let affix = text(&required(affix, name, "affix")?, "an affix")?;
            let without = if name == "removeprefix" {
                object.strip_prefix(&affix)
            } else {
                object.strip_suffix(&affix)
            };
            Value::from(without.unwrap_or(object))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [sub] = bind(name, arguments, ["sub"])?;
            search(object, name, &text(&required(sub, name, "sub")?, "what is searched for")?)?
        }
        "join" => {
            let [iterable] = bind(name, arguments, ["iterable"])?;
            let mut parts = Vec::new();
            for item in items(&required(iterable, name, "iterable")?)? {
                parts.push(text(&item, "what is joined")?);
            }
            Value::from(parts.join(object))
        }
        "format" => Value::from(percent::str_format(object, arguments)?),
        _ => {
            let result = plain(object, name)?;
            if result.is_some() {
                let [] = bind(name, arguments, [])?;
            }
            return Ok(result);
        }
    }))
}

/// Methods without arguments.
fn plain(object: &str, name: &str) -> Result<Option<Value>, Error> {
    let all = |is: fn(&char) -> bool| -> Result<Value, Error> {
        ascii_only(object)?;
        Ok(Value::from(!object.is_empty() && object.chars().all(|letter| is(&letter))))
    };
    let value = Value::from(object);
    Ok(Some(match name {
        "upper" => Value::from(object.to_uppercase()),
        "lower" => Value::from(object.to_lowercase()),
        "title" => Value::from(title(object)?),
        "capitalize" => Value::from(capitalize(object)?),
        "isspace" => Value::from(!object.is_empty() && object.chars().all(is_space)),
        "isascii" => Value::from(object.is_ascii()),
        "isalpha" => all(char::is_ascii_alphabetic)?,
        "isalnum" => all(char::is_ascii_alphanumeric)?,
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_ascii_digit)?,
        "islower" => is_case(&value, char::is_ascii_lowercase, char::is_ascii_uppercase)?.into(),
        "isupper" => is_case(&value, char::is_ascii_uppercase, char::is_ascii_lowercase)?.into(),
        _ => return Ok(None),
    }))
}

/// `str.strip` and its two halves.
pub(super) fn strip(object: &str, name: &str, chars: Option<Value>) -> Result<String, Error> {
    let chars = chars.filter(|chars| !chars.is_none());
    let chars = chars.map(|chars| text(&chars, "what is stripped")).transpose()?;
    let is_stripped =
        |letter: char| chars.as_ref().map_or_else(|| is_space(letter), |set| set.contains(letter));
    let mut rest = object;
    if name != "rstrip" {
        rest = rest.trim_start_matches(is_stripped);
    }
    if name != "lstrip" {
        rest = rest.trim_end_matches(is_stripped);
    }
    Ok(rest.to_owned())
}

fn split(
    object: &str,
    name: &str,
    sep: Option<Value>,
    maxsplit: Option<Value>,
) -> Result<Value, Error> {
    let maxsplit = maxsplit.map_or(Ok(-1), |count| integer(&count, "a count"))?;
    let limit = usize::try_from(maxsplit).map_or(usize::MAX, |count| count.saturating_add(1));
    let sep = sep.filter(|sep| !sep.is_none());
    let parts: Vec<&str> = match (sep, name) {
        (Some(sep), _) => {
            let sep = text(&sep, "a separator")?;
            if sep.is_empty() {
                return Err(error("a separator is empty"));
            }
            if name == "split" {
                object.splitn(limit, sep.as_str()).collect()
            } else {
                let mut parts: Vec<&str> = object.rsplitn(limit, sep.as_str()).collect();
                parts.reverse();
                parts
            }
        }
        (None, "split") => split_space(object, limit),
        (None, _) if limit == usize::MAX => split_space(object, limit),
        _ => return Err(error("`rsplit` with a count and without a separator is not supported")),
    };
    Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
}

/// Words between white space; the last one of `limit` is the rest.
fn split_space(object: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = object.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() + 1 >= limit {
            parts.push(rest.trim_end_matches(is_space));
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    if limit == 1 && !parts.is_empty() {
        // Python keeps the white space at the end of a string that it does not split.
        return vec![object.trim_start_matches(is_space)];
    }
    parts
}

fn split_lines(object: &str, keep_ends: bool) -> Value {
    let is_break = |letter: char| {
        let old = matches!(letter, '\n'..='\r' | '\x1c'..='\x1e');
        old || matches!(letter, '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = object;
    while let Some(at) = rest.find(is_break) {
        let length = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep_ends { at + length } else { at }]));
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Value::from(lines)
}

fn search(object: &str, name: &str, sub: &str) -> Result<Value, Error> {
    if name == "count" {
        let count =
            if sub.is_empty() { object.chars().count() + 1 } else { object.matches(sub).count() };
        return Ok(Value::from(count));
    }
    let found = if name.starts_with('r') { object.rfind(sub) } else { object.find(sub) };
    match found {
        Some(at) => Ok(Value::from(object[..at].chars().count())),
        None if name.ends_with("find") => Ok(operators::from_integer(-1)),
        None => Err(error("the substring is not there")),
    }
}

/// `str.title`: a letter with case is upper case unless it follows one.
fn title(object: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(object.len());
    let mut inside = false;
    for letter in object.chars() {
        let has_case = letter.is_lowercase() || letter.is_uppercase();
        if inside {
            out.extend(letter.to_lowercase());
        } else {
            out.push(title_case(letter)?);
        }
        inside = has_case;
    }
    Ok(out)
}

/// `str.capitalize`, and the filter of this name.
pub(super) fn capitalize(object: &str) -> Result<String, Error> {
    let mut letters = object.chars();
    let Some(first) = letters.next() else { return Ok(String::new()) };
    let mut out = title_case(first)?.to_string();
    out.push_str(&letters.as_str().to_lowercase());
    Ok(out)
}

/// The title case of a letter where it is its upper case, which is one letter.
pub(super) fn title_case(letter: char) -> Result<char, Error> {
    let mut upper = letter.to_uppercase();
    let digraph = matches!(letter, '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}');
    let georgian = matches!(letter, '\u{10d0}'..='\u{10ff}');
    match (upper.next(), upper.next()) {
        (Some(upper), None) if !digraph && !georgian => Ok(upper),
        _ => Err(error(format!("the title case of {letter:?} is not supported"))),
    }
}
