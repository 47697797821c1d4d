//! Package URLs (purl-spec), the names that bills of materials and VEX statements give packages.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::distribution::Distribution;
use crate::package::{Ecosystem, Package, Source};

/// Longest package URL that is read, in bytes.
pub const MAX_PURL: usize = 4096;

/// A package URL in parts, each decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Purl {
    /// `deb`, `npm`, …, lower case.
    pub kind: String,
    /// What stands before the name: the distribution, the vendor, the scope; segments by `/`.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The version.
    pub version: Option<String>,
    /// Qualifiers, by lower-case name.
    pub qualifiers: BTreeMap<String, String>,
    /// A place inside the package.
    pub subpath: Option<String>,
}

/// A text that is no package URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid package URL {text:?}: {reason}")]
pub struct InvalidPurl {
    text: String,
    reason: &'static str,
}

impl Purl {
    /// Reads a package URL.
    ///
    /// # Errors
    /// [`InvalidPurl`] when a required part is missing or an escape is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidPurl> {
        let invalid = |reason| InvalidPurl { text: text.chars().take(200).collect(), reason };
        if text.len() > MAX_PURL {
            return Err(invalid("it is too long"));
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| invalid("it has no scheme"))?;
        if !scheme.eq_ignore_ascii_case("pkg") {
            return Err(invalid("its scheme is not pkg"));
        }
        let rest = rest.trim_start_matches('/');
        let decoded =
            |part: &str| decode(part).ok_or_else(|| invalid("a percent escape is broken"));
        let segments = |part: &str| -> Result<Option<String>, InvalidPurl> {
            let mut joined = String::new();
            for segment in part.split('/').filter(|s| !s.is_empty()) {
                if !joined.is_empty() {
                    joined.push('/');
                }
                joined.push_str(&decoded(segment)?);
            }
            Ok((!joined.is_empty()).then_some(joined))
        };
        let (rest, subpath) = match rest.rsplit_once('#') {
            Some((rest, subpath)) => (rest, segments(subpath)?),
            None => (rest, None),
        };
        let (rest, query) = rest.rsplit_once('?').unwrap_or((rest, ""));
        let mut qualifiers = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid("a qualifier has no value"))?;
            let value = decoded(value)?;
            if !value.is_empty() {
                qualifiers.insert(key.to_ascii_lowercase(), value);
            }
        }
        let (kind, rest) = rest.split_once('/').ok_or_else(|| invalid("it has no name"))?;
        if kind.is_empty()
            || !kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-'))
        {
            return Err(invalid("its type is not a word"));
        }
        let rest = rest.trim_matches('/');
        // An `@` before the last slash is a scope that somebody did not escape.
        let name_at = rest.rfind('/').map_or(0, |at| at + 1);
        let tail = rest.get(name_at..).unwrap_or_default();
        // Only the first: an epoch or a path of Go holds none, a version may.
        let version_at = match tail.find('@') {
            Some(0) | None => None,
            Some(at) => Some(name_at + at),
        };
        let (path, version) = match version_at {
            Some(at) => (
                rest.get(..at).unwrap_or_default(),
                Some(decoded(rest.get(at + 1..).unwrap_or_default())?),
            ),
            None => (rest, None),
        };
        let (namespace, name) = match path.rsplit_once('/') {
            Some((namespace, name)) => (segments(namespace)?, decoded(name)?),
            None => (None, decoded(path)?),
        };
        if name.is_empty() {
            return Err(invalid("it has no name"));
        }
        Ok(Self {
            kind: kind.to_ascii_lowercase(),
            namespace,
            name,
            version: version.filter(|version| !version.is_empty()),
            qualifiers,
            subpath,
        })
    }

    /// The package URL of a package of an image with this distribution.
    #[must_use]
    pub fn of(package: &Package, distribution: Option<&Distribution>) -> Self {
        let mut purl = Self {
            kind: package.ecosystem.purl_type().to_owned(),
            version: Some(package.version.clone()).filter(|version| !version.is_empty()),
            ..Self::default()
        };
        match package.ecosystem {
            Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm => {
                purl.name.clone_from(&package.name);
                purl.os(package, distribution);
            }
            Ecosystem::Maven => match package.name.split_once(':') {
                Some((group, artifact)) => purl.put(group, artifact),
                None => purl.name.clone_from(&package.name),
            },
            Ecosystem::Npm | Ecosystem::Composer | Ecosystem::Go => {
                match package.name.rsplit_once('/') {
                    Some((namespace, name)) => purl.put(namespace, name),
                    None => purl.name.clone_from(&package.name),
                }
            }
            Ecosystem::Generic => match Self::parse(&package.name) {
                Ok(mut known) => {
                    known.version = purl.version;
                    return known;
                }
                Err(_) => purl.name.clone_from(&package.name),
            },
            Ecosystem::PyPi | Ecosystem::Cargo | Ecosystem::Gem | Ecosystem::NuGet => {
                purl.name.clone_from(&package.name);
            }
        }
        purl
    }

    fn put(&mut self, namespace: &str, name: &str) {
        self.namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        name.clone_into(&mut self.name);
    }

    fn os(&mut self, package: &Package, distribution: Option<&Distribution>) {
        let mut qualifier = |key: &str, value: &str| {
            if !value.is_empty() {
                self.qualifiers.insert(key.to_owned(), value.to_owned());
            }
        };
        if let Some(arch) = &package.arch {
            qualifier("arch", arch);
        }
        if let Some(distribution) = distribution {
            qualifier("distro", &distribution.qualifier());
        }
        if let Some(module) = &package.module {
            qualifier("rpmmod", module);
        }
        if let Some(Source { name, version }) = &package.source
            && (*name != package.name || *version != package.version)
        {
            if *version == package.version || version.is_empty() {
                qualifier("upstream", name);
            } else {
                qualifier("upstream", &format!("{name}@{version}"));
            }
        }
        // The epoch of rpm is a qualifier (purl-spec); dpkg's belongs to the version.
        if package.ecosystem == Ecosystem::Rpm
            && let Some((epoch, rest)) = package.version.split_once(':')
        {
            qualifier("epoch", epoch);
            self.version = Some(rest.to_owned());
        }
        self.namespace = distribution.map(|distribution| distribution.id.clone());
    }

    /// The ecosystem, name, version, source and architecture that it says.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let ecosystem = Ecosystem::from_purl_type(&self.kind);
        let joined = |between: char| match &self.namespace {
            Some(namespace) => format!("{namespace}{between}{}", self.name),
            None => self.name.clone(),
        };
        let name = match ecosystem {
            Ecosystem::Maven => joined(':'),
            Ecosystem::Npm | Ecosystem::Go => joined('/'),
            Ecosystem::Composer => joined('/').to_ascii_lowercase(),
            Ecosystem::PyPi => normal_python_name(&self.name),
            Ecosystem::Generic => {
                Self { version: None, qualifiers: BTreeMap::new(), subpath: None, ..self.clone() }
                    .to_string()
            }
            _ => self.name.clone(),
        };
        let mut version = self.version.clone().unwrap_or_default();
        if ecosystem.is_os()
            && let Some(epoch) = self.qualifiers.get("epoch")
            && !version.contains(':')
            && epoch != "0"
        {
            version = format!("{epoch}:{version}");
        }
        let source = ecosystem.is_os().then(|| match self.qualifiers.get("upstream") {
            Some(upstream) => match upstream.split_once('@') {
                Some((name, version)) => {
                    Source { name: name.to_owned(), version: version.to_owned() }
                }
                // Syft names rpm's source by its file.
                None => match source_rpm(upstream) {
                    Some((name, version)) => {
                        Source { name: name.to_owned(), version: version.to_owned() }
                    }
                    None => Source { name: upstream.clone(), version: version.clone() },
                },
            },
            None => Source { name: name.clone(), version: version.clone() },
        });
        Identity {
            ecosystem,
            name,
            version,
            source,
            arch: self.qualifiers.get("arch").cloned(),
            module: self.qualifiers.get("rpmmod").cloned(),
        }
    }
}

