//! Variables in a file: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`,
//! `${NAME:?message}`, `${NAME?message}`, `${NAME:+other}`, `${NAME+other}`, and `$$` for a dollar
//! (Compose Specification, "Interpolation"). Defaults may hold variables themselves.

use super::value::Value;
use crate::error::{Result, message};

/// Where variables get their values from.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How deep defaults may be nested.
const MAX_DEPTH: usize = 16;

/// Replaces the variables in every text below `value`, which is found at `path`.
pub(super) fn values(value: &mut Value, path: &str, lookup: Lookup<'_>) -> Result<()> {
    match value {
        Value::Text(text) if text.contains('$') => {
            *text = interpolate(text, lookup, 0).map_err(|wrong| match wrong {
                Wrong::Format => message(format!(
                    "invalid interpolation format for {path}: {text:?}; you may need to escape any $ with another $"
                )),
                Wrong::Missing(name, reason) if reason.is_empty() => message(format!(
                    "invalid interpolation for {path}: required variable {name} is missing a value"
                )),
                Wrong::Missing(name, reason) => message(format!(
                    "invalid interpolation for {path}: required variable {name} is missing a value: {reason}"
                )),
            })?;
        }
        Value::List(list) => {
            for (at, item) in list.iter_mut().enumerate() {
                values(item, &format!("{path}.[{at}]"), lookup)?;
            }
        }
        Value::Map(map) => {
            for (name, item) in map {
                values(item, &format!("{path}.{name}"), lookup)?;
            }
        }
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Format,
    Missing(String, String),
}

fn interpolate(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, Wrong> {
    if depth > MAX_DEPTH {
        return Err(Wrong::Format);
    }
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            done.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or(Wrong::Format)?;
            let (inside, after) = after.split_at(end);
            done.push_str(&braced(inside, lookup, depth)?);
            rest = after.strip_prefix('}').unwrap_or(after);
        } else {
            let (name, after) = name(after);
            if name.is_empty() {
                return Err(Wrong::Format);
            }
            done.push_str(&lookup(name).unwrap_or_default());
            rest = after;
        }
    }
    done.push_str(rest);
    Ok(done)
}

/// Where the brace ends that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut dollar = false;
    for (at, c) in text.char_indices() {
        match c {
            '{' if dollar => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        dollar = c == '$';
    }
    None
}

fn name(text: &str) -> (&str, &str) {
    let starts = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    text.split_at(if starts { end } else { 0 })
}

fn braced(inside: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, Wrong> {
    let (name, rest) = name(inside);
    if name.is_empty() {
        return Err(Wrong::Format);
    }
    let value = lookup(name);
    let (unless_empty, operator) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let Some(kind) = operator.chars().next() else {
        return if unless_empty { Err(Wrong::Format) } else { Ok(value.unwrap_or_default()) };
    };
    let set = value.filter(|value| !(unless_empty && value.is_empty()));
    let word = operator.get(kind.len_utf8()..).unwrap_or_default();
    match (kind, set) {
        ('-' | '?', Some(value)) => Ok(value),
        ('-', None) | ('+', Some(_)) => interpolate(word, lookup, depth + 1),
        ('+', None) => Ok(String::new()),
        ('?', None) => Err(Wrong::Missing(name.to_owned(), interpolate(word, lookup, depth + 1)?)),
        _ => Err(Wrong::Format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn done(text: &str) -> Result<String, Wrong> {
        interpolate(text, &lookup, 0)
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A-${A}x", "1-1x"),
            ("$$A", "$A"),
            ("[$B]", "[]"),
            ("${B:-d}${EMPTY:-d}${EMPTY-d}", "dd"),
            ("${B-d}", "d"),
            ("${A:+o}${B:+o}${EMPTY+o}${EMPTY:+o}", "oo"),
            ("${B:-${A}y}", "1y"),
            ("${A:?no}", "1"),
            ("${B:-a:b}", "a:b"),
        ] {
            assert_eq!(done(text).unwrap(), expected, "{text}");
        }
        assert_eq!(done("${B:?set it}"), Err(Wrong::Missing("B".into(), "set it".into())));
        assert_eq!(done("${EMPTY?x}").unwrap(), "");
        assert!(matches!(done("${EMPTY:?}"), Err(Wrong::Missing(..))));
        for text in ["$", "${", "${}", "${1}", "${A", "$1", "${A:}", "${A!x}", "$ A"] {
            assert_eq!(done(text), Err(Wrong::Format), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "[$A{}:?+x-]{0,60}") {
            let _ = done(&text);
        }

        #[test]
        fn what_is_escaped_comes_back(text in ".{0,40}") {
            proptest::prop_assert_eq!(done(&text.replace('$', "$$")).unwrap(), text);
        }
    }
}
