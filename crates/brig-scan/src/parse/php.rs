//! PHP packages: Composer's `vendor/composer/installed.json`, versions 1 and 2.

use serde::Deserialize;

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::{ParseError, Parsed, licenses};

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    license: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Installed {
    Two { packages: Vec<Entry> },
    One(Vec<Entry>),
}

/// Reads `installed.json`.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no such file.
pub fn installed(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let (Installed::Two { packages: entries } | Installed::One(entries)) =
        serde_json::from_slice(bytes).map_err(|error| {
            ParseError::malformed(format!("it is no list of packages: {error}"))
        })?;
    collect(entries, path, EvidenceKind::Installed)
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    packages: Vec<Entry>,
}

/// Reads `composer.lock`.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no such file.
pub fn lock(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let lock: Lock = serde_json::from_slice(bytes)
        .map_err(|error| ParseError::malformed(format!("it is no lock file: {error}")))?;
    collect(lock.packages, path, EvidenceKind::Declared)
}

fn collect(entries: Vec<Entry>, path: &str, kind: EvidenceKind) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    for entry in entries {
        let version = match entry.version.strip_prefix('v') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => &entry.version,
        };
        let mut found =
            Package::new(Ecosystem::Composer, entry.name.to_lowercase(), version, path, kind);
        found.licenses = licenses(entry.license.iter().map(String::as_str));
        parsed.push(found)?;
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let one = br#"[{"name":"Monolog/Monolog","version":"v2.9.1","license":["MIT"]}]"#;
        assert_eq!(names(&installed(one, "x").unwrap()), ["monolog/monolog 2.9.1"]);
        let two = br#"{"packages":[{"name":"a/b","version":"dev-main"}],"dev":false}"#;
        assert_eq!(names(&installed(two, "x").unwrap()), ["a/b dev-main"]);
        assert_eq!(names(&lock(two, "x").unwrap()), ["a/b dev-main"]);
        assert!(installed(b"3", "x").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = installed(&bytes, "x");
        }
    }
}
