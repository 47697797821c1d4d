//! .NET packages: what a program's `*.deps.json` says was published with it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::{ParseError, Parsed};

#[derive(Deserialize)]
struct Dependencies {
    #[serde(default)]
    libraries: BTreeMap<String, Library>,
}

#[derive(Deserialize)]
struct Library {
    #[serde(default, rename = "type")]
    kind: String,
}

/// Reads `*.deps.json`: libraries of type `package`, named `Name/Version`.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no such file.
pub fn dependencies(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let file: Dependencies = serde_json::from_slice(bytes)
        .map_err(|error| ParseError::malformed(format!("it is no list of libraries: {error}")))?;
    let mut parsed = Parsed::default();
    for (key, library) in file.libraries {
        if !library.kind.eq_ignore_ascii_case("package") {
            continue;
        }
        match key.rsplit_once('/') {
            Some((name, version)) => {
                parsed.push(Package::new(
                    Ecosystem::NuGet,
                    name,
                    version,
                    path,
                    EvidenceKind::Installed,
                ))?;
            }
            None => parsed.problem("a library has no version"),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    #[test]
    fn packages_and_not_projects() {
        let text = br#"{"runtimeTarget":{},"libraries":{
            "App/1.0.0":{"type":"project"},"Newtonsoft.Json/13.0.1":{"type":"package","path":"x"}}}"#;
        assert_eq!(names(&dependencies(text, "x").unwrap()), ["Newtonsoft.Json 13.0.1"]);
        assert!(dependencies(b"{", "x").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = dependencies(&bytes, "x");
        }
    }
}
