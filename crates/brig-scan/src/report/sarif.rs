//! SARIF 2.1.0: one rule an id, one result a package.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Filter, Subject, pretty};
use crate::matching::Finding;
use crate::package::Package;
use crate::severity::Severity;

/// More results are refused by the sites that read them.
const MAX_RESULTS: usize = 25_000;

pub(super) fn write(subject: Subject<'_>, filter: &Filter) -> String {
    let Subject { name, inventory, .. } = subject;
    let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
    let mut results = Vec::new();
    for finding in subject.shown(filter).take(MAX_RESULTS) {
        let Some(package) = inventory.packages.get(finding.package) else { continue };
        rules.entry(&finding.id).or_insert_with(|| rule(finding));
        let fix = match &finding.fixed {
            Some(fixed) => format!("upgrade to {fixed}"),
            None => finding.status.as_str().to_owned(),
        };
        let mut result = json!({
            "ruleId": finding.id,
            "level": level(finding.severity),
            "message": {"text": format!("{} has {} ({fix})", installed(package), titled(finding))},
            "locations": [{
                "physicalLocation": {
                    "artifactLocation": {"uri": uri(&package.evidence.path)},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": format!("{name}: {}", package.name)}],
            }],
            "partialFingerprints": {
                "brig/v1": brig_pki::hash::hex(&brig_pki::hash::sha256(
                    format!("{}\0{}\0{}\0{}", finding.id, package.name, package.version, package.evidence.path).as_bytes(),
                )),
            },
        });
        if let (Some(_), Some(object)) = (&finding.suppressed, result.as_object_mut()) {
            object.insert("suppressions".to_owned(), json!([{"kind": "external"}]));
        }
        results.push(result);
    }
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "brig",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_values().collect::<Vec<_>>(),
            }},
            "results": results,
        }],
    }))
}

fn rule(finding: &Finding) -> Value {
    let score = finding.score.unwrap_or(match finding.severity {
        Severity::Critical => 9.5,
        Severity::High => 8.0,
        Severity::Medium => 5.5,
        Severity::Low => 2.0,
        Severity::Negligible | Severity::Unknown => 0.0,
    });
    json!({
        "id": finding.id,
        "shortDescription": {"text": if finding.summary.trim().is_empty() { &finding.id } else { &finding.summary }},
        "helpUri": address(&finding.id),
        "properties": {"security-severity": format!("{score:.1}"), "tags": ["security", "vulnerability"]},
    })
}

/// A package and its version, where it says one.
fn installed(package: &Package) -> String {
    match package.version.as_str() {
        "" => package.name.clone(),
        version => format!("{} {version}", package.name),
    }
}

/// A flaw and its title; not every feed has one.
fn titled(finding: &Finding) -> String {
    match finding.summary.trim() {
        "" => finding.id.clone(),
        title => format!("{}: {title}", finding.id),
    }
}

/// Where a flaw is described.
pub(super) fn address(id: &str) -> String {
    if id.starts_with("CVE-") {
        format!("https://www.cve.org/CVERecord?id={id}")
    } else {
        format!("https://osv.dev/vulnerability/{id}")
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium | Severity::Unknown => "warning",
        Severity::Low | Severity::Negligible => "note",
    }
}

/// A relative URI: everything that is not unreserved is escaped.
fn uri(path: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
