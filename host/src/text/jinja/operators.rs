//! Arithmetic, attributes and the other functions that a translated program calls.

use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::compare::{self, Number, number};
use super::python::{self, error};
use super::{PREFIX, methods, percent, sequence};

/// Longest string or list that `*` may make.
const REPEAT_LIMIT: usize = 100_000_000;

/// Makes the functions known to the program.
pub(super) fn install(environment: &mut Environment<'_>) {
    let mut add = |name: &str, function: fn(&mut State, &[Value]) -> Result<Value, Error>| {
        environment.add_function(
            format!("{PREFIX}{name}"),
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
                function(state, &arguments.into_values())
            },
        );
    };
    add("calculate", |_, arguments| calculate(arguments));
    add("sign", |_, arguments| sign(arguments));
    add("concat", |_, arguments| {
        let mut text = String::new();
        for argument in arguments {
            python::write_str(argument, &mut text)?;
        }
        Ok(Value::from(text))
    });
    add("compare", |_, arguments| compare::chain(arguments).map(Value::from));
    add("test", |_, arguments| match arguments {
        [value, name, arguments @ ..] => {
            compare::test(value, name.as_str().unwrap_or_default(), arguments).map(Value::from)
        }
        _ => Err(error("a test needs a value")),
    });
    add("items", |_, arguments| match arguments {
        [value] => sequence::items(value).map(Value::from),
        _ => Err(error("a loop needs one value")),
    });
    add("item", |_, arguments| match arguments {
        [object, key] => sequence::item(object, key),
        _ => Err(error("a subscript needs an object and a key")),
    });
    add("map", |_, arguments| sequence::map(arguments));
    add("slice", |_, arguments| match arguments {
        [object, bounds @ ..] => sequence::slice(object, bounds),
        _ => Err(error("a slice needs an object")),
    });
    add("attribute", |_, arguments| match arguments {
        [object, name] => methods::attribute(object, name.as_str().unwrap_or_default()),
        _ => Err(error("an attribute needs an object and a name")),
    });
    add("method", |state, arguments| match arguments {
        [object, name, arguments @ ..] => {
            methods::call(state, object, name.as_str().unwrap_or_default(), arguments)
        }
        _ => Err(error("a method needs an object and a name")),
    });
}

/// `a op b op c ...`, from the left.
fn calculate(arguments: &[Value]) -> Result<Value, Error> {
    let Some((first, rest)) = arguments.split_first() else {
        return Err(error("nothing to calculate"));
    };
    let mut result = first.clone();
    for step in rest.chunks_exact(2) {
        if let [operator, operand] = step {
            result = binary(&result, operator.as_str().unwrap_or_default(), operand)?;
        }
    }
    Ok(result)
}

fn binary(left: &Value, operator: &str, right: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        let result = arithmetic(left, operator, right);
        return result.ok_or_else(|| error(format!("cannot calculate a result of `{operator}`")));
    }
    match (operator, left.kind(), right.kind()) {
        ("+", ValueKind::String, ValueKind::String) => {
            let mut text = left.as_str().unwrap_or_default().to_owned();
            text.push_str(right.as_str().unwrap_or_default());
            Ok(Value::from(text))
        }
        ("+", ValueKind::Seq, ValueKind::Seq) if left.is_tuple() == right.is_tuple() => {
            let mut items = sequence::items(left)?;
            items.extend(sequence::items(right)?);
            Ok(list_like(left, items))
        }
        ("*", ValueKind::String | ValueKind::Seq, _) => repeat(left, right),
        ("*", _, ValueKind::String | ValueKind::Seq) => repeat(right, left),
        ("%", ValueKind::String, _) => {
            percent::format(left.as_str().unwrap_or_default(), right).map(Value::from)
        }
        (_, left, right) => Err(error(format!("`{operator}` does not take {left} and {right}"))),
    }
}

fn list_like(model: &Value, items: Vec<Value>) -> Value {
    if model.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) }
}

