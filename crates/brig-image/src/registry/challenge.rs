//! `WWW-Authenticate` (RFC 9110 section 11.6.1), as far as registries use it.

use std::collections::BTreeMap;

/// What a server wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower case: `bearer`, `basic`.
    pub(super) scheme: String,
    /// Names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

/// Reads one header, which may hold several challenges. What cannot be read ends it.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=')
            && let Some(current) = challenges.last_mut()
        {
            let Some((value, after)) = value_of(value.trim_start()) else { break };
            current.parameters.insert(word.to_ascii_lowercase(), value);
            rest = after;
        } else {
            let scheme = word.to_ascii_lowercase();
            challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
            rest = after;
        }
        rest = rest.trim_start().trim_start_matches(',').trim_start();
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            c if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, quoted.get(at + 1..)?)),
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
    fn challenges_of_real_registries() {
        let hub = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push",error="insufficient_scope""#,
        );
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].scheme, "bearer");
        assert_eq!(hub[0].parameters["scope"], "repository:library/busybox:pull,push");
        let two = parse(r#"Negotiate, Basic realm="a \"b\"", charset=UTF-8"#);
        assert_eq!(two.len(), 2);
        assert_eq!(two[1].parameters["realm"], "a \"b\"");
        assert_eq!(two[1].parameters["charset"], "UTF-8");
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
