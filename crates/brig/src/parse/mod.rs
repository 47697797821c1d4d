//! Values of flags: pure functions from what the user typed to what the API takes.

pub(crate) mod csv;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod pem;
pub(crate) mod port;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod size;
pub(crate) mod swarm;
pub(crate) mod time;

/// Why a flag's value was refused; clap puts the flag's name before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadValue(pub(crate) String);

impl From<BadValue> for crate::error::Error {
    fn from(bad: BadValue) -> Self {
        Self::Message(bad.0)
    }
}

/// Shorthand for refusals.
pub(crate) fn bad<T>(text: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue(text.into()))
}

/// Go's `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool, BadValue> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bad(format!("parsing {text:?}: invalid syntax")),
    }
}

/// `key=value`; without `=` the value is empty.
pub(crate) fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A map of `key=value` entries; later ones win.
pub(crate) fn key_value_map(entries: &[String]) -> std::collections::BTreeMap<String, String> {
    entries.iter().map(|entry| key_value(entry)).collect()
}

/// Splits a command line into words as a shell does: quotes and backslashes, nothing else.
pub(crate) fn shell_words(text: &str) -> Result<Vec<String>, BadValue> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return bad("EOF found when expecting closing quote"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return bad("EOF found when expecting closing quote"),
                        },
                        Some(c) => word.push(c),
                        None => return bad("EOF found when expecting closing quote"),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return bad("EOF found after escape character"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(
            shell_words("sh -c 'a b' \"c \\\" d\" e\\ f ''").unwrap(),
            ["sh", "-c", "a b", "c \" d", "e f", ""]
        );
        assert!(shell_words("'a").is_err());
        assert!(shell_words("a\\").is_err());
        assert!(shell_words("  ").unwrap().is_empty());
    }

    #[test]
    fn booleans_are_gos() {
        assert_eq!(boolean("1"), Ok(true));
        assert_eq!(boolean("F"), Ok(false));
        assert!(boolean("yes").is_err());
    }
}
