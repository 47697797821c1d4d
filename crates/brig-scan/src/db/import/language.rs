//! Databases that languages keep in forms of their own: RustSec, the Ruby, PHP and Node working
//! groups'.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::one_line;
use crate::db::{Collector, End, Flaw, Range, Row, SpaceName};
use crate::severity::Severity;
use crate::version::{Interval, Scheme, Syntax, intervals};

#[derive(Debug, Deserialize)]
struct RustSec {
    advisory: RustAdvisory,
    #[serde(default)]
    versions: RustVersions,
}

#[derive(Debug, Deserialize)]
struct RustAdvisory {
    id: String,
    package: String,
    date: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    cvss: Option<String>,
    #[serde(default)]
    informational: Option<String>,
    #[serde(default)]
    withdrawn: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct RustVersions {
    #[serde(default)]
    patched: Vec<String>,
    #[serde(default)]
    unaffected: Vec<String>,
}

/// Markdown that begins with a block of TOML.
pub(super) fn rustsec(into: &mut Collector, text: &str) -> Result<(), String> {
    let rest = text.trim_start().strip_prefix("```toml").ok_or("it has no block of TOML")?;
    let (block, prose) = rest.split_once("\n```").ok_or("its block of TOML has no end")?;
    let RustSec { advisory, versions } =
        toml::from_str(block).map_err(|error| error.message().to_owned())?;
    into.counted(&advisory.date);
    if advisory.withdrawn.is_some() {
        return Ok(());
    }
    let title = prose.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let severity = match advisory.informational.as_deref() {
        Some("unmaintained" | "notice") => Severity::Negligible,
        _ => Severity::Unknown,
    };
    into.flaw(
        &advisory.id,
        Flaw {
            summary: one_line(title),
            published: advisory.date,
            vectors: advisory.cvss.into_iter().collect(),
            ..Flaw::default()
        },
    );
    for alias in &advisory.aliases {
        into.alias(&advisory.id, alias);
    }
    let good = versions.patched.iter().chain(&versions.unaffected);
    let ranges = all_but(good, Syntax::Cargo, Scheme::Semver)?;
    put(into, "cargo", Scheme::Semver, &advisory.package, &advisory.id, severity, ranges);
    Ok(())
}

#[derive(Debug, Deserialize)]
pub(super) struct RubySec {
    gem: String,
    #[serde(default)]
    cve: Option<String>,
    #[serde(default)]
    ghsa: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    date: Option<String>,
    #[serde(default)]
    cvss_v3: Option<f64>,
    #[serde(default)]
    patched_versions: Option<Vec<String>>,
    #[serde(default)]
    unaffected_versions: Option<Vec<String>>,
}

pub(super) fn rubysec(into: &mut Collector, path: &str, record: RubySec) -> Result<(), String> {
    let date = record.date.unwrap_or_default();
    into.counted(super::day(&date));
    let ids: Vec<String> = [
        record.cve.filter(|id| !id.is_empty()).map(|id| format!("CVE-{id}")),
        record.ghsa.filter(|id| !id.is_empty()).map(|id| format!("GHSA-{id}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".yml").to_owned();
    let id = ids.first().cloned().unwrap_or(stem);
    for alias in &ids {
        into.alias(&id, alias);
    }
    let score = record.cvss_v3.filter(|score| (0.0..=10.0).contains(score));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100
    let base_score = score.map(|score| (score * 10.0).round() as u8);
    into.flaw(
        &id,
        Flaw {
            summary: one_line(&record.title.unwrap_or_default()),
            published: date,
            base_score,
            ..Flaw::default()
        },
    );
    let good: Vec<String> =
        record.patched_versions.into_iter().chain(record.unaffected_versions).flatten().collect();
    let ranges = all_but(good.iter(), Syntax::Gem, Scheme::Gem)?;
    put(into, "gem", Scheme::Gem, &record.gem, &id, Severity::Unknown, ranges);
    Ok(())
}

#[derive(Debug, Deserialize)]
pub(super) struct Php {
    title: String,
    #[serde(default)]
    cve: Option<String>,
    branches: BTreeMap<String, PhpBranch>,
    reference: String,
}

#[derive(Debug, Deserialize)]
struct PhpBranch {
    #[serde(default)]
    versions: PhpVersions,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PhpVersions {
    Many(Vec<String>),
    One(String),
}

impl Default for PhpVersions {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

pub(super) fn friends_of_php(into: &mut Collector, path: &str, record: Php) -> Result<(), String> {
    into.counted("");
    let package =
        record.reference.strip_prefix("composer://").ok_or("it is about no Composer package")?;
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".yaml");
    let id = match record.cve.filter(|id| id.starts_with("CVE-")) {
        Some(id) => id,
        None => format!("{package}/{stem}"),
    };
    into.flaw(&id, Flaw { summary: one_line(&record.title), ..Flaw::default() });
    let mut ranges = Vec::new();
    for branch in record.branches.values() {
        let joined = match &branch.versions {
            PhpVersions::Many(versions) => versions.join(","),
            PhpVersions::One(version) => version.clone(),
        };
        let found = intervals(&joined, Syntax::Composer, Scheme::Composer)
            .map_err(|error| error.to_string())?;
        ranges.extend(found.into_iter().map(range));
    }
    let package = package.to_ascii_lowercase();
    put(into, "composer", Scheme::Composer, &package, &id, Severity::Unknown, ranges);
    Ok(())
}

#[derive(Debug, Deserialize)]
struct NodeAdvisory {
    id: Value,
    module_name: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    publish_date: Option<String>,
    #[serde(default)]
    cves: Option<Vec<String>>,
    #[serde(default)]
    vulnerable_versions: Option<String>,
    #[serde(default)]
    cvss_vector: Option<String>,
}

pub(super) fn npm_working_group(into: &mut Collector, bytes: &[u8]) -> Result<(), String> {
    let record: NodeAdvisory = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let date = record.publish_date.unwrap_or_default();
    into.counted(super::day(&date));
    let id = format!("NSWG-ECO-{}", record.id.to_string().trim_matches('"'));
    for alias in record.cves.iter().flatten().filter(|alias| alias.starts_with("CVE-")) {
        into.alias(&id, alias);
    }
    into.flaw(
        &id,
        Flaw {
            summary: one_line(&record.title.unwrap_or_default()),
            published: super::day(&date).to_owned(),
            vectors: record
                .cvss_vector
                .filter(|vector| vector.starts_with("CVSS:"))
                .into_iter()
                .collect(),
            ..Flaw::default()
        },
    );
    let Some(vulnerable) = record.vulnerable_versions else {
        return Err("it does not say which versions are affected".to_owned());
    };
    let found =
        intervals(&vulnerable, Syntax::Npm, Scheme::Semver).map_err(|error| error.to_string())?;
    let ranges = found.into_iter().map(range).collect();
    put(into, "npm", Scheme::Semver, &record.module_name, &id, Severity::Unknown, ranges);
    Ok(())
}

fn put(
    into: &mut Collector,
    space: &str,
    scheme: Scheme,
    package: &str,
    id: &str,
    severity: Severity,
    ranges: Vec<Range>,
) {
    if ranges.is_empty() {
        return;
    }
    let space = SpaceName { name: space.to_owned(), scheme };
    let row = Row {
        package: space.normalise(package),
        flaw: id.to_owned(),
        advisory: id.to_owned(),
        severity,
        ranges,
        ..Row::default()
    };
    into.row(&space, row);
}

fn range(interval: Interval) -> Range {
    let (from, after) =
        interval.from.map_or((String::new(), false), |bound| (bound.version, !bound.inclusive));
    let end = match interval.to {
        None => End::Open,
        Some(bound) if bound.inclusive => End::With(bound.version),
        Some(bound) => End::Before(bound.version),
    };
    Range { from, after, end }
}

/// The versions that none of the requirements allows.
fn all_but<'a>(
    requirements: impl Iterator<Item = &'a String>,
    syntax: Syntax,
    scheme: Scheme,
) -> Result<Vec<Range>, String> {
    let mut good = Vec::new();
    for requirement in requirements {
        good.extend(intervals(requirement, syntax, scheme).map_err(|error| error.to_string())?);
    }
    good.sort_by(|a, b| match (&a.from, &b.from) {
        (None, None) => std::cmp::Ordering::Equal,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (Some(_), None) => std::cmp::Ordering::Greater,
        (Some(a), Some(b)) => {
            scheme.compare(&a.version, &b.version).then_with(|| b.inclusive.cmp(&a.inclusive))
        }
    });
    let mut ranges = Vec::new();
    // Where the next gap starts; none once a good run has no end.
    let mut start = Some((String::new(), false));
    for interval in good {
        let Some((from, after)) = start.clone() else { break };
        if let Some(low) = &interval.from {
            let gap = from.is_empty() || {
                let order = scheme.compare(&from, &low.version);
                // From and up to the same version is a gap of that one when neither side has it.
                order.is_lt() || (order.is_eq() && !after && !low.inclusive)
            };
            if gap {
                let end = if low.inclusive {
                    End::Before(low.version.clone())
                } else {
                    End::With(low.version.clone())
                };
                ranges.push(Range { from: from.clone(), after, end });
            }
        }
        start = match interval.to {
            None => None,
            Some(high) => {
                let order = if from.is_empty() {
                    std::cmp::Ordering::Greater
                } else {
                    scheme.compare(&high.version, &from)
                };
                if order.is_gt() || (order.is_eq() && high.inclusive) {
                    Some((high.version, high.inclusive))
                } else {
                    Some((from, after))
                }
            }
        };
    }
    if let Some((from, after)) = start {
        ranges.push(Range { from, after, end: End::Open });
    }
    Ok(ranges)
}
