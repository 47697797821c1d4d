//! What `logs --details` prints before each line: the labels, variables and tag that the log's
//! options name.

use std::collections::BTreeMap;

use regex::Regex;

use crate::container::record::Record;

/// The tags of a container as docker prints them: `k=v,k=v`, sorted, escaped as in a query.
pub(super) fn details(record: &Record) -> String {
    let options = &record.host_config.log_config.config;
    let names = |key: &str| -> Vec<&str> {
        let list = options.get(key).map(String::as_str).unwrap_or_default();
        list.split(',').filter(|name| !name.is_empty()).collect()
    };
    let pattern = |key: &str| options.get(key).and_then(|text| Regex::new(text).ok());
    let chosen = |key: &str, names: &[&str], pattern: Option<&Regex>| {
        names.contains(&key) || pattern.is_some_and(|pattern| pattern.is_match(key))
    };
    let mut tags = BTreeMap::new();
    let (labels, by_pattern) = (names("labels"), pattern("labels-regex"));
    for (key, value) in &record.config.labels {
        if chosen(key, &labels, by_pattern.as_ref()) {
            tags.insert(key.as_str(), value.clone());
        }
    }
    let (variables, by_pattern) = (names("env"), pattern("env-regex"));
    for (key, value) in record.config.env.iter().filter_map(|line| line.split_once('=')) {
        if chosen(key, &variables, by_pattern.as_ref()) {
            tags.insert(key, value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        tags.insert("tag", filled_in(tag, record));
    }
    let pairs: Vec<String> =
        tags.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    pairs.join(",")
}

/// The places that docker's `tag` option has, filled in.
fn filled_in(tag: &str, record: &Record) -> String {
    let id = record.id.as_str();
    let image = record.image_id.as_str();
    let short_image: String = image.trim_start_matches("sha256:").chars().take(12).collect();
    [
        ("ID", record.id.short()),
        ("FullID", id),
        ("Name", record.name.as_str()),
        ("ImageID", short_image.as_str()),
        ("ImageFullID", image),
        ("ImageName", record.config.image.as_str()),
        ("DaemonName", "docker"),
    ]
    .into_iter()
    .fold(tag.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{.{name}}}}}"), value)
            .replace(&format!("{{{{ .{name} }}}}"), value)
    })
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_what_the_options_name() {
        let mut record = crate::container::record::tests::sample();
        record.config.labels =
            [("a".to_owned(), "1 2".to_owned()), ("b".to_owned(), "x".to_owned())].into();
        record.config.env = vec!["B=2,3".to_owned(), "C=3".to_owned(), "LC_ALL=C".to_owned()];
        let options =
            [("labels", "a,x"), ("env", "B"), ("env-regex", "^LC_"), ("tag", "{{.Name}}!")];
        record.host_config.log_config.config =
            options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(details(&record), "B=2%2C3,LC_ALL=C,a=1+2,tag=web%21");
        record.host_config.log_config.config.clear();
        assert_eq!(details(&record), "");
    }
}
