//! CycloneDX 1.6 in JSON (ECMA-424).

use std::collections::BTreeMap;

use brig_types::digest::Digest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SbomError, distribution, finish, package_of, subject, uuid};
use crate::distribution::Distribution;
use crate::package::{EvidenceKind, Inventory, Layer, Package, Source, Unread};
use crate::purl::Purl;

const PREFIX: &str = "brig:";

/// The references that a document gives the packages of an inventory, in their order: package URLs,
/// with a number where several packages have the same.
#[must_use]
pub fn references(inventory: &Inventory) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    inventory
        .packages
        .iter()
        .map(|package| {
            let url = Purl::of(package, inventory.distribution.as_ref()).to_string();
            let count = seen.entry(url.clone()).or_insert(0);
            *count += 1;
            if *count == 1 { url } else { format!("{url}#{count}") }
        })
        .collect()
}

/// The document as a value, for whoever adds vulnerabilities to it.
#[must_use]
pub fn document(inventory: &Inventory) -> Value {
    let references = references(inventory);
    let mut components = Vec::new();
    let mut all = Vec::new();
    if let Some(distribution) = &inventory.distribution {
        components.push(system(distribution));
        all.push("system".to_owned());
    }
    for (package, reference) in inventory.packages.iter().zip(&references) {
        components.push(component(package, reference, inventory.distribution.as_ref()));
        all.push(reference.clone());
    }
    let mut facts = Vec::new();
    if let Some(id) = &inventory.image.id {
        facts.push(("image-id".to_owned(), id.to_string()));
    }
    if let Some(manifest) = &inventory.image.manifest {
        facts.push(("manifest".to_owned(), manifest.to_string()));
    }
    if let Some(platform) = &inventory.image.platform {
        facts.push(("platform".to_owned(), platform.clone()));
    }
    facts.extend(inventory.image.names.iter().map(|name| ("name".to_owned(), name.clone())));
    for layer in &inventory.layers {
        facts.push(("layer".to_owned(), layer.diff_id.to_string()));
        if let Some(step) = &layer.created_by {
            facts.push((format!("layer:{}:created-by", layer.diff_id), step.clone()));
        }
    }
    for unread in &inventory.unread {
        let layer = unread.layer.as_ref().map(ToString::to_string).unwrap_or_default();
        let note = json!([unread.path, layer, unread.reader, unread.reason]).to_string();
        facts.push(("unread".to_owned(), note));
    }
    let kind = if inventory.layers.is_empty() { "application" } else { "container" };
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{
                "type": "application", "name": "brig", "version": env!("CARGO_PKG_VERSION"),
            }]},
            "component": {
                "type": kind, "bom-ref": "subject", "name": subject(inventory),
                "properties": properties(facts),
            },
        },
        "components": components,
        "dependencies": [{ "ref": "subject", "dependsOn": all }],
    });
    let serial = format!("urn:uuid:{}", uuid(document.to_string().as_bytes()));
    if let Value::Object(fields) = &mut document {
        fields.insert("serialNumber".to_owned(), Value::String(serial));
    }
    document
}

/// Writes the document: indented, ends with a newline.
#[must_use]
pub fn write(inventory: &Inventory) -> Vec<u8> {
    super::pretty(&document(inventory))
}

fn properties(facts: Vec<(String, String)>) -> Vec<Value> {
    facts
        .into_iter()
        .map(|(name, value)| json!({ "name": format!("{PREFIX}{name}"), "value": value }))
        .collect()
}

fn system(distribution: &Distribution) -> Value {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: Option<&String>| {
        facts.extend(value.map(|value| (name.to_owned(), value.clone())));
    };
    add("codename", distribution.codename.as_ref());
    add("point-release", distribution.point_release.as_ref());
    add("pretty-name", distribution.pretty_name.as_ref());
    for like in &distribution.like {
        add("like", Some(like));
    }
    for sign in &distribution.known_by {
        add("known-by", Some(sign));
    }
    for sign in &distribution.contradicted_by {
        add("contradicted-by", Some(sign));
    }
    let mut component = json!({
        "type": "operating-system", "bom-ref": "system", "name": distribution.id,
        "properties": properties(facts),
    });
    if let (Some(version), Value::Object(fields)) = (&distribution.version, &mut component) {
        fields.insert("version".to_owned(), Value::String(version.clone()));
    }
    component
}

