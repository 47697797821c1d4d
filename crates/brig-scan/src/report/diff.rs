//! What changed between two images: what is new, what is gone, what stays.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::align;
use super::{Filter, Subject, plain};
use crate::matching::Finding;

/// A text about the differences between two reports, and whether the second has what the first has
/// not.
#[must_use]
pub fn diff(old: Subject<'_>, new: Subject<'_>, filter: &Filter) -> (String, bool) {
    let (before, after) = (by_name(old, filter), by_name(new, filter));
    let only =
        |of: &BTreeMap<Key, &Finding>, other: &BTreeMap<Key, &Finding>| -> Vec<[String; 5]> {
            let mut rows: Vec<(_, [String; 5])> = of
                .iter()
                .filter(|(key, _)| !other.contains_key(*key))
                .map(|((id, name), finding)| {
                    let fixed = finding
                        .fixed
                        .clone()
                        .unwrap_or_else(|| format!("({})", finding.status.as_str()));
                    let cells = [
                        id.as_str(),
                        name,
                        &finding.evidence.version,
                        &fixed,
                        finding.severity.as_str(),
                    ];
                    (std::cmp::Reverse(finding.severity), cells.map(plain))
                })
                .collect();
            rows.sort();
            rows.into_iter().map(|(_, row)| row).collect()
        };
    let (added, removed) = (only(&after, &before), only(&before, &after));
    let mut text = format!(
        "{} → {}: {} new, {} gone, {} stay; {} → {}\n",
        plain(old.name),
        plain(new.name),
        added.len(),
        removed.len(),
        after.len() - added.len(),
        old.report.verdict.as_str(),
        new.report.verdict.as_str(),
    );
    for (title, rows) in [("NEW", &added), ("GONE", &removed)] {
        if !rows.is_empty() {
            let mut table =
                vec![[title, "PACKAGE", "VERSION", "FIXED IN", "SEVERITY"].map(str::to_owned)];
            table.extend(rows.iter().cloned());
            let _ = write!(text, "\n{}", align(&table));
        }
    }
    for doubt in &new.report.doubts {
        let _ = writeln!(text, "unknown: {}", plain(&doubt.to_string()));
    }
    (text, !added.is_empty())
}

type Key = (String, String);

fn by_name<'a>(subject: Subject<'a>, filter: &'a Filter) -> BTreeMap<Key, &'a Finding> {
    subject
        .report
        .findings
        .iter()
        .filter(|finding| filter.counts(finding))
        .map(|finding| ((finding.id.clone(), finding.evidence.matched.clone()), finding))
        .collect()
}
