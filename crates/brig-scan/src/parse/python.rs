//! Python packages: the core metadata beside installed modules (`METADATA`, `PKG-INFO`).

use crate::package::{Ecosystem, EvidenceKind, Package};
use crate::purl::normal_python_name;

use super::{ParseError, Parsed, licenses};

/// How much of a metadata file is looked at: the fields come first, a long text follows.
pub const MAX_METADATA: usize = 256 << 10;

/// Reads the header of a metadata file (RFC 822 fields, as core metadata defines them).
///
/// # Errors
/// [`ParseError::Malformed`] when it names no package.
pub fn metadata(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let (mut name, mut version, mut license) = (None, None, None);
    let mut classifiers: Vec<String> = Vec::new();
    let text = String::from_utf8_lossy(bytes.get(..MAX_METADATA).unwrap_or(bytes));
    for line in text.lines() {
        if line.trim().is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match field.to_ascii_lowercase().as_str() {
            "name" => name = name.or(Some(value.to_owned())),
            "version" => version = version.or(Some(value.to_owned())),
            "license-expression" => license = Some(value.to_owned()),
            "license" => license = license.or(Some(value.to_owned())),
            "classifier" if value.starts_with("License ::") => {
                classifiers.extend(value.rsplit("::").next().map(|last| last.trim().to_owned()));
            }
            _ => {}
        }
    }
    let (Some(name), Some(version)) = (name.filter(|n| !n.is_empty()), version) else {
        return Err(ParseError::malformed("it has no name or no version"));
    };
    let mut parsed = Parsed::default();
    let mut found = Package::new(
        Ecosystem::PyPi,
        normal_python_name(&name),
        version,
        path,
        EvidenceKind::Installed,
    );
    found.licenses = match license {
        Some(license) if license.len() <= 100 => licenses([license.as_str()]),
        _ => Vec::new(),
    };
    if found.licenses.is_empty() {
        found.licenses = licenses(classifiers.iter().map(String::as_str));
    }
    parsed.push(found)?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    #[test]
    fn the_header_counts_and_the_text_does_not() {
        let text = b"Metadata-Version: 2.1\nName: Zope.Interface\nVersion: 5.4.0\nLicense: ZPL 2.1\n\nName: other\nVersion: 9\n";
        let parsed = metadata(text, "x").unwrap();
        assert_eq!(names(&parsed), ["zope-interface 5.4.0"]);
        assert_eq!(parsed.packages[0].licenses, ["ZPL 2.1"]);
        let classified = b"Name: a\nVersion: 1\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n";
        assert_eq!(metadata(classified, "x").unwrap().packages[0].licenses, ["MIT License"]);
        assert!(metadata(b"Name: a\n", "x").is_err());
        assert!(metadata(b"\nName: a\nVersion: 1\n", "x").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = metadata(&bytes, "x");
        }
    }
}
