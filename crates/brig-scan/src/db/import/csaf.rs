//! CSAF advisories and VEX documents of Red Hat: which packages of which release are fixed, affected
//! or not.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{day, one_line};
use crate::db::{Collector, Flaw, Range, Row, SpaceName, State, Tier};
use crate::severity::Severity;
use crate::version::Scheme;

#[derive(Debug, Deserialize)]
struct Document {
    document: Meta,
    #[serde(default)]
    product_tree: Tree,
    #[serde(default)]
    vulnerabilities: Vec<Vulnerability>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(default)]
    category: String,
    #[serde(default)]
    tracking: Tracking,
}

#[derive(Debug, Default, Deserialize)]
struct Tracking {
    #[serde(default)]
    id: String,
    #[serde(default)]
    current_release_date: String,
}

#[derive(Debug, Default, Deserialize)]
struct Tree {
    #[serde(default)]
    branches: Vec<Branch>,
    #[serde(default)]
    relationships: Vec<Relationship>,
}

#[derive(Debug, Deserialize)]
struct Branch {
    #[serde(default)]
    branches: Vec<Branch>,
    product: Option<Product>,
}

#[derive(Debug, Deserialize)]
struct Product {
    product_id: String,
    #[serde(default)]
    product_identification_helper: Helper,
}

#[derive(Debug, Default, Deserialize)]
struct Helper {
    cpe: Option<String>,
    purl: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Relationship {
    full_product_name: FullName,
    product_reference: String,
    relates_to_product_reference: String,
}

#[derive(Debug, Deserialize)]
struct FullName {
    product_id: String,
}

#[derive(Debug, Deserialize)]
struct Vulnerability {
    #[serde(default)]
    cve: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    release_date: Option<String>,
    #[serde(default)]
    product_status: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    scores: Vec<Scores>,
    #[serde(default)]
    threats: Vec<Remark>,
    #[serde(default)]
    remediations: Vec<Remark>,
}

#[derive(Debug, Deserialize)]
struct Scores {
    cvss_v3: Option<Cvss>,
    cvss_v4: Option<Cvss>,
}

#[derive(Debug, Deserialize)]
struct Cvss {
    #[serde(rename = "vectorString")]
    vector: String,
}

#[derive(Debug, Deserialize)]
struct Remark {
    #[serde(default)]
    category: String,
    #[serde(default)]
    details: String,
    #[serde(default)]
    product_ids: Vec<String>,
}

/// Deepest tree of products that is walked.
const MAX_DEPTH: u32 = 32;

/// False for CSAF documents of publishers whose products are not known here.
pub(super) fn advisory(into: &mut Collector, bytes: &[u8]) -> Result<bool, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !document.document.category.starts_with("csaf_") {
        return Ok(false);
    }
    into.counted(day(&document.document.tracking.current_release_date));
    let products = Products::of(&document.product_tree);
    let verdict = document.document.category == "csaf_vex";
    for vulnerability in &document.vulnerabilities {
        let Some(flaw) = vulnerability.cve.as_deref() else { continue };
        let vectors = vulnerability
            .scores
            .iter()
            .flat_map(|scores| [&scores.cvss_v3, &scores.cvss_v4])
            .flatten()
            .map(|cvss| cvss.vector.clone());
        let mut vectors: Vec<String> = vectors.collect();
        vectors.sort_unstable();
        vectors.dedup();
        into.flaw(
            flaw,
            Flaw {
                summary: one_line(vulnerability.title.as_deref().unwrap_or_default()),
                published: day(vulnerability.release_date.as_deref().unwrap_or_default())
                    .to_owned(),
                vectors,
                ..Flaw::default()
            },
        );
        rows(into, &document.document.tracking.id, verdict, flaw, vulnerability, &products);
    }
    Ok(true)
}

fn rows(
    into: &mut Collector,
    advisory: &str,
    verdict: bool,
    flaw: &str,
    vulnerability: &Vulnerability,
    products: &Products<'_>,
) {
    let severity = vulnerability
        .threats
        .iter()
        .find(|threat| threat.category == "impact")
        .map_or(Severity::Unknown, |threat| Severity::of_word(&threat.details));
    let mut found: BTreeMap<(String, String, String), Row> = BTreeMap::new();
    for (status, ids) in &vulnerability.product_status {
        for id in ids {
            let Some((release, package)) = products.resolve(id) else { continue };
            let mut row = Row {
                package: package.name.clone(),
                flaw: flaw.to_owned(),
                advisory: advisory.to_owned(),
                tier: if verdict { Tier::Verdict } else { Tier::Notice },
                severity,
                module: package.module.clone(),
                ranges: vec![Range::default()],
                ..Row::default()
            };
            match status.as_str() {
                "fixed" | "first_fixed" => match &package.version {
                    Some(version) => row.ranges = vec![Range::before(version)],
                    None => continue,
                },
                "known_affected" => {
                    let remark = vulnerability
                        .remediations
                        .iter()
                        .find(|remark| {
                            matches!(remark.category.as_str(), "no_fix_planned" | "none_available")
                                && remark.product_ids.iter().any(|product| product == id)
                        })
                        .map_or("", |remark| remark.details.as_str());
                    row.state = match remark {
                        "Will not fix" => State::WontFix,
                        "Fix deferred" => State::Deferred,
                        "Out of support scope" => State::EndOfLife,
                        _ => State::Affected,
                    };
                    row.note = one_line(remark);
                }
                "under_investigation" => row.state = State::UnderInvestigation,
                "known_not_affected" => {
                    row.state = State::NotAffected;
                    row.ranges.clear();
                }
                _ => continue,
            }
            let key = (release.clone(), row.package.clone(), row.module.clone());
            match found.get_mut(&key) {
                // Each architecture and minor stream is listed: the earliest fix of a release counts.
                Some(known) => *known = earlier(known.clone(), row),
                None => {
                    found.insert(key, row);
                }
            }
        }
    }
    for ((release, _, _), row) in found {
        into.row(&SpaceName { name: release, scheme: Scheme::Rpm }, row);
    }
}