/// What a package URL says of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its ecosystem.
    pub ecosystem: Ecosystem,
    /// Its name as [`Package::name`] has it.
    pub name: String,
    /// Its version, empty when there is none.
    pub version: String,
    /// Its source package.
    pub source: Option<Source>,
    /// Its architecture.
    pub arch: Option<String>,
    /// The module stream of an rpm.
    pub module: Option<String>,
}

/// PEP 503: lower case, runs of `-`, `_` and `.` become one `-`.
#[must_use]
pub fn normal_python_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.push(c.to_ascii_lowercase());
        }
    }
    out
}

/// Name and `version-release` of `name-version-release.src.rpm`.
#[must_use]
pub fn source_rpm(file: &str) -> Option<(&str, &str)> {
    let stem = file.strip_suffix(".src.rpm").or_else(|| file.strip_suffix(".nosrc.rpm"))?;
    let release = stem.rfind('-')?;
    let version = stem.get(..release)?.rfind('-')?;
    let (name, full) = (stem.get(..version)?, stem.get(version + 1..)?);
    (!name.is_empty()).then_some((name, full))
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.kind)?;
        if let Some(namespace) = &self.namespace {
            for segment in namespace.split('/').filter(|s| !s.is_empty()) {
                encode(f, segment, false)?;
                f.write_char('/')?;
            }
        }
        encode(f, &self.name, false)?;
        if let Some(version) = &self.version {
            f.write_char('@')?;
            encode(f, version, false)?;
        }
        for (index, (key, value)) in self.qualifiers.iter().enumerate() {
            write!(f, "{}{key}=", if index == 0 { '?' } else { '&' })?;
            encode(f, value, true)?;
        }
        if let Some(subpath) = &self.subpath {
            f.write_char('#')?;
            encode(f, subpath, true)?;
        }
        Ok(())
    }
}

