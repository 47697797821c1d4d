//! `WWW-Authenticate` (RFC 9110 section 11.6.1), as far as trust servers use it.

use std::collections::BTreeMap;

/// Challenges in one header; more are not read.
const MAX_CHALLENGES: usize = 16;

/// What a server wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower case: `bearer`, `basic`.
    pub(super) scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value; empty if it is not there.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// Reads one header, which may hold several challenges. What cannot be read ends it.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() && found.len() <= MAX_CHALLENGES {
        let word: &str =
            leading(rest, |c| c.is_ascii_alphanumeric() || "-._~+/!#$%&'*^`|".contains(c));
        if word.is_empty() {
            break;
        }
        let after = rest.get(word.len()..).unwrap_or_default().trim_start();
        rest = match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = value_of(value.trim_start()) else {
                    break;
                };
                challenge.parameters.insert(word.to_ascii_lowercase(), value);
                after
            }
            _ => {
                let scheme = word.to_ascii_lowercase();
                found.push(Challenge { scheme, parameters: BTreeMap::new() });
                after
            }
        };
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
    }
    found
}

fn leading(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c: char| !belongs(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// A value, quoted or not, and what comes after it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let value = leading(text, |c| !matches!(c, ',' | ' ' | '\t'));
        return Some((value.to_owned(), text.get(value.len()..)?));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_of_trust_servers() {
        let all = parse(
            r#"Bearer realm="https://auth.example/token?a=b",service="notary \"x\"",scope="repository:r:5000/a/b:push,pull", Basic realm=x"#,
        );
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].scheme, "bearer");
        assert_eq!(all[0].parameter("realm"), "https://auth.example/token?a=b");
        assert_eq!(all[0].parameter("service"), "notary \"x\"");
        assert_eq!(all[0].parameter("scope"), "repository:r:5000/a/b:push,pull");
        assert_eq!((all[1].scheme.as_str(), all[1].parameter("realm")), ("basic", "x"));
        assert!(parse("").is_empty());
        assert_eq!(parse("Bearer realm=\"open").len(), 1);
    }

    proptest! {
        #[test]
        fn any_header_ends(header in ".{0,200}") {
            let _ = parse(&header);
        }
    }
}
