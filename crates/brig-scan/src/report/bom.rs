//! Bills of materials: CycloneDX with what is wrong, SPDX with what is there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Filter, Subject, pretty, sarif};
use crate::matching::{Finding, Status, Suppression};
use crate::sbom;
use crate::severity::Severity;

pub(super) fn spdx(subject: Subject<'_>) -> String {
    String::from_utf8_lossy(&sbom::spdx::write(subject.inventory)).into_owned()
}

pub(super) fn cyclonedx(subject: Subject<'_>, filter: &Filter) -> String {
    let mut document = sbom::cyclonedx::document(subject.inventory);
    let references = sbom::cyclonedx::references(subject.inventory);
    let mut flaws: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    // Suppressed ones are part of it: that is what `analysis` is for.
    let all = Filter { all: true, ..filter.clone() };
    for finding in subject.report.findings.iter().filter(|finding| all.shows(finding)) {
        flaws.entry(&finding.id).or_default().push(finding);
    }
    let vulnerabilities: Vec<Value> =
        flaws.into_iter().map(|(id, findings)| vulnerability(id, &findings, &references)).collect();
    if let Some(object) = document.as_object_mut() {
        object.insert("vulnerabilities".to_owned(), Value::Array(vulnerabilities));
    }
    pretty(&document)
}

fn vulnerability(id: &str, findings: &[&Finding], references: &[String]) -> Value {
    let affects: Vec<Value> = findings
        .iter()
        .filter_map(|finding| {
            let reference = references.get(finding.package)?;
            Some(json!({
                "ref": reference,
                "versions": [{"version": finding.evidence.version, "status": "affected"}],
            }))
        })
        .collect();
    let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or_default();
    let first = findings.first();
    let mut ratings = vec![json!({
        "source": {"name": first.map_or("", |finding| finding.severity_source.as_str())},
        "severity": band(severity),
    })];
    for vector in first.map(|finding| finding.vectors.as_slice()).unwrap_or_default() {
        let Some((score, severity)) = crate::severity::score(vector) else { continue };
        let method = match vector.get(..8) {
            Some("CVSS:4.0") => "CVSSv4",
            Some("CVSS:3.1") => "CVSSv31",
            Some("CVSS:3.0") => "CVSSv3",
            _ => "CVSSv2",
        };
        ratings.push(
            json!({"score": score, "severity": band(severity), "method": method, "vector": vector}),
        );
    }
    let mut value = json!({
        "bom-ref": format!("vulnerability:{id}"),
        "id": id,
        "source": {"name": if id.starts_with("CVE-") { "CVE" } else { "OSV" }, "url": sarif::address(id)},
        "references": first
            .map(|finding| finding.aliases.iter().map(|alias| json!({"id": alias, "source": {"url": sarif::address(alias)}})).collect::<Vec<_>>())
            .unwrap_or_default(),
        "ratings": ratings,
        "description": first.map_or("", |finding| finding.summary.as_str()),
        "affects": affects,
    });
    if let Some(object) = value.as_object_mut() {
        let mut fixes: Vec<String> = findings
            .iter()
            .filter_map(|finding| {
                Some(format!("Upgrade {} to {}", finding.evidence.matched, finding.fixed.as_ref()?))
            })
            .collect();
        fixes.sort_unstable();
        fixes.dedup();
        if !fixes.is_empty() {
            object.insert("recommendation".to_owned(), json!(fixes.join("; ")));
        }
        if let Some(analysis) = analysis(findings) {
            object.insert("analysis".to_owned(), analysis);
        }
    }
    value
}

/// Only what holds for all packages of the flaw can be said about the flaw.
fn analysis(findings: &[&Finding]) -> Option<Value> {
    if findings.iter().all(|finding| finding.suppressed.is_some()) {
        return match findings.first()?.suppressed.as_ref()? {
            Suppression::Ignore { reason, owner, expires } => Some(json!({
                "state": "in_triage",
                "detail": format!("exception of {owner} until {expires}: {reason}"),
            })),
            Suppression::Vex { status, reason, author } => Some(json!({
                "state": if status == "fixed" { "resolved" } else { "not_affected" },
                "detail": format!("{author}: {reason}"),
            })),
        };
    }
    let response = match findings.first()?.status {
        Status::Fixed => "update",
        Status::WillNotFix | Status::EndOfLife => "will_not_fix",
        Status::Affected | Status::UnderInvestigation | Status::FixDeferred => return None,
    };
    Some(json!({"response": [response]}))
}

fn band(severity: Severity) -> &'static str {
    match severity {
        Severity::Unknown => "unknown",
        Severity::Negligible => "info",
        other => other.as_str(),
    }
}
