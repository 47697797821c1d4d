//! Node packages: the `package.json` of a package's own folder.

use serde::Deserialize;
use serde_json::Value;

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::{ParseError, Parsed, licenses};

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    name: Option<Value>,
    #[serde(default)]
    version: Option<Value>,
    #[serde(default)]
    license: Option<Value>,
}

/// Reads `node_modules/…/package.json`.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no JSON object.
pub fn manifest(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| ParseError::malformed(format!("it is no manifest: {error}")))?;
    let mut parsed = Parsed::default();
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    // Folders inside of a package that only say which kind of module they hold have neither.
    let (Some(name), Some(version)) = (text(manifest.name), text(manifest.version)) else {
        return Ok(parsed);
    };
    let version = version.trim().trim_start_matches(['v', '=']).to_owned();
    let mut found = Package::new(Ecosystem::Npm, name, version, path, EvidenceKind::Installed);
    found.licenses = match &manifest.license {
        Some(Value::String(license)) => licenses([license.as_str()]),
        Some(Value::Object(object)) => licenses(object.get("type").and_then(Value::as_str)),
        _ => Vec::new(),
    };
    parsed.push(found)?;
    Ok(parsed)
}

/// Whether this is the manifest of a package's own folder: `node_modules/NAME/package.json` or
/// `node_modules/@scope/NAME/package.json`. Deeper ones are fixtures and marks inside a package.
#[must_use]
pub fn is_package_root(path: &str) -> bool {
    let Some(folder) = path.strip_suffix("/package.json") else { return false };
    let (parent, name) = folder.rsplit_once('/').unwrap_or(("", folder));
    let at_root = |dir: &str| dir == "node_modules" || dir.ends_with("/node_modules");
    if at_root(parent) {
        return !name.starts_with(['@', '.']);
    }
    let (above, scope) = parent.rsplit_once('/').unwrap_or(("", parent));
    scope.starts_with('@') && at_root(above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    #[test]
    fn manifests_of_packages() {
        let parsed =
            manifest(br#"{"name":"@a/b","version":"v1.2.3","license":{"type":"MIT"}}"#, "x");
        let parsed = parsed.unwrap();
        assert_eq!(names(&parsed), ["@a/b 1.2.3"]);
        assert_eq!(parsed.packages[0].licenses, ["MIT"]);
        assert!(manifest(br#"{"type":"module"}"#, "x").unwrap().packages.is_empty());
        assert!(manifest(br#"{"name":1,"version":[]}"#, "x").unwrap().packages.is_empty());
        assert!(manifest(b"[", "x").is_err());
        let deep = |open: &str| [open, &"[".repeat(200_000), &"]".repeat(200_000), "}"].concat();
        assert!(manifest(deep("{\"license\":").as_bytes(), "x").is_err());
        // What nobody asks for is passed over without going deep.
        let passed = manifest(deep("{\"name\":\"a\",\"version\":\"1\",\"x\":").as_bytes(), "x");
        assert_eq!(names(&passed.unwrap()), ["a 1"]);
    }

    #[test]
    fn only_roots_count() {
        for yes in [
            "node_modules/a/package.json",
            "app/node_modules/@s/a/package.json",
            "x/node_modules/a/node_modules/b/package.json",
        ] {
            assert!(is_package_root(yes), "{yes}");
        }
        for no in [
            "package.json",
            "app/package.json",
            "node_modules/a/test/package.json",
            "node_modules/@s/package.json",
            "node_modules/.pnpm/package.json",
            "my_node_modules/a/package.json",
        ] {
            assert!(!is_package_root(no), "{no}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = manifest(&bytes, "x");
        }
    }
}
