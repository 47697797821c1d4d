//! Bills of materials: CycloneDX 1.6 and SPDX 2.3 as JSON, both ways.
//!
//! What is written depends on the inventory alone: no time, no random number, everything sorted. So
//! equal images have equal bytes, and a comparison of two documents is one of their content.

pub mod cyclonedx;
pub mod spdx;

use brig_types::digest::Digest;
use serde::Deserialize;

use crate::distribution::Distribution;
use crate::package::{EvidenceKind, Inventory, Package};
use crate::purl::{Identity, Purl};

/// Largest document that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 256 << 20;
/// Most packages of a document.
const MAX_PACKAGES: usize = 1_000_000;

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SbomError {
    /// It is no JSON of that shape.
    #[error("it is not valid")]
    Json(#[source] serde_json::Error),
    /// It is of another kind.
    #[error("it is neither CycloneDX nor SPDX 2")]
    Unknown,
    /// It lists too much.
    #[error("it has more than {0} packages")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default, rename = "bomFormat")]
    bom_format: String,
    #[serde(default, rename = "spdxVersion")]
    spdx_version: String,
}

/// Reads a document of either kind.
///
/// # Errors
/// [`SbomError`].
pub fn read(bytes: &[u8]) -> Result<Inventory, SbomError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let kind: Kind = serde_json::from_slice(bytes).map_err(SbomError::Json)?;
    if kind.bom_format == "CycloneDX" {
        cyclonedx::read(bytes)
    } else if kind.spdx_version.starts_with("SPDX-2") {
        spdx::read(bytes)
    } else {
        Err(SbomError::Unknown)
    }
}

/// A package as a document's package URL says it; `None` for one that is no URL.
fn package_of(url: &str, path: &str) -> Option<(Package, Purl)> {
    let purl = Purl::parse(url).ok()?;
    let Identity { ecosystem, name, version, source, arch, module } = purl.identity();
    let package = Package {
        source,
        arch,
        module,
        ..Package::new(ecosystem, name, version, path, EvidenceKind::Sbom)
    };
    Some((package, purl))
}

/// The distribution that package URLs name, for documents that have no component for it.
fn distribution_of(packages: &[(Package, Purl)]) -> Option<Distribution> {
    packages.iter().filter(|(package, _)| package.ecosystem.is_os()).find_map(|(_, purl)| {
        let namespace = purl.namespace.clone();
        let (id, version) = match purl.qualifiers.get("distro") {
            Some(distro) => match distro.split_once('-') {
                Some((id, version)) => (id.to_owned(), Some(version.to_owned())),
                // Trivy writes only the version for some.
                None if distro.starts_with(|c: char| c.is_ascii_digit()) => {
                    (namespace?, Some(distro.clone()))
                }
                None => (distro.clone(), None),
            },
            None => (namespace?, None),
        };
        Some(distribution(&id, version.as_deref()))
    })
}

/// A distribution of which a document says name and version.
fn distribution(id: &str, version: Option<&str>) -> Distribution {
    let id = id.to_ascii_lowercase();
    let mut known = Distribution {
        known_by: vec!["bill of materials".to_owned()],
        ..Distribution::new(id, version.filter(|version| !version.is_empty()))
    };
    // Debian's releases are known by their first number; what follows is the point release.
    if known.id == "debian"
        && let Some(version) = known.version.clone()
        && let Some((major, _)) = version.split_once('.')
    {
        known.version = Some(major.to_owned());
        known.point_release = Some(version);
    }
    known
}

/// Puts packages that were read into an inventory.
fn finish(
    packages: Vec<(Package, Purl)>,
    known: Option<Distribution>,
    mut inventory: Inventory,
) -> Result<Inventory, SbomError> {
    if packages.len() > MAX_PACKAGES {
        return Err(SbomError::TooMany(MAX_PACKAGES));
    }
    inventory.distribution = known.or_else(|| distribution_of(&packages));
    inventory.packages = packages.into_iter().map(|(package, _)| package).collect();
    inventory.sort();
    Ok(inventory)
}

/// A name for a document that depends on nothing but its content: a UUID made of a hash.
fn uuid(content: &[u8]) -> String {
    let hash = brig_pki::hash::sha256(content);
    let digest = Digest::from_sha256(hash);
    let hex = digest.hex();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    // Version 8 (the maker's own), variant 1 (RFC 9562).
    format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// What the document calls its subject.
fn subject(inventory: &Inventory) -> String {
    let image = &inventory.image;
    image
        .names
        .first()
        .cloned()
        .or_else(|| image.id.as_ref().map(ToString::to_string))
        .unwrap_or_else(|| "files".to_owned())
}

/// JSON in lines, with a newline at its end.
fn pretty(document: &serde_json::Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(document).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests;
