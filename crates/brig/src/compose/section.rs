//! A map of the file, read field by field: each field has one type, and what nobody asked for is a
//! mistake. Numbers and booleans may be texts, since interpolation makes texts.

use std::collections::BTreeMap;

use super::value::{Map, Value};
use crate::error::{Result, message};
use crate::parse::{duration, shell_words, size};

/// A map and where it is: `services.web.deploy`.
#[derive(Debug)]
pub(super) struct Section {
    path: String,
    map: Map,
}

impl Section {
    /// Nothing is an empty map.
    pub(super) fn new(path: impl Into<String>, value: Value) -> Result<Self> {
        let path = path.into();
        match value {
            Value::Map(map) => Ok(Self { path, map }),
            Value::Null => Ok(Self { path, map: Map::new() }),
            _ => Err(must_be(&path, "a mapping")),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The names that are left.
    pub(super) fn names(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// A field, unless it is not there or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| *value != Value::Null)
    }

    /// Whether a field is there, even if it is null.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.map.remove(name).is_some()
    }

    /// A map in a field; empty if the field is there without a value.
    pub(super) fn section(&mut self, name: &str) -> Result<Option<Self>> {
        let path = self.at(name);
        self.map.remove(name).map(|value| Self::new(path, value)).transpose()
    }

    /// Every entry as a map of its own.
    pub(super) fn sections(self) -> Result<Vec<(String, Self)>> {
        let path = self.path;
        let below =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.map
            .into_iter()
            .map(|(name, value)| Ok((name.clone(), Self::new(below(&name), value)?)))
            .collect()
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>> {
        let path = self.at(name);
        self.take(name)
            .map(|value| value.scalar().ok_or_else(|| must_be(&path, "a string")))
            .transpose()
    }

    /// Empty if it is not there.
    pub(super) fn text_or_empty(&mut self, name: &str) -> Result<String> {
        Ok(self.text(name)?.unwrap_or_default())
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let path = self.at(name);
        self.text(name)
            .map_err(|_| must_be(&path, what))?
            .map(|text| parse(&text).ok_or_else(|| must_be(&path, what)))
            .transpose()
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        // As YAML 1.1 knows them, since files are written so.
        self.parsed(name, "a boolean", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "y" | "yes" | "on" => Some(true),
            "0" | "false" | "f" | "n" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        self.parsed(name, "an integer", |text| text.parse().ok())
    }

    /// Nanoseconds.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<i64>> {
        self.parsed(name, "a duration, such as 1m30s", |text| duration::nanoseconds(text).ok())
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Option<i64>> {
        self.parsed(name, "a size, such as 64m", |text| size::bytes(text).ok())
    }

    /// Billionths.
    pub(super) fn cpus(&mut self, name: &str) -> Result<Option<i64>> {
        self.parsed(name, "a number of CPUs, such as 0.5", |text| size::nano_cpus(text).ok())
    }

    /// Permission bits: octal in a text, as YAML reads it in a number.
    pub(super) fn mode(&mut self, name: &str) -> Result<Option<u32>> {
        let path = self.at(name);
        let wrong = || must_be(&path, "permission bits, such as 0440");
        let bits = match self.take(name) {
            None => return Ok(None),
            Some(Value::Integer(bits)) => u32::try_from(bits).map_err(|_| wrong())?,
            Some(Value::Text(text)) => {
                let digits = text.strip_prefix("0o").unwrap_or(&text);
                u32::from_str_radix(digits, 8).map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if bits > 0o7777 { Err(wrong()) } else { Ok(Some(bits)) }
    }

    /// Texts: a list, or a single one.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>> {
        let path = self.at(name);
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::List(list)) => list
                .iter()
                .map(|item| item.scalar().ok_or_else(|| must_be(&path, "a list of strings")))
                .collect(),
            Some(value) => {
                let text = value.scalar().ok_or_else(|| must_be(&path, "a list of strings"))?;
                Ok(vec![text])
            }
        }
    }

    /// A command: a list of words, or a line as a shell splits it.
    pub(super) fn words(&mut self, name: &str) -> Result<Vec<String>> {
        if let Some(Value::Text(line)) = self.map.get(name) {
            let path = self.at(name);
            let words = shell_words(line).map_err(|e| message(format!("{path}: {e}")))?;
            self.map.remove(name);
            return Ok(words);
        }
        self.texts(name)
    }

    /// Items that are texts or maps.
    pub(super) fn items(&mut self, name: &str) -> Result<Vec<(String, Value)>> {
        let path = self.at(name);
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::List(list)) => Ok(list
                .into_iter()
                .enumerate()
                .map(|(at, item)| (format!("{path}.[{at}]"), item))
                .collect()),
            Some(_) => Err(must_be(&path, "a list")),
        }
    }

    /// Names with values: a map, or a list of `NAME=VALUE`. A name may have no value.
    pub(super) fn pairs(
        &mut self,
        name: &str,
        separator: char,
    ) -> Result<BTreeMap<String, Option<String>>> {
        let path = self.at(name);
        let wrong = || must_be(&path, "a mapping or a list of strings");
        match self.take(name) {
            None => Ok(BTreeMap::new()),
            Some(Value::Map(map)) => map
                .into_iter()
                .map(|(name, value)| match value {
                    Value::Null => Ok((name, None)),
                    value => Ok((name, Some(value.scalar().ok_or_else(wrong)?))),
                })
                .collect(),
            Some(Value::List(list)) => list
                .iter()
                .map(|item| {
                    let text = item.scalar().ok_or_else(wrong)?;
                    Ok(match text.split_once(separator) {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (text, None),
                    })
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// As [`Self::pairs`]; a name without value has an empty one.
    pub(super) fn labels(&mut self, name: &str) -> Result<BTreeMap<String, String>> {
        let pairs = self.pairs(name, '=')?;
        Ok(pairs.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
    }

    /// Whatever is left is a mistake, but for extensions (`x-…`).
    pub(super) fn finish(self) -> Result<()> {
        match self.map.keys().find(|name| !name.starts_with("x-")) {
            None => Ok(()),
            Some(name) => {
                let path = if self.path.is_empty() { "(root)" } else { &self.path };
                Err(message(format!("{path} Additional property {name} is not allowed")))
            }
        }
    }
}

pub(super) fn must_be(path: &str, what: &str) -> crate::error::Error {
    let path = if path.is_empty() { "(root)" } else { path };
    message(format!("{path} must be {what}"))
}