fn component(package: &Package, reference: &str, distribution: Option<&Distribution>) -> Value {
    let mut facts = vec![
        ("evidence".to_owned(), package.evidence.path.clone()),
        ("evidence-kind".to_owned(), kind_name(package.evidence.kind).to_owned()),
    ];
    if let Some(layer) = &package.layer {
        facts.push(("layer".to_owned(), layer.to_string()));
    }
    if let Some(owner) = &package.owned_by {
        facts.push(("owned-by".to_owned(), owner.clone()));
    }
    if let Some(Source { name, version }) = &package.source {
        facts.push(("source".to_owned(), name.clone()));
        facts.push(("source-version".to_owned(), version.clone()));
    }
    if let Some(vendor) = &package.vendor {
        facts.push(("vendor".to_owned(), vendor.clone()));
    }
    let purl = Purl::of(package, distribution).to_string();
    let (group, name) = match (&package.ecosystem, package.name.rsplit_once([':', '/'])) {
        (ecosystem, Some((group, name))) if !ecosystem.is_os() => (Some(group), name),
        _ => (None, package.name.as_str()),
    };
    let mut component = json!({
        "type": "library", "bom-ref": reference, "name": name, "version": package.version,
        "purl": purl, "properties": properties(facts),
    });
    if let Value::Object(fields) = &mut component {
        if let Some(group) = group {
            fields.insert("group".to_owned(), Value::String(group.to_owned()));
        }
        if !package.licenses.is_empty() {
            let licenses: Vec<Value> =
                package.licenses.iter().map(|name| json!({"license": {"name": name}})).collect();
            fields.insert("licenses".to_owned(), Value::Array(licenses));
        }
    }
    component
}

fn kind_name(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::Database => "database",
        EvidenceKind::Installed => "installed",
        EvidenceKind::Binary => "binary",
        EvidenceKind::Declared => "declared",
        EvidenceKind::Sbom => "sbom",
    }
}

fn kind_of(name: &str) -> EvidenceKind {
    match name {
        "database" => EvidenceKind::Database,
        "installed" => EvidenceKind::Installed,
        "binary" => EvidenceKind::Binary,
        "declared" => EvidenceKind::Declared,
        _ => EvidenceKind::Sbom,
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    component: Option<Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    purl: Option<String>,
    #[serde(default)]
    licenses: Option<Vec<Value>>,
    #[serde(default)]
    properties: Vec<Property>,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Property {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

impl Component {
    fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|p| p.name == name).map(|p| p.value.as_str())
    }

    fn ours(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|p| p.name.strip_prefix(PREFIX) == Some(name))
            .map(|p| p.value.as_str())
    }

    fn all_ours(&self, name: &str) -> Vec<String> {
        self.properties
            .iter()
            .filter(|p| p.name.strip_prefix(PREFIX) == Some(name))
            .map(|p| p.value.clone())
            .collect()
    }
}

/// Reads a document of any 1.x version: brig's own wholly, those of Trivy and Syft with their
/// properties, others by their package URLs.
///
/// # Errors
/// [`SbomError`].
pub fn read(bytes: &[u8]) -> Result<Inventory, SbomError> {
    let document: Document = serde_json::from_slice(bytes).map_err(SbomError::Json)?;
    let mut inventory = Inventory::empty();
    if let Some(subject) = &document.metadata.component {
        read_subject(subject, &mut inventory);
    }
    let mut known = None;
    let mut packages = Vec::new();
    // JSON's own bound on depth bounds this one.
    let mut waiting: Vec<&Component> = document.components.iter().collect();
    while let Some(component) = waiting.pop() {
        waiting.extend(&component.components);
        if component.kind == "operating-system" {
            known = Some(read_system(component));
            continue;
        }
        match &component.purl {
            Some(url) => match package_of(url, "") {
                Some((package, purl)) => packages.push((read_package(component, package), purl)),
                None => inventory.unread.push(unread(component, "its package URL is invalid")),
            },
            None if matches!(component.kind.as_str(), "library" | "framework" | "application")
                && component.version.is_some()
                && component.property("aquasecurity:trivy:Class").is_none() =>
            {
                inventory.unread.push(unread(component, "it has no package URL"));
            }
            None => {}
        }
    }
    finish(packages, known, inventory)
}

