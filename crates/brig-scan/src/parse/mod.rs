//! Readers of package databases and of the traces that packages leave: one module a format.
//!
//! Each is a total function from bytes to packages. None opens a file, follows a link or keeps
//! state; bounds on size are the callers', bounds on shape are here.

pub mod apk;
pub mod binary;
pub mod cargo;
pub mod dotnet;
pub mod dpkg;
pub mod go;
pub mod java;
pub mod lock;
pub mod node;
pub mod php;
pub mod python;
pub mod release;
pub mod rpm;
pub mod ruby;

use std::collections::BTreeMap;
use std::io;

use crate::package::Package;

/// Longest name, version or other field of a package that is taken, in bytes.
pub const MAX_FIELD: usize = 1024;
/// Most packages that one file may list.
pub const MAX_PACKAGES_PER_FILE: usize = 200_000;
/// Longest list of licences that is kept of a package.
const MAX_LICENSES: usize = 32;

/// Why a file was not read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is not what its name says.
    #[error("{0}")]
    Malformed(String),
    /// A bound was passed.
    #[error("more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Its bytes could not be had.
    #[error("reading it failed")]
    Read(#[source] io::Error),
}

impl ParseError {
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    /// The error and its cause in one line.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Read(cause) => format!("{self}: {cause}"),
            other => other.to_string(),
        }
    }
}

/// What a reader found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The packages, in the file's order.
    pub packages: Vec<Package>,
    /// Which files each package owns, where the format says.
    pub owned: Owned,
    /// What was skipped, for people.
    pub problems: Vec<String>,
}

/// The files of an operating system's packages that may hold a language's packages, each by
/// [`path_key`], under the name of the package that they belong to.
pub type Owned = BTreeMap<String, Vec<u64>>;

impl Parsed {
    /// Adds a package unless a field is out of bounds.
    pub(crate) fn push(&mut self, package: Package) -> Result<(), ParseError> {
        if package.name.is_empty() {
            return Ok(());
        }
        if package.name.len() > MAX_FIELD || package.version.len() > MAX_FIELD {
            self.problem("a package's name or version is too long");
            return Ok(());
        }
        if package.name.chars().chain(package.version.chars()).any(char::is_control) {
            self.problem("a package's name or version has a control character");
            return Ok(());
        }
        if self.packages.len() >= MAX_PACKAGES_PER_FILE {
            return Err(ParseError::Limit {
                what: "packages in one file",
                limit: MAX_PACKAGES_PER_FILE as u64,
            });
        }
        self.packages.push(package);
        Ok(())
    }

    /// Notes something that was skipped; the same note only once.
    pub(crate) fn problem(&mut self, what: impl Into<String>) {
        let what = what.into();
        if self.problems.len() < 100 && !self.problems.contains(&what) {
            self.problems.push(what);
        }
    }
}

/// Licence names as they come, bounded.
pub(crate) fn licenses<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names
        .into_iter()
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.len() <= MAX_FIELD)
        .filter(|name| !name.eq_ignore_ascii_case("unknown"))
        .take(MAX_LICENSES)
        .map(str::to_owned)
        .collect()
}

/// Bytes that can be had at any place: a file, a part of one, or memory.
pub trait ReadAt {
    /// How many there are.
    fn size(&self) -> u64;

    /// Reads at this place; fewer bytes only at the end.
    ///
    /// # Errors
    /// What the source answers.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Reads at a place of a part: the `size` bytes from `start` on of what `read` reads.
pub(crate) fn read_part(
    start: u64,
    size: u64,
    buf: &mut [u8],
    offset: u64,
    read: impl FnOnce(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let wanted = buf.len().min(left);
    match buf.get_mut(..wanted) {
        Some(buf) if wanted > 0 => read(buf, start.saturating_add(offset)),
        _ => Ok(0),
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let rest = self.get(start..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, offset)
    }
}

/// Exactly `len` bytes at `offset`.
///
/// # Errors
/// [`ParseError::Malformed`] when they end before.
pub fn exact<R: ReadAt + ?Sized>(
    source: &R,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, ParseError> {
    // Asked before allocating: lengths come from the file.
    if offset.checked_add(len as u64).is_none_or(|end| end > source.size()) {
        return Err(ParseError::malformed("it points beyond its own end"));
    }
    let mut buf = vec![0_u8; len];
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read_at(rest, offset + done as u64) {
            Ok(0) => return Err(ParseError::malformed("it ends early")),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ParseError::Read(error)),
        }
    }
    Ok(buf)
}

/// A number by which file lists name a path: FNV-1a over the path below the root, with the
/// directories that were merged into `usr` as if they were not.
#[must_use]
pub fn path_key(path: &str) -> u64 {
    let mut path = path.trim_start_matches("./").trim_start_matches('/');
    if let Some(rest) = path.strip_prefix("usr/")
        && ["bin/", "sbin/", "lib/", "lib64/", "lib32/", "libx32/"]
            .iter()
            .any(|merged| rest.starts_with(merged))
    {
        path = rest;
    }
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether a file list needs to remember this path: it may hold a language's package.
#[must_use]
pub fn may_hold_package(path: &str) -> bool {
    if crate::inventory::detect::language_reader(path).is_some() {
        return true;
    }
    let (dir, base) = path.rsplit_once('/').unwrap_or(("", path));
    if dir.ends_with("bin") {
        return true;
    }
    !base.contains('.')
        && !dir.contains("share/")
        && !dir.trim_start_matches('/').starts_with("etc")
}

/// Text of which only ASCII matters: what is not UTF-8 becomes U+FFFD.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
pub(crate) fn names(parsed: &Parsed) -> Vec<String> {
    parsed.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{Ecosystem, EvidenceKind};

    #[test]
    fn keys_do_not_care_for_the_merge_of_usr() {
        assert_eq!(path_key("/bin/ls"), path_key("usr/bin/ls"));
        assert_eq!(path_key("./usr/lib/x"), path_key("/lib/x"));
        assert_ne!(path_key("usr/share/x"), path_key("share/x"));
        assert_ne!(path_key("bin/ls"), path_key("bin/sl"));
    }

    #[test]
    fn reads_do_not_pass_the_end() {
        let bytes = b"abc".as_slice();
        assert_eq!(exact(bytes, 1, 2).unwrap(), b"bc");
        assert!(exact(bytes, 2, 2).is_err());
        assert!(exact(bytes, u64::MAX, 2).is_err());
        assert!(exact(bytes, 0, usize::MAX).is_err());
    }

    #[test]
    fn fields_are_bounded() {
        let mut parsed = Parsed::default();
        let long = "x".repeat(MAX_FIELD + 1);
        for (name, version) in [("a", long.as_str()), ("", "1"), ("a\nb", "1")] {
            let found = Package::new(Ecosystem::Npm, name, version, "p", EvidenceKind::Installed);
            parsed.push(found).unwrap();
        }
        assert!(parsed.packages.is_empty());
        assert_eq!(parsed.problems.len(), 2);
    }
}