fn repeat(value: &Value, times: &Value) -> Result<Value, Error> {
    let times = sequence::integer(times, "a factor of a sequence")?;
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let unit = value.as_str().map_or_else(|| value.len().unwrap_or(0), str::len);
    if unit.checked_mul(times).is_none_or(|length| length > REPEAT_LIMIT) {
        return Err(error("a repeated sequence is too long"));
    }
    match value.as_str() {
        Some(text) => Ok(Value::from(text.repeat(times))),
        None => {
            let items = sequence::items(value)?;
            let repeated = core::iter::repeat_n(items, times).flatten().collect();
            Ok(list_like(value, repeated))
        }
    }
}

fn sign(arguments: &[Value]) -> Result<Value, Error> {
    let [sign, value] = arguments else { return Err(error("a sign needs a number")) };
    let negative = sign.as_str() == Some("-");
    match number(value) {
        Some(Number::Integer(number)) => {
            let number = if negative { number.checked_neg() } else { Some(number) };
            number.map(from_integer).ok_or_else(|| error("a number is too large"))
        }
        Some(Number::Float(number)) => Ok(Value::from(if negative { -number } else { number })),
        None => Err(error(format!("{} has no sign", value.kind()))),
    }
}

pub(super) fn from_integer(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

fn arithmetic(left: Number, operator: &str, right: Number) -> Option<Value> {
    if let (Number::Integer(left), Number::Integer(right)) = (left, right) {
        let result = match operator {
            "+" => left.checked_add(right)?,
            "-" => left.checked_sub(right)?,
            "*" => left.checked_mul(right)?,
            "//" => floor_divide(left, right)?,
            "%" => left.checked_sub(floor_divide(left, right)?.checked_mul(right)?)?,
            "**" if right >= 0 => left.checked_pow(u32::try_from(right).ok()?)?,
            _ => return float_arithmetic(left, operator, right),
        };
        return Some(from_integer(result));
    }
    float_operation(left.to_float(), operator, right.to_float()).map(Value::from)
}

/// `/` and negative powers of whole numbers.
fn float_arithmetic(left: i128, operator: &str, right: i128) -> Option<Value> {
    // Above 2^53 Python divides integers more exactly than their floats can be.
    let is_exact = |number: i128| number.unsigned_abs() <= 1 << 53;
    if !is_exact(left) || !is_exact(right) {
        return None;
    }
    let (left, right) = (Number::Integer(left).to_float(), Number::Integer(right).to_float());
    float_operation(left, operator, right).map(Value::from)
}

fn floor_divide(left: i128, right: i128) -> Option<i128> {
    let quotient = left.checked_div(right)?;
    let inexact = left.checked_rem(right)? != 0;
    if inexact && (left < 0) != (right < 0) { quotient.checked_sub(1) } else { Some(quotient) }
}

fn float_operation(left: f64, operator: &str, right: f64) -> Option<f64> {
    if matches!(operator, "/" | "//" | "%") && right == 0.0 {
        return None;
    }
    // `float_divmod` in CPython's Objects/floatobject.c.
    let divided = || {
        let mut remainder = left % right;
        let mut quotient = (left - remainder) / right;
        if remainder == 0.0 {
            remainder = remainder.copysign(right);
        } else if (right < 0.0) != (remainder < 0.0) {
            remainder += right;
            quotient -= 1.0;
        }
        let mut floor = quotient.floor();
        if quotient == 0.0 {
            floor = 0.0_f64.copysign(left / right);
        } else if quotient - floor > 0.5 {
            floor += 1.0;
        }
        (floor, remainder)
    };
    match operator {
        "+" => Some(left + right),
        "-" => Some(left - right),
        "*" => Some(left * right),
        "/" => Some(left / right),
        "//" => Some(divided().0),
        "%" => Some(divided().1),
        "**" => {
            let power = left.powf(right);
            // Python raises where the result overflows, is infinite or complex.
            power.is_finite().then_some(power)
        }
        _ => None,
    }
}
