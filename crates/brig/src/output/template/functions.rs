//! Functions of templates, and Go's way of printing values.

use std::cmp::Ordering;

use serde_json::Value;

use super::{TemplateError, fail};

type Result<T> = std::result::Result<T, TemplateError>;

/// Follows a path of fields; exact names first, then without regard to case.
pub(super) fn field<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(map) => map.get(name).or_else(|| {
            map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        }),
        _ => None,
    })
}

/// Go's truth: everything but zero, false, null and what is empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Go's `%v`.
pub(super) fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                print_inner(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (index, (key, item)) in by_key(map).into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                print_inner(item, out);
            }
            out.push(']');
        }
    }
}

/// A map's entries in the order of their keys, as Go has them. A feature that some other crate
/// turns on makes ours keep the order of insertion.
pub(super) fn by_key(map: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

fn print_inner(value: &Value, out: &mut String) {
    if value.is_null() { out.push_str("<nil>") } else { print(value, out) }
}

fn text_of(value: &Value) -> String {
    let mut text = String::new();
    print(value, &mut text);
    text
}

/// A function in a table's head: its text argument, unchanged.
pub(super) fn header(name: &str, arguments: &[Value]) -> Option<Value> {
    let text = arguments.iter().rev().find(|a| a.is_string()).cloned();
    match name {
        "json" | "join" | "split" | "title" | "lower" | "upper" | "pad" | "truncate"
        | "println" | "print" => arguments.iter().find(|a| a.is_string()).cloned(),
        _ => text,
    }
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let count = arguments.len();
    let wrong = || TemplateError(format!("wrong number of args for {name}: got {count}"));
    let argument = |index: usize| arguments.get(index).ok_or_else(wrong);
    let string = |index: usize| argument(index).map(text_of);
    Ok(match name {
        "json" => {
            // The order of `by_key`, at every depth.
            let mut value = argument(0)?.clone();
            value.sort_all_objects();
            Value::from(value.to_string())
        }
        "lower" => Value::from(string(0)?.to_lowercase()),
        "upper" => Value::from(string(0)?.to_uppercase()),
        "title" => Value::from(title(&string(0)?)),
        "len" => Value::from(length(argument(0)?)?),
        "not" => Value::Bool(!is_true(argument(0)?)),
        "and" => first(arguments, |v| !is_true(v)).ok_or_else(wrong)?,
        "or" => first(arguments, is_true).ok_or_else(wrong)?,
        "print" => Value::from(arguments.iter().map(text_of).collect::<String>()),
        "println" => {
            let parts: Vec<String> = arguments.iter().map(text_of).collect();
            Value::from(format!("{}\n", parts.join(" ")))
        }
        "printf" => Value::from(printf(&string(0)?, arguments.get(1..).unwrap_or_default())?),
        "index" => index(argument(0)?, arguments.get(1..).unwrap_or_default())?,
        "slice" => slice(argument(0)?, arguments.get(1..).unwrap_or_default())?,
        "join" => {
            let separator = string(1)?;
            match argument(0)? {
                Value::Array(list) => {
                    Value::from(list.iter().map(text_of).collect::<Vec<_>>().join(&separator))
                }
                Value::Null => Value::from(""),
                other => return fail(format!("join: expected a list, got {other}")),
            }
        }
        "split" => {
            let (text, separator) = (string(0)?, string(1)?);
            Value::from(text.split(separator.as_str()).collect::<Vec<_>>())
        }
        "truncate" => {
            let length =
                argument(1)?.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            Value::from(string(0)?.chars().take(length).collect::<String>())
        }
        "pad" => {
            let spaces = |index: usize| -> Result<String> {
                let n = argument(index)?.as_u64().unwrap_or_default().min(1000);
                Ok(" ".repeat(usize::try_from(n).unwrap_or_default()))
            };
            let text = string(0)?;
            if text.is_empty() {
                Value::from("")
            } else {
                Value::from(format!("{}{text}{}", spaces(1)?, spaces(2)?))
            }
        }
        "eq" => {
            let left = argument(0)?;
            let rest = arguments.get(1..).unwrap_or_default();
            if rest.is_empty() {
                return Err(wrong());
            }
            Value::Bool(rest.iter().any(|right| compare(left, right) == Some(Ordering::Equal)))
        }
        "ne" => Value::Bool(compare(argument(0)?, argument(1)?) != Some(Ordering::Equal)),
        "lt" | "le" | "gt" | "ge" => {
            let Some(order) = compare(argument(0)?, argument(1)?) else {
                return fail("incompatible types for comparison");
            };
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        _ => return fail(format!("function {name:?} not defined")),
    })
}

fn first(arguments: &[Value], decides: impl Fn(&Value) -> bool) -> Option<Value> {
    arguments.iter().find(|v| decides(v)).or(arguments.last()).cloned()
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !c.is_alphanumeric();
    }
    out
}

fn length(value: &Value) -> Result<usize> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        Value::Null => Ok(0),
        other => fail(format!("len of type {other}")),
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn index(value: &Value, path: &[Value]) -> Result<Value> {
    let mut value = value;
    for key in path {
        value = match (value, key) {
            (Value::Object(map), key) => map.get(&text_of(key)).unwrap_or(&Value::Null),
            (Value::Array(list), Value::Number(n)) => {
                let at = n.as_u64().and_then(|n| usize::try_from(n).ok());
                match at.and_then(|at| list.get(at)) {
                    Some(item) => item,
                    None => return fail(format!("error calling index: index out of range: {n}")),
                }
            }
            // An absent map has no entries.
            (Value::Null, Value::String(_)) => &Value::Null,
            (other, _) => return fail(format!("error calling index: can't index item of {other}")),
        };
    }
    // A map's missing entry is the zero value, which prints as nothing.
    Ok(if value.is_null() { Value::from("") } else { value.clone() })
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value> {
    let out_of_range = || TemplateError("error calling slice: index out of range".to_owned());
    let bound = |index: usize, default: usize| -> Result<usize> {
        bounds.get(index).map_or(Ok(default), |v| {
            v.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(out_of_range)
        })
    };
    match value {
        Value::String(text) => {
            let (start, end) = (bound(0, 0)?, bound(1, text.len())?);
            text.get(start..end).map(Value::from).ok_or_else(out_of_range)
        }
        Value::Array(list) => {
            let (start, end) = (bound(0, 0)?, bound(1, list.len())?);
            list.get(start..end).map(Value::from).ok_or_else(out_of_range)
        }
        other => fail(format!("error calling slice: can't slice {other}")),
    }
}

/// `%s`, `%v`, `%d`, `%q`, `%t`, `%%`, with a width as in `%-10s`.
fn printf(format: &str, arguments: &[Value]) -> Result<String> {
    const MAX_WIDTH: usize = 1000;
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let mut width = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width.push(digit);
        }
        let width = width.parse::<usize>().unwrap_or(0).min(MAX_WIDTH);
        let Some(verb) = chars.next() else {
            return fail("printf: missing verb");
        };
        let Some(value) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = match verb {
            's' | 'v' | 'd' | 't' => text_of(value),
            'q' => format!("{:?}", text_of(value)),
            'x' => text_of(value).bytes().map(|b| format!("{b:02x}")).collect(),
            other => return fail(format!("printf: unknown verb %{other}")),
        };
        let padding = width.saturating_sub(text.chars().count());
        if left {
            out.push_str(&text);
        }
        out.extend(std::iter::repeat_n(' ', padding));
        if !left {
            out.push_str(&text);
        }
    }
    Ok(out)
}
