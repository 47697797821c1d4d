//! Rust programs that carry what they were built from (cargo-auditable: zlib-compressed JSON in the
//! section `.dep-v0`).

use std::io::Read as _;

use serde::Deserialize;

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::binary::Program;
use super::{ParseError, Parsed, ReadAt, exact};

const SECTION: &str = ".dep-v0";
/// Largest section, in bytes.
const MAX_SECTION: u64 = 4 << 20;
/// Largest text once it is decompressed, in bytes.
const MAX_TEXT: u64 = 16 << 20;

#[derive(Deserialize)]
struct Audit {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    kind: Option<String>,
}

/// Reads the packages of a Rust program; nothing when it carries none.
///
/// # Errors
/// [`ParseError`] when what it carries is damaged.
pub fn program<R: ReadAt + ?Sized>(
    file: &R,
    program: &Program,
    path: &str,
) -> Result<Parsed, ParseError> {
    let Some(section) = program.section(SECTION) else { return Ok(Parsed::default()) };
    if section.size > MAX_SECTION {
        return Err(ParseError::Limit { what: "bytes of audit data", limit: MAX_SECTION });
    }
    let length = usize::try_from(section.size).unwrap_or(usize::MAX);
    audit(&exact(file, section.offset, length)?, path)
}

/// Reads the section's bytes.
///
/// # Errors
/// [`ParseError`] when they are damaged or too many.
pub fn audit(section: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(section)
        .take(MAX_TEXT + 1)
        .read_to_end(&mut text)
        .map_err(|_| ParseError::malformed("its audit data cannot be decompressed"))?;
    if text.len() as u64 > MAX_TEXT {
        return Err(ParseError::Limit { what: "bytes of audit data", limit: MAX_TEXT });
    }
    let audit: Audit = serde_json::from_slice(&text)
        .map_err(|error| ParseError::malformed(format!("its audit data is damaged: {error}")))?;
    let mut parsed = Parsed::default();
    for found in audit.packages {
        // What only ran while building is not in the program.
        if found.kind.as_deref().is_some_and(|kind| kind != "runtime") {
            continue;
        }
        parsed.push(Package::new(
            Ecosystem::Cargo,
            found.name,
            found.version,
            path,
            EvidenceKind::Binary,
        ))?;
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn runtime_packages_are_listed() {
        let text = br#"{"packages":[{"name":"adler","version":"1.0.2","source":"crates.io"},
            {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},
            {"name":"app","version":"0.1.0","source":"local","root":true,"dependencies":[0]}]}"#;
        assert_eq!(names(&audit(&packed(text), "x").unwrap()), ["adler 1.0.2", "app 0.1.0"]);
    }

    #[test]
    fn a_bomb_ends() {
        let bomb = packed(&vec![b' '; 20 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(audit(&bomb, "x"), Err(ParseError::Limit { .. })));
        assert!(audit(b"not zlib", "x").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = audit(&bytes, "x");
            let _ = audit(&packed(&bytes), "x");
        }
    }
}
