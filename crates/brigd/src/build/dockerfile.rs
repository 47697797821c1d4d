//! Which images a Dockerfile builds on: as much of its grammar as that takes.

use std::collections::{BTreeMap, BTreeSet};

/// Longest value of a variable and longest name of an image, in bytes. Variables that are made of
/// variables grow without end.
const MAX_VALUE: usize = 4 << 10;

/// The images that a Dockerfile names, as they are named, without its own stages and `scratch`.
#[must_use]
pub fn base_images(text: &str, arguments: &BTreeMap<String, String>) -> Vec<String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let mut stages: BTreeSet<String> = BTreeSet::new();
    let mut count = 0_usize;
    let mut found: Vec<String> = Vec::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut add = |name: String, stages: &BTreeSet<String>, count: usize| {
        let number = name.parse::<usize>().is_ok_and(|number| number < count);
        if name.is_empty() || name == "scratch" || number || stages.contains(&name.to_lowercase()) {
            return;
        }
        if known.insert(name.clone()) {
            found.push(name);
        }
    };
    for line in instructions(text) {
        let mut words = line.split_ascii_whitespace();
        let instruction = words.next().unwrap_or_default().to_ascii_uppercase();
        match instruction.as_str() {
            // Arguments count for FROM only before the first one.
            "ARG" if count == 0 => {
                for word in words {
                    let (name, default) = word.split_once('=').unwrap_or((word, ""));
                    let default = default.trim_matches(['"', '\'']);
                    let value =
                        arguments.get(name).cloned().unwrap_or_else(|| expand(default, &variables));
                    variables.insert(name.to_owned(), value);
                }
            }
            "FROM" => {
                let mut words = words.skip_while(|word| word.starts_with("--"));
                let name = expand(words.next().unwrap_or_default(), &variables);
                add(name, &stages, 0);
                if words.next().is_some_and(|word| word.eq_ignore_ascii_case("as"))
                    && let Some(stage) = words.next()
                {
                    stages.insert(stage.to_lowercase());
                }
                count += 1;
            }
            "COPY" | "ADD" => {
                let from = words.take_while(|word| word.starts_with("--"));
                for name in from.filter_map(|word| word.strip_prefix("--from=")) {
                    add(name.to_owned(), &stages, count);
                }
            }
            "RUN" => {
                let mounts = words.take_while(|word| word.starts_with("--"));
                for mount in mounts.filter_map(|word| word.strip_prefix("--mount=")) {
                    for name in mount.split(',').filter_map(|part| part.strip_prefix("from=")) {
                        add(name.to_owned(), &stages, count);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The instructions, each on one line, without comments.
fn instructions(text: &str) -> Vec<String> {
    let escape = if text
        .lines()
        .map_while(|line| line.trim().strip_prefix('#'))
        .any(|line| line.replace(' ', "").eq_ignore_ascii_case("escape=`"))
    {
        '`'
    } else {
        '\\'
    };
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || (trimmed.is_empty() && !current.is_empty()) {
            continue;
        }
        match trimmed.strip_suffix(escape) {
            Some(part) => {
                current.push_str(part);
                current.push(' ');
            }
            None => {
                current.push_str(trimmed);
                lines.push(std::mem::take(&mut current));
            }
        }
    }
    lines.push(current);
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+instead}`.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if result.len() > MAX_VALUE {
            break;
        }
        let (before, after) = rest.split_at(at);
        result.push_str(before);
        let after = after.get(1..).unwrap_or_default();
        let value = |name: &str| variables.get(name).map_or("", String::as_str);
        if let Some((inner, left)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}'))
        {
            if let Some((name, default)) = inner.split_once(":-") {
                let value = value(name);
                result.push_str(if value.is_empty() { default } else { value });
            } else if let Some((name, instead)) = inner.split_once(":+") {
                result.push_str(if value(name).is_empty() { "" } else { instead });
            } else {
                result.push_str(value(inner));
            }
            rest = left;
        } else {
            let end = after
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(after.len());
            let (name, left) = after.split_at(end);
            if name.is_empty() {
                result.push('$');
            } else {
                result.push_str(value(name));
            }
            rest = left;
        }
    }
    result.push_str(rest);
    result.truncate(result.floor_char_boundary(MAX_VALUE));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_and_stages_are_not() {
        let text = "# syntax=x\n# a comment\nARG BASE=busybox\nARG TAG=1\nARG FULL=$BASE:${TAG}\n\
            FROM --platform=linux/amd64 ${FULL} AS Build\nARG TAG=9\nRUN echo FROM nothing\n\
            FROM \\\n  build as second\nCOPY --from=0 /a /b\nCOPY --chown=1 --from=Second /a /b\n\
            COPY --from=tools:2 /x /y\nRUN --mount=type=bind,from=mounted:1,target=/m true\n\
            FROM scratch\nfrom host:5000/x@sha256:0\nFROM ${NONE:-fallback}${TAG:+:set}\n";
        let arguments = BTreeMap::from([("BASE".to_owned(), "alpine".to_owned())]);
        assert_eq!(
            base_images(text, &arguments),
            ["alpine:1", "tools:2", "mounted:1", "host:5000/x@sha256:0", "fallback:set"]
        );
        assert!(base_images("", &arguments).is_empty());
        assert_eq!(base_images("# escape=`\nFROM `\n a", &arguments), ["a"]);
    }

    #[test]
    fn variables_of_variables_do_not_grow_without_end() {
        let mut text = "ARG A0=aaaaaaaaaaaaaaaa\n".to_owned();
        for at in 1..=40 {
            text.push_str(&format!("ARG A{at}=${{A{0}}}${{A{0}}}\n", at - 1));
        }
        text.push_str("FROM $A40\n");
        let found = base_images(&text, &BTreeMap::new());
        assert_eq!(found, ["a".repeat(MAX_VALUE)]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(FROM|ARG|COPY| |\\$|\\{|\\}|:-|\n|\\\\|[a-z=]){0,40}") {
            let _ = base_images(&text, &BTreeMap::new());
        }
    }
}
