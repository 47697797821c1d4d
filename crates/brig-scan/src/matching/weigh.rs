//! One flaw in one package: whether the version has it, what can be done, and by which rule.

use super::remember::Asked;
use super::{Details, Evidence, Status};
use crate::db::{DbError, Index, IndexRow, Interval, Space, State};
use crate::package::{Ecosystem, Package};
use crate::severity::Severity;

/// What a space's statements about one flaw mean for a package; none when it does not have it.
pub(super) fn weigh(
    index: &Index,
    space: &Space<'_>,
    package: &Package,
    asked: Asked<'_>,
    rows: &[IndexRow<'_>],
) -> Result<Option<Details>, DbError> {
    let mut hits: Vec<(&IndexRow<'_>, Interval<'_>)> = Vec::new();
    for row in rows {
        if row.state == State::NotAffected {
            continue;
        }
        for interval in index.intervals(row)? {
            if same_module(package, row, &interval)
                && interval.contains(asked.version, space.scheme)
            {
                hits.push((row, interval));
                break;
            }
        }
    }
    let Some(hit) = hits.first().copied() else { return Ok(None) };
    let first = hit.0;
    // All that speak about it must be satisfied.
    let deciding = hits
        .iter()
        .filter_map(|(_, interval)| interval.fixed().map(|fixed| (fixed, interval)))
        .max_by(|(a, _), (b, _)| space.scheme.compare(a, b));
    let flaw = index.vulnerability(first.flaw)?;
    let (status, rule) = match deciding {
        Some((fixed, _)) => {
            (Status::Fixed, format!("{} < {fixed} by {} order", asked.version, space.scheme.name()))
        }
        None => {
            let (row, interval) = hits.iter().min_by_key(|(row, _)| row.state).unwrap_or(&hit);
            let rule = match interval.end {
                Some((end, _)) if end == interval.from => {
                    format!("{} is listed as affected", asked.version)
                }
                Some((end, _)) => {
                    format!("{} <= {end} by {} order", asked.version, space.scheme.name())
                }
                None if interval.from.is_empty() => "every version is affected".to_owned(),
                None => format!(
                    "{} >= {} by {} order",
                    asked.version,
                    interval.from,
                    space.scheme.name()
                ),
            };
            let status = match row.state {
                State::Affected | State::NotAffected => Status::Affected,
                State::UnderInvestigation => Status::UnderInvestigation,
                State::Deferred => Status::FixDeferred,
                State::WontFix => Status::WillNotFix,
                State::EndOfLife => Status::EndOfLife,
            };
            (status, rule)
        }
    };
    let own = hits.iter().map(|(row, _)| row.severity).max().unwrap_or_default();
    let (severity, source) = match own {
        Severity::Unknown => (flaw.severity, flaw.severity_source.to_owned()),
        own => (own, space.name.split(':').next().unwrap_or(space.name).to_owned()),
    };
    let mut advisories: Vec<String> = hits.iter().map(|(row, _)| row.advisory.to_owned()).collect();
    advisories.sort_unstable();
    advisories.dedup();
    let mut feeds: Vec<String> = hits
        .iter()
        .filter_map(|(row, _)| Some(index.feeds().get(row.feed)?.name.clone()))
        .collect();
    feeds.sort_unstable();
    feeds.dedup();
    Ok(Some(Details {
        id: flaw.id.to_owned(),
        aliases: flaw.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        advisories,
        summary: flaw.summary.to_owned(),
        published: flaw.published.to_owned(),
        severity,
        severity_source: source,
        score: flaw.score,
        vectors: flaw.vectors.iter().filter(|v| !v.is_empty()).map(|v| (*v).to_owned()).collect(),
        status,
        fixed: deciding.map(|(fixed, _)| fixed.to_owned()),
        subscription: false,
        note: hits
            .iter()
            .map(|(row, _)| row.note)
            .find(|note| !note.is_empty())
            .unwrap_or_default()
            .to_owned(),
        exploited: flaw.kev.map(|kev| kev.added.to_owned()),
        ransomware: flaw.kev.is_some_and(|kev| kev.ransomware),
        epss: flaw.epss.map(|(probability, _)| probability),
        malicious: hits.iter().any(|(row, _)| row.malicious),
        evidence: Evidence {
            space: space.name.to_owned(),
            matched: asked.name.to_owned(),
            version: asked.version.to_owned(),
            rule,
            feeds,
        },
    }))
}

/// Modular rpms are compared within their stream only.
fn same_module(package: &Package, row: &IndexRow<'_>, interval: &Interval<'_>) -> bool {
    if package.ecosystem != Ecosystem::Rpm {
        return true;
    }
    let modular = |version: &str| version.contains(".module");
    let stated = !row.module.is_empty() && interval.fixed().is_none_or(modular);
    match (&package.module, stated || interval.fixed().is_some_and(modular)) {
        (_, false) => package.module.is_none() && !modular(&package.version),
        (None, true) => modular(&package.version),
        (Some(own), true) => {
            let mut own = own.split(':');
            let (name, stream) = (own.next(), own.next());
            match row.module.split_once(':') {
                // One announcement can be about several modules and its title names the first.
                Some((stated, wanted)) if Some(stated) == name => stream == Some(wanted),
                _ => true,
            }
        }
    }
}
