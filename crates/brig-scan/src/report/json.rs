//! Everything, for programs: the verdict, the doubts, and each finding with its package and evidence.

use serde_json::{Value, json};

use super::{Filter, Origin, Subject, pretty};
use crate::purl::Purl;

/// Grows with every change that a reader would notice.
const SCHEMA: u32 = 1;

pub(super) fn write(subject: Subject<'_>, filter: &Filter) -> String {
    let Subject { name, inventory, report } = subject;
    let findings: Vec<Value> = subject
        .shown(filter)
        .filter_map(|finding| {
            let package = inventory.packages.get(finding.package)?;
            let mut value = serde_json::to_value(finding).ok()?;
            let origin = Origin::of(inventory, package);
            value.as_object_mut()?.insert(
                "package".to_owned(),
                json!({
                    "name": package.name,
                    "version": package.version,
                    "purl": Purl::of(package, inventory.distribution.as_ref()).to_string(),
                    "path": package.evidence.path,
                    "layer": package.layer.as_ref().map(ToString::to_string),
                    "layer_number": origin.as_ref().map(|origin| origin.layer),
                    "step": origin.as_ref().map(|origin| origin.step.as_str()),
                    "base_image": origin.as_ref().map(|origin| origin.base),
                }),
            );
            Some(value)
        })
        .collect();
    let doubts: Vec<Value> = report
        .doubts
        .iter()
        .filter_map(|doubt| {
            let mut value = serde_json::to_value(doubt).ok()?;
            value.as_object_mut()?.insert("text".to_owned(), json!(doubt.to_string()));
            Some(value)
        })
        .collect();
    pretty(&json!({
        "schema": SCHEMA,
        "target": name,
        "image": inventory.image.id.as_ref().map(ToString::to_string),
        "distribution": inventory.distribution,
        "verdict": report.verdict,
        "doubts": doubts,
        "packages": inventory.packages.len(),
        "judged": report.judged,
        "unjudged": report.unjudged,
        "today": report.today,
        "database": report.database,
        "expired_exceptions": report.expired,
        "findings": findings,
    }))
}
