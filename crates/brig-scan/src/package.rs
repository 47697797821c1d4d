//! The inventory: packages, where each was found, and what could not be read.

use std::collections::BTreeMap;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;

/// The form of a stored inventory. A reader that finds another one makes the inventory anew.
pub const INVENTORY_FORMAT: u32 = 1;

/// Whose rules a package's name and version follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ecosystem {
    /// Debian packages.
    Deb,
    /// Alpine packages.
    Apk,
    /// RPM packages.
    Rpm,
    /// Python.
    PyPi,
    /// Node.
    Npm,
    /// Go modules; the standard library is `stdlib`.
    Go,
    /// Rust crates.
    Cargo,
    /// Java, named `group:artifact`.
    Maven,
    /// Ruby.
    Gem,
    /// PHP, named `vendor/name`.
    Composer,
    /// .NET.
    NuGet,
    /// What no rule here is for; only foreign bills of materials bring these. Its name is the
    /// package URL without version and qualifiers.
    Generic,
}

impl Ecosystem {
    /// Whether an operating system's package manager installed it, so that the distribution's
    /// advisories judge it.
    #[must_use]
    pub const fn is_os(self) -> bool {
        matches!(self, Self::Deb | Self::Apk | Self::Rpm)
    }

    /// The type in package URLs.
    #[must_use]
    pub const fn purl_type(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::PyPi => "pypi",
            Self::Npm => "npm",
            Self::Go => "golang",
            Self::Cargo => "cargo",
            Self::Maven => "maven",
            Self::Gem => "gem",
            Self::Composer => "composer",
            Self::NuGet => "nuget",
            Self::Generic => "generic",
        }
    }

    /// The ecosystem of a package URL's type.
    #[must_use]
    pub fn from_purl_type(kind: &str) -> Self {
        match kind {
            "deb" => Self::Deb,
            "apk" => Self::Apk,
            "rpm" => Self::Rpm,
            "pypi" => Self::PyPi,
            "npm" => Self::Npm,
            "golang" => Self::Go,
            "cargo" => Self::Cargo,
            "maven" => Self::Maven,
            "gem" => Self::Gem,
            "composer" => Self::Composer,
            "nuget" => Self::NuGet,
            _ => Self::Generic,
        }
    }
}

/// The source package that a binary package was built from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its version, in full (`[epoch:]upstream[-revision]`).
    pub version: String,
}

/// What kind of trace proves a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceKind {
    /// A record of a package manager's database.
    Database,
    /// Metadata beside installed files.
    Installed,
    /// Inside a program or a Java archive.
    Binary,
    /// A lock file: wanted, perhaps not installed. Taken from directories only.
    Declared,
    /// A bill of materials that somebody else made.
    Sbom,
}

/// The file that proves a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Evidence {
    /// Path inside the image, without a leading slash; `outer.jar!/inner.jar` inside archives.
    pub path: String,
    /// What it is.
    pub kind: EvidenceKind,
}

/// One installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Package {
    /// Its ecosystem.
    pub ecosystem: Ecosystem,
    /// Its name, normalised as the ecosystem asks.
    pub name: String,
    /// Its version in full: with epoch and revision for deb and rpm (`1:2.3-4`). Empty when nobody
    /// says (a manifest without a version).
    pub version: String,
    /// The source package, also when it has the same name and version; for deb, apk and rpm where
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// `amd64`, `x86_64`, `all`, `noarch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Licences as the package states them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// Who built an operating system's package: rpm's `VENDOR`, dpkg's `Origin` or `Maintainer`. A
    /// clue for packages that a third party's repository brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// The module stream of a modular rpm, `name:stream:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The layer whose record of it (name and version) was the first to stay, by diff id. Not known
    /// for directories and foreign bills of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
    /// The file that proves it.
    pub evidence: Evidence,
    /// The operating system's package whose file list has the evidence, as `name`. Such a package is
    /// judged by the distribution's advisories only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_by: Option<String>,
}

impl Package {
    /// A package with nothing but its identity and what proves it.
    pub fn new(
        ecosystem: Ecosystem,
        name: impl Into<String>,
        version: impl Into<String>,
        path: impl Into<String>,
        kind: EvidenceKind,
    ) -> Self {
        Self {
            ecosystem,
            name: name.into(),
            version: version.into(),
            source: None,
            arch: None,
            licenses: Vec::new(),
            vendor: None,
            module: None,
            layer: None,
            evidence: Evidence { path: path.into(), kind },
            owned_by: None,
        }
    }
}

/// Something that was not read to its end, so that a silence about it means nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unread {
    /// Path inside the image.
    pub path: String,
    /// The layer it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
    /// Which reader gave up: `dpkg`, `rpm`, `java`, …
    pub reader: String,
    /// Why.
    pub reason: String,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The build step that made it, as the image's history says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// When that was, as the history says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Size of the uncompressed archive, in bytes.
    #[serde(default)]
    pub size: u64,
}

/// What the image says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The image id: digest of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Digest>,
    /// Digest of its manifest, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// References that the archive gives it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// `os/architecture[/variant]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Every step of the history, those without a layer too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<String>,
}

/// Everything that was found in an image, a directory or a foreign bill of materials. Sorted, so
/// that equal content is equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// [`INVENTORY_FORMAT`] when it was written.
    pub format: u32,
    /// Version of the readers that made it.
    pub detector: u32,
    /// The image.
    #[serde(default)]
    pub image: ImageFacts,
    /// Its distribution; none when no file tells. Packages of an operating system then cannot be
    /// judged, which is a finding of its own.
    #[serde(default)]
    pub distribution: Option<Distribution>,
    /// Bottom first. Empty for directories and foreign bills of materials.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// Sorted by ecosystem, name, version, evidence.
    pub packages: Vec<Package>,
    /// What could not be read.
    #[serde(default)]
    pub unread: Vec<Unread>,
}

impl Inventory {
    /// Nothing found yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            format: INVENTORY_FORMAT,
            detector: DETECTOR_VERSION,
            image: ImageFacts::default(),
            distribution: None,
            layers: Vec::new(),
            packages: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Puts everything into its order and drops what is there twice.
    pub fn sort(&mut self) {
        self.packages.sort_unstable();
        self.packages.dedup();
        self.unread.sort_unstable();
        self.unread.dedup();
    }

    /// Which layer this is, counted from the bottom.
    #[must_use]
    pub fn layer_index(&self, diff_id: &Digest) -> Option<usize> {
        self.layers.iter().position(|layer| layer.diff_id == *diff_id)
    }
}

/// Grows whenever the readers find something else in the same bytes: what was stored by an earlier
/// version is made anew.
pub const DETECTOR_VERSION: u32 = 2;
