//! SPDX 2.3 in JSON (ISO/IEC 5962's successor).

use brig_types::digest::Digest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SbomError, distribution, finish, package_of, subject, uuid};
use crate::package::{EvidenceKind, Inventory, Package, Unread};
use crate::purl::Purl;

/// What stands where nobody says anything.
const NOASSERTION: &str = "NOASSERTION";
/// What a package is that is a part of the subject.
const LIBRARY: &str = "LIBRARY";
/// The time of a document that is not told one.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// The document as a value.
#[must_use]
pub fn document(inventory: &Inventory) -> Value {
    let name = subject(inventory);
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-Subject", "name": name, "downloadLocation": NOASSERTION,
        "filesAnalyzed": false,
        "primaryPackagePurpose":
            if inventory.layers.is_empty() { "SOURCE" } else { "CONTAINER" },
    })];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Subject")];
    if let Some(known) = &inventory.distribution {
        packages.push(json!({
            "SPDXID": "SPDXRef-System", "name": known.id,
            "versionInfo": known.version.as_deref().or(known.codename.as_deref()).unwrap_or_default(),
            "downloadLocation": NOASSERTION, "filesAnalyzed": false,
            "primaryPackagePurpose": "OPERATING-SYSTEM",
        }));
        relationships.push(relation("SPDXRef-Subject", "CONTAINS", "SPDXRef-System"));
    }
    for (index, package) in inventory.packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}-{}", id_text(&package.name), index + 1);
        let purl = Purl::of(package, inventory.distribution.as_ref()).to_string();
        let mut value = json!({
            "SPDXID": id, "name": package.name, "versionInfo": package.version,
            "downloadLocation": NOASSERTION, "filesAnalyzed": false,
            "primaryPackagePurpose": LIBRARY,
            "licenseConcluded": NOASSERTION, "licenseDeclared": NOASSERTION,
            "copyrightText": NOASSERTION,
            "sourceInfo": source_info(package),
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": purl,
            }],
        });
        if let (Some(vendor), Value::Object(fields)) = (&package.vendor, &mut value) {
            fields.insert("supplier".to_owned(), json!(format!("Organization: {vendor}")));
        }
        if let (false, Value::Object(fields)) = (package.licenses.is_empty(), &mut value) {
            fields.insert("licenseComments".to_owned(), json!(package.licenses.join("\n")));
        }
        packages.push(value);
        relationships.push(relation("SPDXRef-Subject", "CONTAINS", &id));
    }
    let created = inventory.layers.iter().filter_map(|layer| layer.created.as_deref());
    let created = created.filter_map(whole_seconds).max().unwrap_or_else(|| NO_TIME.to_owned());
    let mut document = json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "creationInfo": {
            "created": created,
            "creators": [format!("Tool: brig-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages, "relationships": relationships,
    });
    if !inventory.unread.is_empty()
        && let Value::Object(fields) = &mut document
    {
        let notes: Vec<String> = inventory
            .unread
            .iter()
            .map(|unread| {
                format!("not read: {}: {}: {}", unread.reader, unread.path, unread.reason)
            })
            .collect();
        fields.insert("comment".to_owned(), json!(notes.join("\n")));
    }
    let namespace = format!("urn:uuid:{}", uuid(document.to_string().as_bytes()));
    if let Value::Object(fields) = &mut document {
        fields.insert("documentNamespace".to_owned(), Value::String(namespace));
    }
    document
}

