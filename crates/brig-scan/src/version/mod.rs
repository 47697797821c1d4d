//! The orders in which package managers sort versions, each as its own tool has it.
//!
//! Every order here is defined for every string: what a tool would refuse still has a fixed place,
//! so that a strange record can never abort a scan. Digit runs are compared as numbers of any
//! length. No comparison of one family is ever used for another.

mod apk;
mod composer;
mod dpkg;
mod gem;
mod maven;
mod pep440;
mod requirement;
mod rpm;
mod semver;

use std::cmp::Ordering;

pub use dpkg::source_version;
pub use requirement::{Bound, Interval, RequirementError, Syntax, intervals};

/// A family's version order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Debian and Ubuntu: `[epoch:]upstream[-revision]`.
    Dpkg,
    /// RPM: `[epoch:]version[-release]`.
    Rpm,
    /// Alpine and its relatives.
    Apk,
    /// Semantic versions as npm, Cargo, Hex, Pub and Swift use them.
    Semver,
    /// Go modules and the Go toolchain's own versions.
    Go,
    /// NuGet: up to four numbers, case ignored.
    NuGet,
    /// Python.
    Pep440,
    /// Maven's `ComparableVersion`.
    Maven,
    /// RubyGems.
    Gem,
    /// Composer.
    Composer,
}

impl Scheme {
    /// Every scheme, in the order of their numbers in the index.
    pub const ALL: [Self; 10] = [
        Self::Dpkg,
        Self::Rpm,
        Self::Apk,
        Self::Semver,
        Self::Go,
        Self::NuGet,
        Self::Pep440,
        Self::Maven,
        Self::Gem,
        Self::Composer,
    ];

    /// Orders two versions.
    #[must_use]
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Dpkg => dpkg::compare(a, b),
            Self::Rpm => rpm::compare(a, b),
            Self::Apk => apk::compare(a, b),
            Self::Semver => semver::compare(a, b, semver::Flavour::Plain),
            Self::Go => semver::compare(a, b, semver::Flavour::Go),
            Self::NuGet => semver::compare(a, b, semver::Flavour::NuGet),
            Self::Pep440 => pep440::compare(a, b),
            Self::Maven => maven::compare(a, b),
            Self::Gem => gem::compare(a, b),
            Self::Composer => composer::compare(a, b),
        }
    }

    /// Whether the text says where it stands at all: `(devel)` or a branch's name does not, and
    /// nothing can be told about such a package.
    #[must_use]
    pub fn is_comparable(self, version: &str) -> bool {
        match self {
            Self::Dpkg | Self::Rpm | Self::Apk | Self::Maven => !version.trim().is_empty(),
            Self::Semver => semver::is_version(version, semver::Flavour::Plain),
            Self::Go => semver::is_version(version, semver::Flavour::Go),
            Self::NuGet => semver::is_version(version, semver::Flavour::NuGet),
            Self::Pep440 => pep440::is_version(version),
            Self::Gem => gem::is_version(version),
            Self::Composer => composer::is_version(version),
        }
    }

    /// The words for the rule, as evidence shows them.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Rpm => "rpm",
            Self::Apk => "apk",
            Self::Semver => "semver",
            Self::Go => "Go",
            Self::NuGet => "NuGet",
            Self::Pep440 => "PEP 440",
            Self::Maven => "Maven",
            Self::Gem => "RubyGems",
            Self::Composer => "Composer",
        }
    }
}

/// Orders two runs of ASCII digits as numbers, whatever their length.
fn numbers(a: &[u8], b: &[u8]) -> Ordering {
    let a = without_zeros(a);
    let b = without_zeros(b);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|d| **d == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

/// Splits the longest prefix whose bytes satisfy `keep`.
fn take_while(bytes: &[u8], keep: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let length = bytes.iter().take_while(|b| keep(**b)).count();
    bytes.split_at_checked(length).unwrap_or((bytes, &[]))
}

/// Splits `epoch:` off where there is one; none is the same as 0.
fn split_epoch(version: &str) -> (&[u8], &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit()) => {
            (epoch.as_bytes(), rest)
        }
        _ => (b"0", version),
    }
}

#[cfg(test)]
mod tests;
