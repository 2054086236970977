//! `'...' % value` and `'...'.format(...)`.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::compare::{Number, number};
use super::python::{self, error};
use super::sequence;

/// Widest field and largest precision.
const WIDTH_LIMIT: usize = 10_000;

/// `template % value` for a string.
pub(super) fn format(template: &str, value: &Value) -> Result<String, Error> {
    let mut values =
        if value.is_tuple() { sequence::items(value)? } else { vec![value.clone()] }.into_iter();
    let mut out = String::new();
    let mut rest = template;
    let mut by_name = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut named = None;
        if let Some(after) = rest.strip_prefix('(') {
            let (name, after) =
                after.split_once(')').ok_or_else(|| error("a format key has no end"))?;
            named = Some(sequence::item(value, &Value::from(name))?);
            by_name = true;
            rest = after;
        }
        let spec = Spec::take(&mut rest)?;
        if spec.conversion == '%' {
            out.push('%');
            continue;
        }
        let next = named.or_else(|| values.next());
        let argument = next.ok_or_else(|| error("not enough values for a format"))?;
        spec.write(&argument, &mut out)?;
    }
    out.push_str(rest);
    let is_map = value.kind() == ValueKind::Map;
    if !by_name && !is_map && values.next().is_some() {
        return Err(error("not all values of a format were used"));
    }
    Ok(out)
}

/// One conversion: flags, width, precision, letter.
#[derive(Debug, Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

impl Spec {
    fn take(rest: &mut &str) -> Result<Self, Error> {
        let mut spec = Self::default();
        loop {
            match rest.chars().next() {
                Some('-') => spec.left = true,
                Some('0') => spec.zero = true,
                Some('+') => spec.plus = true,
                Some(' ') => spec.space = true,
                _ => break,
            }
            *rest = &rest[1..];
        }
        spec.width = take_number(rest)?;
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            spec.precision = Some(take_number(rest)?);
        }
        let conversion = rest.chars().next().ok_or_else(|| error("a format ends too early"))?;
        *rest = &rest[conversion.len_utf8()..];
        spec.conversion = conversion;
        Ok(spec)
    }

    fn write(&self, value: &Value, out: &mut String) -> Result<(), Error> {
        let (sign, body) = match self.conversion {
            's' | 'r' => {
                let mut text = String::new();
                if self.conversion == 's' {
                    python::write_str(value, &mut text)?;
                } else {
                    python::write_repr(value, &mut text, 0)?;
                }
                let precision = self.precision.unwrap_or(usize::MAX);
                ("", text.chars().take(precision).collect())
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                if self.precision.is_some() {
                    return Err(error("a format of integers with a precision is not supported"));
                }
                let number = match number(value) {
                    Some(Number::Integer(number)) => number,
                    Some(Number::Float(_)) => {
                        return Err(error("a format of floats as integers is not supported"));
                    }
                    None => {
                        return Err(error(format!("`%d` needs a number, not {}", value.kind())));
                    }
                };
                let size = number.unsigned_abs();
                let digits = match self.conversion {
                    'x' => format!("{size:x}"),
                    'X' => format!("{size:X}"),
                    'o' => format!("{size:o}"),
                    _ => size.to_string(),
                };
                (self.sign(number < 0), digits)
            }
            'f' | 'F' => {
                let Some(number) = number(value).map(Number::to_float) else {
                    return Err(error(format!("`%f` needs a number, not {}", value.kind())));
                };
                if !number.is_finite() {
                    return Err(error("a format of an infinite number is not supported"));
                }
                let precision = self.precision.unwrap_or(6);
                (self.sign(number.is_sign_negative()), format!("{:.precision$}", number.abs()))
            }
            other => return Err(error(format!("the format `%{other}` is not supported"))),
        };
        let is_number = !matches!(self.conversion, 's' | 'r');
        let fill = self.width.saturating_sub(sign.len() + body.chars().count());
        if self.left {
            out.extend([sign, body.as_str(), &" ".repeat(fill)]);
        } else if self.zero && is_number {
            out.extend([sign, &"0".repeat(fill), body.as_str()]);
        } else {
            out.extend([&" ".repeat(fill), sign, body.as_str()]);
        }
        Ok(())
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            _ => "",
        }
    }
}

/// Digits as a number; none are 0.
fn take_number(rest: &mut &str) -> Result<usize, Error> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(length);
    *rest = after;
    if rest.starts_with('*') {
        return Err(error("`*` in a format is not supported"));
    }
    match digits {
        "" => Ok(0),
        _ => match digits.parse() {
            Ok(number) if number <= WIDTH_LIMIT => Ok(number),
            _ => Err(error("a width in a format is too large")),
        },
    }
}

/// `template.format(...)` with plain fields: `{}`, `{0}`, `{name}`.
pub(super) fn str_format(template: &str, arguments: &[Value]) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = template;
    let mut automatic = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let bracket = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(bracket) {
            out.push_str(bracket);
            rest = after;
            continue;
        }
        let (field, after) = rest
            .split_once('}')
            .filter(|_| bracket == "{")
            .ok_or_else(|| error("single bracket in a format"))?;
        rest = after;
        let is_plain = field.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        if !is_plain {
            return Err(error(format!("the format field `{field}` is not supported")));
        }
        let argument = if field.is_empty() {
            automatic += 1;
            arguments.get(automatic - 1).filter(|value| !value.is_kwargs()).cloned()
        } else if let Ok(index) = field.parse::<usize>() {
            arguments.get(index).filter(|value| !value.is_kwargs() && automatic == 0).cloned()
        } else {
            let named = arguments.last().filter(|value| value.is_kwargs());
            named.map(|named| named.get_attr(field)).transpose()?.filter(|v| !v.is_undefined())
        };
        let argument = argument.ok_or_else(|| error(format!("no value for field `{field}`")))?;
        python::write_str(&argument, &mut out)?;
    }
    out.push_str(rest);
    Ok(out)
}
