//! `WWW-Authenticate` (RFC 9110 section 11.6.1), as far as registries and trust servers use it.

use std::collections::BTreeMap;

/// Challenges in one header; more are not read.
pub const MAX_CHALLENGES: usize = 16;

/// What a server wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Names in lower case.
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// Reads one header, which may hold several challenges. What cannot be read ends it.
    #[must_use]
    pub fn parse_all(header: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut rest = next_element(header);
        while !rest.is_empty() {
            let (word, after) = token(rest);
            if word.is_empty() {
                break;
            }
            let after = after.trim_start_matches(is_blank);
            if let Some(value) = after.strip_prefix('=')
                && let Some(current) = found.last_mut()
            {
                let Some((value, after)) = value_of(value.trim_start_matches(is_blank)) else {
                    break;
                };
                current.parameters.insert(word.to_ascii_lowercase(), value);
                rest = next_element(after);
            } else {
                if found.len() == MAX_CHALLENGES {
                    break;
                }
                let scheme = word.to_ascii_lowercase();
                found.push(Self { scheme, parameters: BTreeMap::new() });
                rest = next_element(after);
            }
        }
        found
    }

    /// A parameter's value, by its name in lower case; empty if it is not there.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// Elements of a list may be empty: `a,, b`.
fn next_element(text: &str) -> &str {
    text.trim_start_matches(|c: char| c == ',' || is_blank(c))
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A value, quoted or a token, and what comes after it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
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

    fn parse(header: &str) -> Vec<Challenge> {
        Challenge::parse_all(header)
    }

    #[test]
    fn challenges_of_real_registries() {
        let hub = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push",error="insufficient_scope""#,
        );
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].scheme, "bearer");
        assert_eq!(hub[0].parameter("scope"), "repository:library/busybox:pull,push");
        assert_eq!(hub[0].parameter("nothing"), "");
        let two = parse(r#"Negotiate, Basic realm="a \"b\"", charset=UTF-8"#);
        assert_eq!(two.len(), 2);
        assert_eq!(two[1].parameter("realm"), "a \"b\"");
        assert_eq!(two[1].parameter("charset"), "UTF-8");
        assert!(parse("").is_empty());
        assert_eq!(parse("Bearer realm=\"open").len(), 1);
    }

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
    }

    #[test]
    fn the_grammar_is_the_rfcs() {
        // Empty elements are no end; what is no token is one.
        let empty = parse(", ,Basic realm=a,,\t,charset=UTF-8 , ,Bearer , realm = \"b\"");
        assert_eq!(empty.len(), 2);
        assert_eq!((empty[0].parameter("realm"), empty[0].parameter("charset")), ("a", "UTF-8"));
        assert_eq!(empty[1].parameter("realm"), "b");
        let slash = parse("Bearer realm=https://auth.example/token,service=s");
        assert_eq!(slash.len(), 1);
        assert_eq!((slash[0].parameter("realm"), slash[0].parameter("service")), ("https", ""));
        assert_eq!(parse("Basic realm=").len(), 1);
        let many = "Basic realm=x,".repeat(MAX_CHALLENGES + 5);
        assert_eq!(parse(&many).len(), MAX_CHALLENGES);
    }

    proptest! {
        #[test]
        fn any_header_ends(header in ".{0,200}") {
            prop_assert!(parse(&header).len() <= MAX_CHALLENGES);
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[ -~]{0,40}") {
            let quoted = value.replace('\\', r"\\").replace('"', "\\\"");
            let read = parse(&format!("Bearer realm=\"{quoted}\", service=s"));
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0].parameter("realm"), value);
            prop_assert_eq!(read[0].parameter("service"), "s");
        }
    }
}
