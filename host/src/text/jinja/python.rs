//! How Python 3 writes values: `str`, `repr`, string literals.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Deepest nesting of a value that is printed, compared or written as JSON.
pub(super) const DEPTH_LIMIT: u32 = 100;

/// Longest text that one value may become, in bytes: a prompt of 10 MB has room.
const TEXT_LIMIT: usize = 16 << 20;

/// Refuses to go on with a text that has become too long.
pub(super) fn check_length(text: &str) -> Result<(), Error> {
    if text.len() > TEXT_LIMIT {
        return Err(error(format!("a text is longer than {TEXT_LIMIT} bytes")));
    }
    Ok(())
}

/// An operation that has no result, in our words.
pub(super) fn error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// `str.isspace` of one character.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

/// A string that the filter `safe` marked. Python would escape what is added to it, so that it
/// can be printed and nothing else.
#[derive(Debug)]
pub(super) struct Safe(pub(super) String);

impl minijinja::value::Object for Safe {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Plain
    }
}

/// Appends `str(value)`.
pub(super) fn write_str(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::String => {
            out.push_str(value.as_str().unwrap_or_default());
            Ok(())
        }
        _ => write_repr(value, out, 0),
    }
}

/// `str(value)`.
pub(super) fn str(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_str(value, &mut out)?;
    Ok(out)
}

/// Appends `repr(value)`.
pub(super) fn write_repr(value: &Value, out: &mut String, depth: u32) -> Result<(), Error> {
    if depth == DEPTH_LIMIT {
        return Err(error("a value is nested too deeply to be printed"));
    }
    check_length(out)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            let is_tuple = value.is_tuple();
            out.push(if is_tuple { '(' } else { '[' });
            let mut count = 0_usize;
            for item in value.try_iter()?.checked() {
                if count > 0 {
                    out.push_str(", ");
                }
                write_repr(&item?, out, depth + 1)?;
                count += 1;
            }
            if is_tuple && count == 1 {
                out.push(',');
            }
            out.push(if is_tuple { ')' } else { ']' });
        }
        ValueKind::Map if is_dict(value) => {
            out.push('{');
            for (index, key) in value.try_iter()?.checked().enumerate() {
                let key = key?;
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, out, depth + 1)?;
                out.push_str(": ");
                write_repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        kind => return Err(error(format!("printing this {kind} is not supported"))),
    }
    Ok(())
}

/// Whether a map is a dictionary, and not a namespace or another object with attributes.
pub(super) fn is_dict(value: &Value) -> bool {
    value.kind() == ValueKind::Map
        && value.as_object().is_some_and(|object| !object.type_name().ends_with("Namespace"))
}

/// `repr` of a float: the shortest digits that read back as the same number.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if letter == quote => out.extend(['\\', quote]),
            ' '..='~' => out.push(letter),
            _ if is_printable(letter) => out.push(letter),
            _ => match u32::from(letter) {
                code @ ..0x100 => out.push_str(&format!("\\x{code:02x}")),
                code @ ..0x1_0000 => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one character that is not ASCII. `str::escape_debug` has the same rule (no
/// controls, formats, surrogates, private or unassigned characters, separators) and beyond it
/// escapes a combining character at the beginning, where a letter stands here.
fn is_printable(letter: char) -> bool {
    letter > '\x7f' && format!("a{letter}").escape_debug().nth(1) == Some(letter)
}

/// The contents of a Jinja2 string literal (`str.encode("ascii", "backslashreplace")
/// .decode("unicode-escape")`).
pub(super) fn unescape(raw: &str) -> Result<String, String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else {
            return Err("a string ends with a backslash".to_owned());
        };
        if !letter.is_ascii() || letter == 'N' {
            return Err(format!("the escape `\\{letter}` is not supported"));
        }
        rest = &rest[1..];
        let simple = match letter {
            '\n' => continue,
            '\\' | '\'' | '"' => letter,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => take_code(&mut rest, 2, 16)?,
            'u' => take_code(&mut rest, 4, 16)?,
            'U' => take_code(&mut rest, 8, 16)?,
            '0'..='7' => {
                let more = rest.bytes().take(2).take_while(|byte| matches!(byte, b'0'..=b'7'));
                let digits = format!("{letter}{}", &rest[..more.count()]);
                rest = &rest[digits.len() - 1..];
                take_code(&mut digits.as_str(), digits.len(), 8)?
            }
            _ => {
                text.push('\\');
                letter
            }
        };
        text.push(simple);
    }
    text.push_str(rest);
    Ok(text)
}

fn take_code(rest: &mut &str, digits: usize, radix: u32) -> Result<char, String> {
    let code = rest.get(..digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
    let letter = code
        .and_then(|code| u32::from_str_radix(code, radix).ok())
        .and_then(char::from_u32)
        .ok_or("a string contains an escape that is no character")?;
    *rest = &rest[digits..];
    Ok(letter)
}

/// A string literal of minijinja.
pub(super) fn literal(text: &str) -> String {
    let mut code = String::with_capacity(text.len() + 2);
    code.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => code.extend(['\\', letter]),
            '\n' => code.push_str("\\n"),
            '\r' => code.push_str("\\r"),
            _ => code.push(letter),
        }
    }
    code.push('"');
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (1.0, "1.0"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
            (1e300, "1e+300"),
            (1.0 / 3.0, "0.3333333333333333"),
        ];
        for (number, text) in cases {
            assert_eq!(float(number), text);
        }
    }

    #[test]
    fn escapes_are_read_as_python_reads_them() {
        assert_eq!(unescape(r"a\n\x41\u00e9\101\d\\").unwrap(), "a\nA\u{e9}A\\d\\");
        assert!(unescape(r"\ud83d").is_err());
        assert!(unescape(r"\x4").is_err());
    }
}
