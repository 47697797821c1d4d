//! OpenVEX: statements that a flaw does, or does not, apply to a product.

use serde::Deserialize;

use super::{Finding, Suppression};
use crate::package::ImageFacts;
use crate::purl::Purl;

/// Largest document that is read, in bytes.
const MAX_FILE: usize = 64 << 20;

/// The statements of all documents.
#[derive(Debug, Clone, Default)]
pub struct Vex {
    statements: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "@context")]
    context: String,
    #[serde(default)]
    author: String,
    #[serde(default)]
    timestamp: String,
    #[serde(default)]
    statements: Vec<RawStatement>,
}

#[derive(Debug, Deserialize)]
struct RawStatement {
    vulnerability: Named,
    #[serde(default)]
    products: Vec<Product>,
    status: String,
    #[serde(default)]
    justification: Option<String>,
    #[serde(default)]
    impact_statement: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    last_updated: Option<String>,
}

/// Older documents have a plain id in the vulnerability's place.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Full {
        #[serde(default)]
        name: String,
        #[serde(rename = "@id", default)]
        id: String,
        #[serde(default)]
        aliases: Vec<String>,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Product {
    Plain(String),
    Full(Component),
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Component {
    #[serde(rename = "@id", default)]
    id: String,
    #[serde(default)]
    identifiers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    subcomponents: Vec<Product>,
}

#[derive(Debug, Clone)]
struct Statement {
    names: Vec<String>,
    products: Vec<Component>,
    status: String,
    reason: String,
    author: String,
    time: String,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VexError {
    /// It is larger than what is read.
    #[error("the VEX document is larger than {MAX_FILE} bytes")]
    TooLarge,
    /// It is not OpenVEX.
    #[error("not an OpenVEX document: its context is {0:?}")]
    Foreign(String),
    /// It is malformed.
    #[error("the VEX document cannot be read")]
    Malformed(#[source] serde_json::Error),
}

impl Vex {
    /// Adds a document's statements.
    ///
    /// # Errors
    /// [`VexError`].
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), VexError> {
        if bytes.len() > MAX_FILE {
            return Err(VexError::TooLarge);
        }
        let document: Document = serde_json::from_slice(bytes).map_err(VexError::Malformed)?;
        if !document.context.starts_with("https://openvex.dev/ns") {
            return Err(VexError::Foreign(document.context));
        }
        for raw in document.statements {
            let mut names = match raw.vulnerability {
                Named::Plain(name) => vec![name],
                Named::Full { name, id, mut aliases } => {
                    aliases.push(name);
                    aliases.extend(id.rsplit('/').next().map(str::to_owned));
                    aliases
                }
            };
            names.retain(|name| !name.is_empty());
            let full = |product| match product {
                Product::Plain(id) => Component { id, ..Component::default() },
                Product::Full(component) => component,
            };
            self.statements.push(Statement {
                names,
                products: raw.products.into_iter().map(full).collect(),
                status: raw.status,
                reason: raw.justification.or(raw.impact_statement).unwrap_or_default(),
                author: document.author.clone(),
                time: raw
                    .last_updated
                    .or(raw.timestamp)
                    .unwrap_or_else(|| document.timestamp.clone()),
            });
        }
        // The newest wins; of equal ones the one that was read last.
        self.statements.sort_by(|a, b| a.time.cmp(&b.time));
        Ok(())
    }

    /// Whether there is no statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    pub(super) fn suppresses(
        &self,
        finding: &Finding,
        purl: &Purl,
        image: &ImageFacts,
    ) -> Option<Suppression> {
        let about = |name: &String| {
            *name == finding.id
                || finding.aliases.contains(name)
                || finding.advisories.contains(name)
        };
        let newest = self.statements.iter().rev().find(|statement| {
            statement.names.iter().any(about)
                && statement.products.iter().any(|product| concerns(product, purl, image))
        })?;
        matches!(newest.status.as_str(), "not_affected" | "fixed").then(|| Suppression::Vex {
            status: newest.status.clone(),
            reason: newest.reason.clone(),
            author: newest.author.clone(),
        })
    }
}

fn concerns(product: &Component, purl: &Purl, image: &ImageFacts) -> bool {
    let ids = || {
        std::iter::once(product.id.as_str()).chain(product.identifiers.values().map(String::as_str))
    };
    let inside = || {
        product.subcomponents.iter().any(|inner| match inner {
            Product::Plain(id) => names_package(id, purl),
            Product::Full(inner) => {
                names_package(&inner.id, purl)
                    || inner.identifiers.values().any(|id| names_package(id, purl))
            }
        })
    };
    if ids().any(|id| names_image(id, image)) {
        return product.subcomponents.is_empty() || inside();
    }
    product.subcomponents.is_empty() && ids().any(|id| names_package(id, purl))
}

/// Type, namespace and name must be the same; version and qualifiers where the statement has them.
fn names_package(id: &str, purl: &Purl) -> bool {
    let Ok(stated) = Purl::parse(id) else { return false };
    stated.kind == purl.kind
        && stated.namespace == purl.namespace
        && stated.name == purl.name
        && (stated.version.is_none() || stated.version == purl.version)
        && stated.qualifiers.iter().all(|(key, value)| purl.qualifiers.get(key) == Some(value))
}

/// `pkg:oci/name@sha256:…?repository_url=…`: by digest where there is one, else by repository.
fn names_image(id: &str, image: &ImageFacts) -> bool {
    let Ok(stated) = Purl::parse(id) else { return false };
    if stated.kind != "oci" && stated.kind != "docker" {
        return false;
    }
    if let Some(version) =
        stated.version.as_deref().filter(|version| version.starts_with("sha256:"))
    {
        return [&image.manifest, &image.id]
            .into_iter()
            .flatten()
            .any(|digest| digest.to_string() == version);
    }
    let repository = stated.qualifiers.get("repository_url").unwrap_or(&stated.name);
    image.names.iter().any(|name| {
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name.as_str(), None),
        };
        let same_tag = match (
            stated.version.as_deref().or(stated.qualifiers.get("tag").map(String::as_str)),
            tag,
        ) {
            (Some(stated), Some(tag)) => stated == tag,
            (Some(_), None) => false,
            (None, _) => true,
        };
        same_tag && (path == repository || path.ends_with(&format!("/{repository}")))
    })
}
