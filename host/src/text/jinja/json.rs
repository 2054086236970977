//! `json.dumps` of Python, behind the filter `tojson`.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::compare::order;
use super::python::{self, DEPTH_LIMIT, error};
use super::sequence::{bind, integer, items, required, text};

/// How `transformers` calls `json.dumps`.
struct Style {
    ensure_ascii: bool,
    /// What one level of indentation is; `None` for everything on one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `value|tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(arguments: &[Value]) -> Result<Value, Error> {
    let [value, ensure_ascii, indent, separators, sort_keys] =
        bind("tojson", arguments, ["value", "ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let width = integer(&indent, "an indentation")?.clamp(0, 1000);
                " ".repeat(usize::try_from(width).unwrap_or_default())
            }
        }),
    };
    let separators = match separators.filter(|separators| !separators.is_none()) {
        None => [if indent.is_none() { ", " } else { "," }, ": "].map(str::to_owned),
        Some(separators) => match items(&separators)?.as_slice() {
            [item, key] => [text(item, "a separator")?, text(key, "a separator")?],
            _ => return Err(error("`separators` must be two strings")),
        },
    };
    let [item_separator, key_separator] = separators;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let style = Style {
        ensure_ascii: is_true(ensure_ascii),
        indent,
        item_separator,
        key_separator,
        sort_keys: is_true(sort_keys),
    };
    let mut out = String::new();
    style.write(&required(value, "tojson", "value")?, 0, &mut out)?;
    Ok(Value::from(out))
}

impl Style {
    fn write(&self, value: &Value, depth: u32, out: &mut String) -> Result<(), Error> {
        if depth == DEPTH_LIMIT {
            return Err(error("a value is nested too deeply for JSON"));
        }
        python::check_length(out)?;
        match value.kind() {
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), out),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => out.push_str(&scalar(value)?),
            ValueKind::Seq => {
                let items = value.try_iter()?.checked();
                self.write_all(["[", "]"], depth, items, out, |item, out| {
                    self.write(item, depth + 1, out)
                })?;
            }
            ValueKind::Map if python::is_dict(value) => {
                let mut keys = items(value)?;
                if self.sort_keys {
                    sort(&mut keys)?;
                }
                let keys = keys.into_iter().map(Ok);
                self.write_all(["{", "}"], depth, keys, out, |key, out| {
                    match key.as_str() {
                        Some(text) => self.write_text(text, out),
                        None => self.write_text(&scalar(key)?, out),
                    }
                    out.push_str(&self.key_separator);
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => return Err(error(format!("{kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn write_all(
        &self,
        [open, close]: [&str; 2],
        depth: u32,
        items: impl Iterator<Item = Result<Value, Error>>,
        out: &mut String,
        write: impl Fn(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push_str(open);
        let mut is_empty = true;
        for item in items {
            if !is_empty {
                out.push_str(&self.item_separator);
            }
            is_empty = false;
            self.new_line(depth + 1, out);
            write(&item?, out)?;
        }
        if !is_empty {
            self.new_line(depth, out);
        }
        out.push_str(close);
        Ok(())
    }

    fn new_line(&self, depth: u32, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn write_text(&self, text: &str, out: &mut String) {
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' | '\\' => out.extend(['\\', letter]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                _ if letter < ' ' || (self.ensure_ascii && letter > '~') => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => out.push(letter),
            }
        }
        out.push('"');
    }
}

fn scalar(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if value.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => match f64::try_from(value.clone())? {
            number if number.is_nan() => "NaN".to_owned(),
            number if number.is_infinite() && number > 0.0 => "Infinity".to_owned(),
            number if number.is_infinite() => "-Infinity".to_owned(),
            number => python::float(number),
        },
        kind => return Err(error(format!("{kind} cannot be a key in JSON"))),
    })
}

/// Sorts as Python does; what has no order is an error.
pub(super) fn sort(values: &mut [Value]) -> Result<(), Error> {
    let mut failure = None;
    values.sort_by(|left, right| match order(left, right, 0) {
        Ok(order) => order.unwrap_or(core::cmp::Ordering::Equal),
        Err(error) => {
            failure = Some(error);
            core::cmp::Ordering::Equal
        }
    });
    failure.map_or(Ok(()), Err)
}