fn earlier(a: Row, b: Row) -> Row {
    use crate::db::End;
    let fix = |row: &Row| match row.ranges.first().map(|range| &range.end) {
        Some(End::Before(version)) => Some(version.clone()),
        _ => None,
    };
    match (fix(&a), fix(&b)) {
        (Some(x), Some(y)) => {
            if Scheme::Rpm.compare(&y, &x).is_lt() {
                b
            } else {
                a
            }
        }
        (None, Some(_)) => b,
        (Some(_), None) => a,
        (None, None) => {
            if a.state <= b.state {
                a
            } else {
                b
            }
        }
    }
}

struct Package {
    name: String,
    version: Option<String>,
    module: String,
}

struct Products<'a> {
    releases: BTreeMap<&'a str, String>,
    packages: BTreeMap<&'a str, Package>,
    relations: BTreeMap<&'a str, (&'a str, &'a str)>,
}

impl<'a> Products<'a> {
    fn of(tree: &'a Tree) -> Self {
        let mut products = Self {
            releases: BTreeMap::new(),
            packages: BTreeMap::new(),
            relations: BTreeMap::new(),
        };
        for branch in &tree.branches {
            products.branch(branch, 0);
        }
        for relation in &tree.relationships {
            products.relations.insert(
                &relation.full_product_name.product_id,
                (&relation.relates_to_product_reference, &relation.product_reference),
            );
        }
        products
    }

    fn branch(&mut self, branch: &'a Branch, depth: u32) {
        if depth > MAX_DEPTH {
            return;
        }
        if let Some(product) = &branch.product {
            let helper = &product.product_identification_helper;
            if let Some(release) = helper.cpe.as_deref().and_then(release) {
                self.releases.insert(&product.product_id, release);
            } else if let Some(package) = helper.purl.as_deref().and_then(package) {
                self.packages.insert(&product.product_id, package);
            }
        }
        for inner in &branch.branches {
            self.branch(inner, depth + 1);
        }
    }

    /// The release and the package of a product, which stands for one part on another; modules put
    /// one more step in between.
    fn resolve(&self, id: &str) -> Option<(&String, &Package)> {
        let &(mut base, part) = self.relations.get(id)?;
        let package = self.packages.get(part)?;
        for _ in 0..2 {
            if let Some(release) = self.releases.get(base) {
                return Some((release, package));
            }
            base = self.relations.get(base)?.0;
        }
        None
    }
}

/// `cpe:/o:redhat:enterprise_linux:9::baseos` is `rhel:9`; update streams have fixes of their own
/// and are left out.
fn release(cpe: &str) -> Option<String> {
    let mut parts = cpe.split(':').skip(2);
    let (vendor, product, version) = (parts.next()?, parts.next()?, parts.next()?);
    if vendor != "redhat" || product != "enterprise_linux" {
        return None;
    }
    let major = version.split('.').next().filter(|major| !major.is_empty())?;
    Some(format!("rhel:{major}"))
}

fn package(purl: &str) -> Option<Package> {
    let purl = crate::purl::Purl::parse(purl).ok()?;
    if purl.kind != "rpm" || purl.qualifiers.get("arch").is_some_and(|arch| arch == "src") {
        return None;
    }
    let epoch = purl.qualifiers.get("epoch").filter(|epoch| *epoch != "0");
    let version = purl.version.map(|version| match epoch {
        Some(epoch) => format!("{epoch}:{version}"),
        None => version,
    });
    let module = purl.qualifiers.get("rpmmod").map(|module| stream(module)).unwrap_or_default();
    Some(Package { name: purl.name, version, module })
}

/// `nodejs:14:8040020210817133458:522a0ee4` is the stream `nodejs:14`.
fn stream(module: &str) -> String {
    module.split(':').take(2).collect::<Vec<_>>().join(":")
}
