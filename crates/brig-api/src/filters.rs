//! The `filters` query: which objects a list or prune is about.
//!
//! Two encodings are read: a map of maps (`{"label":{"a=b":true}}`, API 1.22 and later) and a map
//! of lists (`{"status":["running"]}`, older clients and docker-py). The booleans mean nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The longest filter text that is read, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// Why filters were refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFilter {
    /// Not one of the two encodings.
    #[error("invalid filter")]
    Malformed(#[source] serde_json::Error),
    /// Longer than [`MAX_LEN`].
    #[error("invalid filter")]
    TooLong,
    /// A key that this list does not know.
    #[error("Invalid filter '{0}'")]
    UnknownKey(String),
    /// A value that this key cannot have.
    #[error("Invalid filter '{key}={value}'")]
    BadValue {
        /// The filter's key.
        key: String,
        /// What was given for it.
        value: String,
    },
}

impl brig_types::error::Categorized for InvalidFilter {
    fn kind(&self) -> brig_types::error::ErrorKind {
        brig_types::error::ErrorKind::InvalidParameter
    }
}

/// Filters by key. Different keys must all match; values of one key are alternatives, except for
/// labels, which must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// No filters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the query's text; an empty one is no filters.
    ///
    /// # Errors
    /// [`InvalidFilter::Malformed`], [`InvalidFilter::TooLong`].
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            Map(BTreeMap<String, bool>),
            List(Vec<String>),
            Null,
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_LEN {
            return Err(InvalidFilter::TooLong);
        }
        let raw: Option<BTreeMap<String, Values>> =
            serde_json::from_str(text).map_err(InvalidFilter::Malformed)?;
        let filters = raw
            .unwrap_or_default()
            .into_iter()
            .map(|(key, values)| {
                let values = match values {
                    Values::Map(map) => map.into_keys().collect(),
                    Values::List(list) => list.into_iter().collect(),
                    Values::Null => BTreeSet::new(),
                };
                (key, values)
            })
            .filter(|(_, values): &(String, BTreeSet<String>)| !values.is_empty())
            .collect();
        Ok(Self(filters))
    }

    /// The query's text, as a map of maps.
    #[must_use]
    pub fn to_json(&self) -> String {
        let map: serde_json::Map<String, serde_json::Value> = self
            .0
            .iter()
            .map(|(key, values)| {
                let set: serde_json::Map<_, _> =
                    values.iter().map(|v| (v.clone(), serde_json::Value::Bool(true))).collect();
                (key.clone(), serde_json::Value::Object(set))
            })
            .collect();
        serde_json::Value::Object(map).to_string()
    }

    /// Adds a value to a key.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    /// The same filters with one more value.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.add(key, value);
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is there.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of a key, in order.
    pub fn get<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(key, values)| (key.as_str(), values))
    }

    /// Refuses keys that are not in `known`.
    ///
    /// # Errors
    /// [`InvalidFilter::UnknownKey`].
    pub fn check_keys(&self, known: &[&str]) -> Result<(), InvalidFilter> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(InvalidFilter::UnknownKey(key.clone())),
            None => Ok(()),
        }
    }

    /// Refuses values of `key` that are not in `known`.
    ///
    /// # Errors
    /// [`InvalidFilter::BadValue`].
    pub fn check_values(&self, key: &str, known: &[&str]) -> Result<(), InvalidFilter> {
        match self.get(key).find(|value| !known.contains(value)) {
            Some(value) => {
                Err(InvalidFilter::BadValue { key: key.to_owned(), value: value.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// A key's value as a boolean (`true`, `1`, `false`, `0`), `None` when it is not there.
    ///
    /// # Errors
    /// [`InvalidFilter::BadValue`] for other values and for contradicting ones.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, InvalidFilter> {
        let mut found = None;
        for value in self.get(key) {
            let this = match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(self.bad_value(key, value)),
            };
            if found.is_some_and(|other| other != this) {
                return Err(self.bad_value(key, value));
            }
            found = Some(this);
        }
        Ok(found)
    }

    fn bad_value(&self, key: &str, value: &str) -> InvalidFilter {
        InvalidFilter::BadValue { key: key.to_owned(), value: value.to_owned() }
    }

    /// Whether one of the key's values equals `value`, or the key is not there.
    #[must_use]
    pub fn matches_exactly(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_none_or(|values| values.contains(value))
    }

    /// Whether `value` starts with one of the key's values (ids), or the key is not there.
    #[must_use]
    pub fn matches_prefix(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|v| value.starts_with(v.as_str())))
    }

    /// Whether `value` contains one of the key's values (names), or the key is not there.
    #[must_use]
    pub fn matches_part(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|v| value.contains(v.as_str())))
    }

    /// Whether the labels satisfy every `name` or `name=value` under `key`.
    #[must_use]
    pub fn matches_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| has_label(wanted, labels))
    }

    /// Whether the labels satisfy none of the entries under `key` (`label!`).
    #[must_use]
    pub fn matches_no_label(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.get(key).any(|unwanted| has_label(unwanted, labels))
    }
}

fn has_label(wanted: &str, labels: &BTreeMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_mean_the_same() {
        let maps = Filters::parse(r#"{"label":{"a=b":true,"c":false},"status":{"running":true}}"#);
        let lists = Filters::parse(r#"{"label":["c","a=b"],"status":["running"],"x":null}"#);
        assert_eq!(maps.unwrap(), lists.unwrap());
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse("null").unwrap().is_empty());
        for text in ["[]", "{", "\"a\"", r#"{"a":1}"#, r#"{"a":{"b":1}}"#] {
            assert!(Filters::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_must_all_match_other_values_are_alternatives() {
        let filters = Filters::new()
            .with("label", "a=b")
            .with("label", "c")
            .with("status", "running")
            .with("status", "exited");
        let mut labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(!filters.matches_labels("label", &labels));
        labels.insert("c".to_owned(), String::new());
        assert!(filters.matches_labels("label", &labels));
        assert!(filters.matches_exactly("status", "exited"));
        assert!(!filters.matches_exactly("status", "paused"));
        assert!(filters.matches_exactly("name", "anything"));
    }

    #[test]
    fn unknown_keys_and_values_get_dockers_text() {
        let filters = Filters::new().with("bogus", "1").with("status", "bogus");
        let error = filters.check_keys(&["status"]).unwrap_err();
        assert_eq!(error.to_string(), "Invalid filter 'bogus'");
        let error = filters.check_values("status", &["running"]).unwrap_err();
        assert_eq!(error.to_string(), "Invalid filter 'status=bogus'");
        assert_eq!(filters.boolean("bogus").unwrap(), Some(true));
        assert!(filters.boolean("status").is_err());
    }

    proptest::proptest! {
        #[test]
        fn reads_what_it_writes(raw in proptest::collection::btree_map(
            ".*", proptest::collection::btree_set(".*", 1..4), 0..5)) {
            let filters = Filters(raw);
            proptest::prop_assert_eq!(Filters::parse(&filters.to_json()).unwrap(), filters);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = Filters::parse(&text);
        }
    }
}