/// Writes the document: indented, ends with a newline.
#[must_use]
pub fn write(inventory: &Inventory) -> Vec<u8> {
    super::pretty(&document(inventory))
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// Letters, digits, `.` and `-` only.
fn id_text(name: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    name.chars().take(64).map(fine).collect()
}

/// `2024-01-02T03:04:05.123Z` without its fraction; none for what is no such time.
fn whole_seconds(time: &str) -> Option<String> {
    let seconds = time.get(..19)?;
    let shape = seconds.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    (shape && time.ends_with('Z')).then(|| format!("{seconds}Z"))
}

/// What the format has no field for.
fn source_info(package: &Package) -> String {
    let mut lines = vec![format!("found in: {}", package.evidence.path)];
    if let Some(layer) = &package.layer {
        lines.push(format!("layer: {layer}"));
    }
    if let Some(owner) = &package.owned_by {
        lines.push(format!("belongs to: {owner}"));
    }
    if let Some(source) = &package.source {
        lines.push(format!("built from: {} {}", source.name, source.version));
    }
    lines.join("\n")
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    packages: Vec<Entry>,
    #[serde(default)]
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version_info: Option<String>,
    #[serde(default)]
    primary_package_purpose: Option<String>,
    #[serde(default)]
    source_info: Option<String>,
    #[serde(default)]
    supplier: Option<String>,
    #[serde(default)]
    license_comments: Option<String>,
    #[serde(default)]
    license_declared: Option<String>,
    #[serde(default)]
    external_refs: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    reference_type: String,
    #[serde(default)]
    reference_locator: String,
}

/// Reads a document of version 2.
///
/// # Errors
/// [`SbomError`].
pub fn read(bytes: &[u8]) -> Result<Inventory, SbomError> {
    let document: Document = serde_json::from_slice(bytes).map_err(SbomError::Json)?;
    let mut inventory = Inventory::empty();
    let mut known = None;
    let mut packages = Vec::new();
    for entry in document.packages {
        let purpose = entry.primary_package_purpose.as_deref().unwrap_or_default();
        if purpose == "OPERATING-SYSTEM" {
            known = Some(distribution(&entry.name, entry.version_info.as_deref()));
            continue;
        }
        let url = entry.external_refs.iter().find(|reference| reference.reference_type == "purl");
        match url.and_then(|reference| package_of(&reference.reference_locator, "")) {
            // The subject itself.
            Some((_, purl)) if matches!(&*purl.kind, "oci" | "docker") && purpose != LIBRARY => {}
            Some((package, purl)) => packages.push((read_package(&entry, package), purl)),
            None if url.is_some() => {
                inventory.unread.push(unread(&entry.name, "its package URL is invalid"))
            }
            None if matches!(purpose, "" | LIBRARY) && entry.version_info.is_some() => {
                inventory.unread.push(unread(&entry.name, "it has no package URL"));
            }
            None => {}
        }
    }
    for line in document.comment.unwrap_or_default().lines() {
        if let Some(note) = line.strip_prefix("not read: ")
            && let Some((reader, rest)) = note.split_once(": ")
            && let Some((path, reason)) = rest.split_once(": ")
        {
            inventory.unread.push(Unread {
                path: path.to_owned(),
                layer: None,
                reader: reader.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }
    finish(packages, known, inventory)
}

fn unread(name: &str, reason: &str) -> Unread {
    Unread {
        path: name.chars().take(300).collect(),
        layer: None,
        reader: "spdx".to_owned(),
        reason: reason.to_owned(),
    }
}

fn read_package(entry: &Entry, mut package: Package) -> Package {
    for line in entry.source_info.as_deref().unwrap_or_default().lines() {
        match line.split_once(": ") {
            Some(("found in", path)) => package.evidence.path = path.to_owned(),
            Some(("layer", layer)) => package.layer = Digest::parse(layer).ok(),
            Some(("belongs to", owner)) => package.owned_by = Some(owner.to_owned()),
            // Trivy writes the source package so.
            Some(("built package from", source)) | Some(("built from", source)) => {
                if let (Some(known), Some((name, version))) =
                    (&mut package.source, source.rsplit_once(' '))
                {
                    name.clone_into(&mut known.name);
                    version.clone_into(&mut known.version);
                }
            }
            _ => {}
        }
    }
    package.evidence.kind = EvidenceKind::Sbom;
    let supplier = entry.supplier.as_deref().and_then(|text| text.strip_prefix("Organization: "));
    package.vendor = supplier.map(str::to_owned);
    package.licenses = match (&entry.license_comments, &entry.license_declared) {
        (Some(names), _) => names.lines().map(str::to_owned).collect(),
        (None, Some(name)) if name != NOASSERTION && name != "NONE" => vec![name.clone()],
        _ => Vec::new(),
    };
    package
}