fn encode(f: &mut fmt::Formatter<'_>, text: &str, slash: bool) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                f.write_char(char::from(byte))?;
            }
            b'/' if slash => f.write_char('/')?,
            other => write!(f, "%{other:02X}")?,
        }
    }
    Ok(())
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::package::EvidenceKind;

    fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Package {
        Package::new(ecosystem, name, version, "", EvidenceKind::Database)
    }

    fn bookworm() -> Distribution {
        Distribution::new("debian", Some("12"))
    }

    #[test]
    fn each_ecosystem_is_written_and_read() {
        for (ecosystem, name, version, text) in [
            (Ecosystem::PyPi, "zope-interface", "1.0+x", "pkg:pypi/zope-interface@1.0%2Bx"),
            (Ecosystem::Npm, "@babel/core", "7.0.0", "pkg:npm/%40babel/core@7.0.0"),
            (Ecosystem::Npm, "left-pad", "1.0.0", "pkg:npm/left-pad@1.0.0"),
            (Ecosystem::Go, "golang.org/x/net", "v0.1.0", "pkg:golang/golang.org/x/net@v0.1.0"),
            (Ecosystem::Maven, "org.a:b", "1", "pkg:maven/org.a/b@1"),
            (Ecosystem::Composer, "monolog/monolog", "2.0", "pkg:composer/monolog/monolog@2.0"),
            (Ecosystem::Cargo, "serde", "", "pkg:cargo/serde"),
        ] {
            let purl = Purl::of(&package(ecosystem, name, version), None);
            assert_eq!(purl.to_string(), text);
            let read = Purl::parse(text).unwrap();
            assert_eq!(read, purl);
            let identity = read.identity();
            assert_eq!(
                (identity.ecosystem, identity.name.as_str(), identity.version.as_str()),
                (ecosystem, name, version)
            );
        }
    }

    #[test]
    fn an_os_package_keeps_source_epoch_and_distribution() {
        let mut deb = package(Ecosystem::Deb, "libssl3", "1:3.0.1-1+b1");
        deb.arch = Some("amd64".to_owned());
        deb.source = Some(Source { name: "openssl".to_owned(), version: "1:3.0.1-1".to_owned() });
        let purl = Purl::of(&deb, Some(&bookworm()));
        assert_eq!(
            purl.to_string(),
            "pkg:deb/debian/libssl3@1:3.0.1-1%2Bb1?arch=amd64&distro=debian-12&upstream=openssl%401:3.0.1-1"
        );
        let identity = Purl::parse(&purl.to_string()).unwrap().identity();
        assert_eq!((identity.source, identity.arch), (deb.source.clone(), deb.arch.clone()));

        let rpm = package(Ecosystem::Rpm, "bash", "2:5.1-1.el9");
        let text = Purl::of(&rpm, None).to_string();
        assert_eq!(text, "pkg:rpm/bash@5.1-1.el9?epoch=2");
        assert_eq!(Purl::parse(&text).unwrap().identity().version, "2:5.1-1.el9");
        let syft = "pkg:rpm/rhel/bash@5.1-1?arch=x86_64&upstream=bash-5.1-1.src.rpm";
        assert_eq!(
            Purl::parse(syft).unwrap().identity().source,
            Some(Source { name: "bash".to_owned(), version: "5.1-1".to_owned() })
        );
    }

    #[test]
    fn what_others_write_is_read() {
        let deb = Purl::parse("pkg:deb/debian/git@2.0?epoch=1&arch=amd64").unwrap().identity();
        assert_eq!(deb.version, "1:2.0");
        let scope = Purl::parse("pkg:npm/@scope/name@1.0").unwrap().identity();
        assert_eq!((scope.name.as_str(), scope.version.as_str()), ("@scope/name", "1.0"));
        let slashes = Purl::parse("pkg://PyPI/A_b.C@1").unwrap().identity();
        assert_eq!(slashes.name, "a-b-c");
        let other = Purl::parse("pkg:swift/github.com/a/b@1?x=y").unwrap().identity();
        assert_eq!(
            (other.ecosystem, other.name.as_str()),
            (Ecosystem::Generic, "pkg:swift/github.com/a/b")
        );
        for broken in
            ["", "pkg:", "pkg:deb", "pkg:deb/", "npm/a@1", "pkg:npm/a%4", "pkg:a b/c", "pkg:x/a?b"]
        {
            assert!(Purl::parse(broken).is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_purl_reads_back(name in "[ -~é]{1,12}", version in "[ -~]{1,12}", value in "[ -~]{1,8}") {
            let purl = Purl {
                kind: "npm".to_owned(),
                namespace: Some("@scope".to_owned()),
                name,
                version: Some(version),
                qualifiers: BTreeMap::from([("key".to_owned(), value)]),
                subpath: None,
            };
            prop_assert_eq!(Purl::parse(&purl.to_string()).unwrap(), purl);
        }

        #[test]
        fn any_text_ends(text in ".{0,60}") {
            let _ = Purl::parse(&text);
            let _ = Purl::parse(&format!("pkg:{text}"));
        }
    }
}
