//! Ubuntu's CVE tracker: one text file a flaw.

use super::{day, one_line};
use crate::db::space::ubuntu_release;
use crate::db::{Collector, Flaw, Range, Row, SpaceName, State, Tier};
use crate::severity::Severity;
use crate::version::Scheme;

pub(super) fn tracker(into: &mut Collector, text: &str) -> Result<(), String> {
    let mut flaw = "";
    let mut facts = Flaw::default();
    let mut priority = Severity::Unknown;
    let mut section = "";
    let mut statuses: Vec<(&str, &str, &str)> = Vec::new();
    for line in text.lines() {
        if line.starts_with(char::is_whitespace) {
            match section {
                "Description" if facts.summary.len() < super::MAX_TEXT => {
                    facts.summary.push(' ');
                    facts.summary.push_str(line.trim());
                }
                "CVSS" => {
                    if let Some(at) = line.find("CVSS:") {
                        let vector = line.get(at..).unwrap_or_default().split_whitespace().next();
                        facts.vectors.extend(vector.map(str::to_owned));
                    }
                }
                _ => {}
            }
            continue;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        section = key;
        match key {
            "Candidate" => flaw = value,
            "PublicDate" => day(value).clone_into(&mut facts.published),
            "Priority" => {
                priority = Severity::of_word(value.split_whitespace().next().unwrap_or_default())
            }
            _ => {
                if let Some((release, source)) =
                    key.rsplit_once('_').filter(|(release, _)| !release.starts_with("Patches"))
                {
                    statuses.push((release, source, value));
                }
            }
        }
    }
    if !flaw.starts_with("CVE-") {
        return Err("it names no flaw".to_owned());
    }
    into.counted(&facts.published);
    facts.summary = one_line(&facts.summary);
    into.flaw(flaw, facts);
    for (release, source, status) in statuses {
        let Some(space) = space(release) else { continue };
        if let Some(row) = row(flaw, source, status, priority) {
            into.row(&space, row);
        }
    }
    Ok(())
}

/// `focal`, `trusty/esm`, `esm-apps/bionic`.
fn space(release: &str) -> Option<SpaceName> {
    let (family, codename) = match release.split_once('/') {
        None => ("ubuntu", release),
        Some((codename, "esm")) | Some(("esm-infra" | "esm-apps", codename)) => {
            ("ubuntu-pro", codename)
        }
        Some(_) => return None,
    };
    Some(SpaceName {
        name: format!("{family}:{}", ubuntu_release(codename)?),
        scheme: Scheme::Dpkg,
    })
}

fn row(flaw: &str, source: &str, status: &str, severity: Severity) -> Option<Row> {
    let (word, remark) = match status.split_once('(') {
        Some((word, remark)) => {
            (word.trim(), remark.trim_end().strip_suffix(')').unwrap_or(remark).trim())
        }
        None => (status, ""),
    };
    let mut row = Row {
        package: source.to_owned(),
        flaw: flaw.to_owned(),
        advisory: flaw.to_owned(),
        tier: Tier::Verdict,
        severity,
        ranges: vec![Range::default()],
        note: one_line(remark),
        ..Row::default()
    };
    match word {
        "released" | "released-esm" => {
            if remark.is_empty() || !remark.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            row.ranges = vec![Range::before(remark)];
            row.note.clear();
        }
        "needed" | "in-progress" | "pending" | "active" => {}
        "needs-triage" => row.state = State::UnderInvestigation,
        "deferred" => row.state = State::Deferred,
        "ignored" if remark.contains("end of life") || remark.contains("end-of-life") => {
            row.state = State::EndOfLife
        }
        "ignored" => row.state = State::WontFix,
        "not-affected" => {
            row.state = State::NotAffected;
            row.ranges.clear();
        }
        _ => return None,
    }
    Some(row)
}
