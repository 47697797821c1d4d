//! dpkg's database: `status`, the `status.d` of distroless images, and file lists (deb822 stanzas,
//! dpkg's man page deb-control(5)).

use crate::package::{Ecosystem, EvidenceKind, Package, Source};

use super::{MAX_FIELD, Owned, ParseError, Parsed, may_hold_package, path_key};

/// States of `Status:` in which no file of the package is there.
const ABSENT: &[&str] = &["not-installed", "config-files"];

/// Reads `var/lib/dpkg/status`.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn status(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    stanzas(bytes, path, true)
}

/// Reads a file of `var/lib/dpkg/status.d`: one stanza, without a `Status:`.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn status_d(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    stanzas(bytes, path, false)
}

#[derive(Default)]
struct Stanza<'a> {
    package: &'a str,
    version: &'a str,
    arch: &'a str,
    source: &'a str,
    status: Option<&'a str>,
    maintainer: &'a str,
    origin: &'a str,
    seen: bool,
}

fn stanzas(bytes: &[u8], path: &str, needs_status: bool) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let mut stanza = Stanza::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.first() {
            None => {
                finish(std::mem::take(&mut stanza), path, needs_status, &mut parsed)?;
            }
            // A continuation of the field before.
            Some(b' ' | b'\t' | b'#') => {}
            Some(_) => {
                stanza.seen = true;
                let Some(colon) = memchr::memchr(b':', line) else {
                    parsed.problem("a line is no field");
                    continue;
                };
                let (name, value) = line.split_at(colon);
                let into = match name {
                    b"Package" => &mut stanza.package,
                    b"Version" => &mut stanza.version,
                    b"Architecture" => &mut stanza.arch,
                    b"Source" => &mut stanza.source,
                    b"Maintainer" => &mut stanza.maintainer,
                    b"Origin" => &mut stanza.origin,
                    b"Status" => stanza.status.insert(""),
                    _ => continue,
                };
                match std::str::from_utf8(value.get(1..).unwrap_or_default()) {
                    Ok(text) => *into = text.trim(),
                    Err(_) => parsed.problem("a field is not UTF-8"),
                }
            }
        }
    }
    finish(stanza, path, needs_status, &mut parsed)?;
    Ok(parsed)
}

fn finish(
    stanza: Stanza<'_>,
    path: &str,
    needs_status: bool,
    parsed: &mut Parsed,
) -> Result<(), ParseError> {
    if !stanza.seen {
        return Ok(());
    }
    if stanza.package.is_empty() {
        parsed.problem("a stanza has no package name");
        return Ok(());
    }
    match stanza.status {
        Some(status) => {
            let state = status.split_ascii_whitespace().nth(2).unwrap_or_default();
            if ABSENT.contains(&state) {
                return Ok(());
            }
        }
        None if needs_status => {
            parsed.problem(format!("{} has no status", bounded(stanza.package)));
        }
        None => {}
    }
    if stanza.version.is_empty() {
        // dpkg keeps such records of packages that are only known, never installed.
        if stanza.status.is_some_and(|status| status.ends_with("installed")) {
            parsed.problem(format!("{} has no version", bounded(stanza.package)));
        }
        return Ok(());
    }
    let mut found =
        Package::new(Ecosystem::Deb, stanza.package, stanza.version, path, EvidenceKind::Database);
    let source = source(stanza.source, &found);
    if source.name.len() <= MAX_FIELD && source.version.len() <= MAX_FIELD {
        found.source = Some(source);
    }
    found.arch = text(stanza.arch);
    found.vendor = text(stanza.origin).or_else(|| text(stanza.maintainer));
    parsed.push(found)
}

/// `Source: name` or `Source: name (version)`; without one it is the package itself. A rebuild of a
/// binary alone (`+b1`) has the source's version.
fn source(field: &str, package: &Package) -> Source {
    let (name, version) = match field.split_once('(') {
        Some((name, version)) => (name.trim(), Some(version.trim_end_matches(')').trim())),
        None => (field.trim(), None),
    };
    let name = if name.is_empty() { &package.name } else { name };
    let version = version.filter(|version| !version.is_empty());
    Source {
        name: name.to_owned(),
        version: version.unwrap_or_else(|| without_rebuild(&package.version)).to_owned(),
    }
}

/// The version without the `+bN` of a binary that was built again from the same source.
#[must_use]
pub fn without_rebuild(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((rest, number))
            if !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()) =>
        {
            rest
        }
        _ => version,
    }
}

fn text(field: &str) -> Option<String> {
    (!field.is_empty() && field.len() <= MAX_FIELD).then(|| field.to_owned())
}