fn unread(component: &Component, reason: &str) -> Unread {
    let group = component.group.as_deref().map(|g| format!("{g}/")).unwrap_or_default();
    Unread {
        path: format!("{group}{}", component.name).chars().take(300).collect(),
        layer: None,
        reader: "cyclonedx".to_owned(),
        reason: reason.to_owned(),
    }
}

fn read_subject(subject: &Component, inventory: &mut Inventory) {
    let digest = |name: &str| subject.ours(name).and_then(|text| Digest::parse(text).ok());
    inventory.image.id = digest("image-id")
        .or_else(|| Digest::parse(subject.property("aquasecurity:trivy:ImageID")?).ok());
    inventory.image.manifest = digest("manifest");
    inventory.image.platform = subject.ours("platform").map(str::to_owned);
    inventory.image.names = subject.all_ours("name");
    for layer in subject.all_ours("layer") {
        if let Ok(diff_id) = Digest::parse(&layer) {
            let step = subject.ours(&format!("layer:{layer}:created-by")).map(str::to_owned);
            inventory.layers.push(Layer { diff_id, created_by: step, created: None, size: 0 });
        }
    }
    for note in subject.all_ours("unread") {
        if let Ok([path, layer, reader, reason]) = serde_json::from_str::<[String; 4]>(&note) {
            let layer = Digest::parse(&layer).ok();
            inventory.unread.push(Unread { path, layer, reader, reason });
        }
    }
}

fn read_system(component: &Component) -> Distribution {
    let mut known = distribution(&component.name, component.version.as_deref());
    let signs = component.all_ours("known-by");
    if !signs.is_empty() {
        known.version.clone_from(&component.version);
        known.known_by = signs;
        known.point_release = component.ours("point-release").map(str::to_owned);
    }
    let codename = component.ours("codename");
    let codename = codename.or_else(|| component.property("syft:distro:versionCodename"));
    known.codename = codename.map(str::to_owned);
    known.pretty_name = component.ours("pretty-name").map(str::to_owned);
    known.like = component.all_ours("like");
    known.contradicted_by = component.all_ours("contradicted-by");
    known
}

fn read_package(component: &Component, mut package: Package) -> Package {
    let text = |name: &str| component.ours(name).map(str::to_owned);
    if let Some(path) = text("evidence") {
        package.evidence.path = path;
        package.evidence.kind = kind_of(component.ours("evidence-kind").unwrap_or_default());
    } else if let Some(path) = component
        .property("aquasecurity:trivy:FilePath")
        .or_else(|| component.property("syft:location:0:path"))
    {
        package.evidence.path = path.trim_start_matches('/').to_owned();
    }
    package.layer = component
        .ours("layer")
        .or_else(|| component.property("aquasecurity:trivy:LayerDiffID"))
        .or_else(|| component.property("syft:location:0:layerID"))
        .and_then(|text| Digest::parse(text).ok());
    package.owned_by = text("owned-by");
    package.vendor = text("vendor");
    if component.ours("evidence").is_some() {
        package.source = text("source")
            .zip(text("source-version"))
            .map(|(name, version)| Source { name, version });
    } else if let Some(name) = component.property("aquasecurity:trivy:SrcName") {
        let part = |name: &str| component.property(name).unwrap_or_default();
        let mut version = part("aquasecurity:trivy:SrcVersion").to_owned();
        let release = part("aquasecurity:trivy:SrcRelease");
        if !release.is_empty() {
            version = format!("{version}-{release}");
        }
        let epoch = part("aquasecurity:trivy:SrcEpoch");
        if !epoch.is_empty() && epoch != "0" {
            version = format!("{epoch}:{version}");
        }
        package.source = Some(Source { name: name.to_owned(), version });
    }
    package.licenses = component
        .licenses
        .iter()
        .flatten()
        .filter_map(|entry| {
            let license = entry.get("license");
            let name = license.and_then(|l| l.get("name").or_else(|| l.get("id")));
            name.or_else(|| entry.get("expression"))?.as_str().map(str::to_owned)
        })
        .collect();
    package
}
