//! Alpine's database of installed packages (apk-tools, "apkv2 installed database").

use crate::package::{Ecosystem, EvidenceKind, Package, Source};

use super::{MAX_FIELD, ParseError, Parsed, licenses, may_hold_package, path_key};

#[derive(Default)]
struct Record<'a> {
    name: &'a str,
    version: &'a str,
    arch: &'a str,
    origin: &'a str,
    license: &'a str,
    maintainer: &'a str,
    files: Vec<u64>,
    seen: bool,
}

/// Reads `lib/apk/db/installed`.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn installed(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let mut record = Record::default();
    let mut folder = "";
    for line in bytes.split(|&byte| byte == b'\n') {
        if line.is_empty() {
            finish(std::mem::take(&mut record), path, &mut parsed)?;
            folder = "";
            continue;
        }
        record.seen = true;
        let (&field, Some(b':')) = (line.first().unwrap_or(&0), line.get(1)) else {
            parsed.problem("a line is no field");
            continue;
        };
        let Ok(value) = std::str::from_utf8(line.get(2..).unwrap_or_default()) else {
            if matches!(field, b'P' | b'V' | b'o') {
                parsed.problem("a field is not UTF-8");
            }
            continue;
        };
        match field {
            b'P' => record.name = value,
            b'V' => record.version = value,
            b'A' => record.arch = value,
            b'o' => record.origin = value,
            b'L' => record.license = value,
            b'm' => record.maintainer = value,
            b'F' => folder = value,
            b'R' => {
                let file =
                    if folder.is_empty() { value.to_owned() } else { format!("{folder}/{value}") };
                if may_hold_package(&file) {
                    record.files.push(path_key(&file));
                }
            }
            _ => {}
        }
    }
    finish(record, path, &mut parsed)?;
    Ok(parsed)
}

fn finish(record: Record<'_>, path: &str, parsed: &mut Parsed) -> Result<(), ParseError> {
    if !record.seen {
        return Ok(());
    }
    if record.name.is_empty() || record.version.is_empty() {
        parsed.problem("a record has no name or no version");
        return Ok(());
    }
    let mut found =
        Package::new(Ecosystem::Apk, record.name, record.version, path, EvidenceKind::Database);
    let origin = if record.origin.is_empty() { record.name } else { record.origin };
    if origin.len() <= MAX_FIELD {
        found.source = Some(Source { name: origin.to_owned(), version: record.version.to_owned() });
    }
    found.arch = (!record.arch.is_empty()).then(|| record.arch.to_owned());
    found.licenses = licenses([record.license]);
    found.vendor = (!record.maintainer.is_empty() && record.maintainer.len() <= MAX_FIELD)
        .then(|| record.maintainer.to_owned());
    if !record.files.is_empty() && record.name.len() <= MAX_FIELD {
        parsed.owned.entry(record.name.to_owned()).or_default().extend(record.files);
    }
    parsed.push(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    const DATABASE: &str = "\
C:Q1abc=
P:libcrypto3
V:3.1.4-r5
A:x86_64
T:Crypto library from openssl
L:Apache-2.0
o:openssl
D:so:libc.musl-x86_64.so.1
F:lib
R:libcrypto.so.3
Z:Q1x=

P:py3-requests
V:2.31.0-r1
F:usr/lib/python3.11/site-packages/requests-2.31.0.dist-info
R:METADATA

";

    #[test]
    fn records_have_origin_and_files() {
        let parsed = installed(DATABASE.as_bytes(), "lib/apk/db/installed").unwrap();
        assert_eq!(names(&parsed), ["libcrypto3 3.1.4-r5", "py3-requests 2.31.0-r1"]);
        let source = parsed.packages[0].source.as_ref().unwrap();
        assert_eq!((source.name.as_str(), source.version.as_str()), ("openssl", "3.1.4-r5"));
        assert_eq!(parsed.packages[0].licenses, ["Apache-2.0"]);
        let metadata = "usr/lib/python3.11/site-packages/requests-2.31.0.dist-info/METADATA";
        assert_eq!(parsed.owned.get("py3-requests"), Some(&vec![path_key(metadata)]));
        assert!(parsed.problems.is_empty());
    }

    #[test]
    fn a_broken_record_is_told() {
        let parsed = installed(b"P:a\n\nV:1\n\nP:b\nV:2\n", "x").unwrap();
        assert_eq!(names(&parsed), ["b 2"]);
        assert_eq!(parsed.problems, ["a record has no name or no version"]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = installed(&bytes, "x");
        }
    }
}