fn bounded(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The package that `info/NAME[:arch].list`, `info/NAME.md5sums` or `status.d/NAME.md5sums` is of.
#[must_use]
pub fn list_owner(path: &str) -> Option<&str> {
    let base = path.rsplit('/').next()?;
    let stem = base.strip_suffix(".list").or_else(|| base.strip_suffix(".md5sums"))?;
    let name = stem.split(':').next()?;
    (!name.is_empty() && name.len() <= MAX_FIELD).then_some(name)
}

/// Reads a file list (a path a line) or sums (`md5  path`), keeping what may hold packages of a
/// language.
#[must_use]
pub fn owned_files(bytes: &[u8], owner: &str, sums: bool) -> Owned {
    let keys: Vec<u64> = bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let line = std::str::from_utf8(line).ok()?;
            let path = if sums { line.split_once(' ')?.1.trim_start() } else { line };
            let path = path.trim_start_matches('/');
            may_hold_package(path).then(|| path_key(path))
        })
        .collect();
    if keys.is_empty() { Owned::new() } else { Owned::from([(owner.to_owned(), keys)]) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    const STATUS: &str = "\
Package: libssl3
Status: install ok installed
Maintainer: Debian OpenSSL Team <x@y>
Architecture: amd64
Source: openssl
Version: 3.0.11-1~deb12u2
Description: a library
 Version: 9
 .

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: perl-base
Essential: yes
Status: install ok half-configured
Architecture: amd64
Source: perl (5.36.0-7)
Version: 5.36.0-7+b1

Package: git
Status: install ok installed
Version: 1:2.39.2-1.1+b3

Package: known
Status: install ok not-installed
";

    #[test]
    fn what_is_there_is_listed_with_its_source() {
        let parsed = status(STATUS.as_bytes(), "var/lib/dpkg/status").unwrap();
        assert_eq!(
            names(&parsed),
            ["libssl3 3.0.11-1~deb12u2", "perl-base 5.36.0-7+b1", "git 1:2.39.2-1.1+b3"]
        );
        let sources: Vec<String> = parsed
            .packages
            .iter()
            .map(|p| p.source.as_ref().map(|s| format!("{} {}", s.name, s.version)).unwrap())
            .collect();
        assert_eq!(sources, ["openssl 3.0.11-1~deb12u2", "perl 5.36.0-7", "git 1:2.39.2-1.1"]);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        assert_eq!(parsed.packages[0].vendor.as_deref(), Some("Debian OpenSSL Team <x@y>"));
    }

    #[test]
    fn distroless_has_no_status() {
        let text = b"Package: tzdata\nVersion: 2024a-0+deb12u1\nArchitecture: all\n";
        let parsed = status_d(text, "var/lib/dpkg/status.d/tzdata").unwrap();
        assert_eq!(names(&parsed), ["tzdata 2024a-0+deb12u1"]);
        assert!(parsed.problems.is_empty());
        assert_eq!(status(text, "x").unwrap().problems, ["tzdata has no status"]);
    }

    #[test]
    fn lists_keep_what_may_hold_packages() {
        assert_eq!(list_owner("var/lib/dpkg/info/libc6:amd64.list"), Some("libc6"));
        assert_eq!(list_owner("var/lib/dpkg/status.d/tzdata.md5sums"), Some("tzdata"));
        assert_eq!(list_owner("x.postinst"), None);
        let list = b"/.\n/usr/lib/python3/dist-packages/a-1.dist-info/METADATA\n/usr/share/doc/a\n/bin/tool\n";
        let owned = owned_files(list, "python3-a", false);
        let keys = owned.get("python3-a").unwrap();
        assert!(keys.contains(&path_key("usr/lib/python3/dist-packages/a-1.dist-info/METADATA")));
        assert!(keys.contains(&path_key("usr/bin/tool")));
        assert!(!keys.contains(&path_key("usr/share/doc/a")));
        let sums = owned_files(b"d41d8cd98f00b204e9800998ecf8427e  usr/bin/x\n", "p", true);
        assert_eq!(sums.get("p"), Some(&vec![path_key("bin/x")]));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = status(&bytes, "x");
            let _ = owned_files(&bytes, "x", true);
        }

        #[test]
        fn a_written_stanza_is_read(
            name in "[a-z][a-z0-9+.-]{1,20}", version in "([0-9]:)?[0-9][0-9a-z.+~]{0,10}(-[0-9a-z.]{1,5})?",
        ) {
            let text = format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n");
            let parsed = status(text.as_bytes(), "x").unwrap();
            prop_assert_eq!(names(&parsed), [format!("{name} {version}")]);
        }
    }
}
