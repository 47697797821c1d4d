//! Several files: what a later one says counts, and lists and maps grow.

use super::value::{Map, Value};

/// Lists of objects that are told apart by one of their fields, and that field.
const BY_FIELD: [(&str, &str); 4] =
    [("ports", "published"), ("volumes", "target"), ("secrets", "source"), ("configs", "source")];
/// What is replaced as a whole.
const REPLACED: [&str; 3] = ["command", "entrypoint", "test"];
/// What may be written as a list of `NAME=VALUE` or as a map.
const NAMED: [&str; 5] = ["environment", "labels", "sysctls", "args", "extra_hosts"];

/// Puts `over` over `base`.
pub(super) fn maps(base: &mut Map, over: Map) {
    for (name, value) in over {
        match base.get_mut(&name) {
            Some(old) => values(&name, old, value),
            None => {
                base.insert(name, value);
            }
        }
    }
}

fn values(name: &str, base: &mut Value, over: Value) {
    if REPLACED.contains(&name) {
        *base = over;
        return;
    }
    let (old, new) = (std::mem::replace(base, Value::Null), over);
    *base = match (old, new) {
        (old, Value::Null) => old,
        (old, new) if NAMED.contains(&name) => match (named(old), named(new)) {
            (Ok(mut old), Ok(new)) => {
                old.extend(new);
                Value::Map(old)
            }
            (_, Ok(new)) => Value::Map(new),
            (_, Err(new)) => new,
        },
        (Value::List(old), Value::Map(new)) if name == "networks" => grown(attached(old), new),
        (Value::Map(old), Value::List(new)) if name == "networks" => grown(old, attached(new)),
        (Value::Map(old), Value::Map(new)) => grown(old, new),
        (Value::List(old), Value::List(new)) => Value::List(lists(name, old, new)),
        (_, new) => new,
    };
}

fn grown(mut old: Map, new: Map) -> Value {
    maps(&mut old, new);
    Value::Map(old)
}

/// A list of networks as a map.
fn attached(list: Vec<Value>) -> Map {
    list.iter().filter_map(Value::scalar).map(|name| (name, Value::Null)).collect()
}

/// A map, also from a list of `NAME=VALUE`; else what it was.
fn named(value: Value) -> Result<Map, Value> {
    match value {
        Value::Map(map) => Ok(map),
        Value::List(list) if list.iter().all(|item| item.scalar().is_some()) => Ok(list
            .iter()
            .filter_map(Value::scalar)
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Value::Text(value.to_owned())),
                None => (text, Value::Null),
            })
            .collect()),
        Value::Null => Ok(Map::new()),
        other => Err(other),
    }
}

fn lists(name: &str, mut base: Vec<Value>, over: Vec<Value>) -> Vec<Value> {
    let field = BY_FIELD.iter().find(|(list, _)| *list == name).map(|(_, field)| *field);
    for item in over {
        let key = field.and_then(|field| key(field, &item));
        let same = |old: &Value| match (&key, field) {
            (Some(key), Some(field)) => self::key(field, old).as_ref() == Some(key),
            _ => *old == item,
        };
        match base.iter_mut().find(|old| same(old)) {
            Some(old) => *old = item,
            None => base.push(item),
        }
    }
    base
}

/// What tells an item from others; short forms are read as far as that takes.
fn key(field: &str, item: &Value) -> Option<String> {
    match item {
        Value::Map(map) => map.get(field).and_then(Value::scalar),
        Value::Text(text) => {
            let parts: Vec<&str> = text.split(':').collect();
            match (field, parts.as_slice()) {
                ("target", [target]) | ("target", [_, target, ..]) => Some((*target).to_owned()),
                ("published", [_]) => None,
                ("published", [.., published, _]) => Some((*published).to_owned()),
                ("source", _) => Some(text.clone()),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::tests::yaml;

    fn merged(base: &str, over: &str) -> Value {
        let (Value::Map(mut base), Value::Map(over)) = (yaml(base), yaml(over)) else { panic!() };
        maps(&mut base, over);
        Value::Map(base)
    }

    #[test]
    fn what_comes_later_counts_and_the_rest_grows() {
        assert_eq!(
            merged(
                "services: {a: {image: x, command: [1, 2], environment: [A=1, B=2], dns: [1.1.1.1]}, b: {image: y}}",
                "services: {a: {image: z, command: q, environment: {B: 3, C: 4}, dns: [8.8.8.8]}, c: {image: w}}",
            ),
            yaml(
                "services: {a: {image: z, command: q, environment: {A: '1', B: 3, C: 4}, dns: [1.1.1.1, 8.8.8.8]}, b: {image: y}, c: {image: w}}"
            ),
        );
        assert_eq!(
            merged(
                "volumes: ['a:/x', 'b:/y:ro']\nsecrets: [s, {source: t, mode: 1}]\nports: ['80:80', '8080:81']\nnetworks: [n]",
                "volumes: [{type: volume, source: c, target: /x}]\nsecrets: [{source: t, mode: 2}]\nports: ['80:8000']\nnetworks: {n: {aliases: [q]}}",
            ),
            yaml(
                "volumes: [{type: volume, source: c, target: /x}, 'b:/y:ro']\nsecrets: [s, {source: t, mode: 2}]\nports: ['80:8000', '8080:81']\nnetworks: {n: {aliases: [q]}}"
            ),
        );
        assert_eq!(merged("a: 1", "a:"), yaml("a: 1"), "nothing changes nothing");
    }
}
