//! Why an image has a flaw, or why it has not: the records, the rule and the file behind it.

use std::fmt::Write as _;

use super::{Origin, Subject, plain};
use crate::db::{DbError, Index, State, language_space, os_spaces};
use crate::matching::Suppression;
use crate::package::{Inventory, Package};

/// A text about one flaw in one image.
///
/// # Errors
/// [`DbError::Damaged`] when the database is.
pub fn explain(index: &Index, subject: Subject<'_>, id: &str) -> Result<String, DbError> {
    let mut text = String::new();
    let Some(number) = index.find(id)? else {
        return Ok(format!(
            "{}: no feed of the database names it. Look at their age with: brig scan db status\n",
            plain(id)
        ));
    };
    let flaw = index.vulnerability(number)?;
    let _ = writeln!(text, "{}  {}", flaw.id, plain(flaw.summary));
    if !flaw.aliases.is_empty() {
        let _ = writeln!(text, "Also named: {}", flaw.aliases.join(", "));
    }
    if !flaw.published.is_empty() {
        let _ = writeln!(text, "Published: {}", flaw.published);
    }
    let score = flaw.score.map(|score| format!(", score {score:.1}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "Severity: {} ({}{score})",
        flaw.severity,
        if flaw.severity_source.is_empty() { "nobody says" } else { flaw.severity_source }
    );
    for vector in flaw.vectors.iter().filter(|vector| !vector.is_empty()) {
        let _ = writeln!(text, "  {vector}");
    }
    if let Some(kev) = flaw.kev {
        let _ = writeln!(
            text,
            "Exploited: in CISA's catalogue since {}, to be dealt with by {}{}",
            kev.added,
            kev.due,
            if kev.ransomware { ", used by ransomware" } else { "" }
        );
    }
    if let Some((probability, percentile)) = flaw.epss {
        let _ = writeln!(
            text,
            "EPSS: {:.1}% within 30 days (above {:.0}% of all)",
            probability * 100.0,
            percentile * 100.0
        );
    }
    let (name, inventory, report) = (subject.name, subject.inventory, subject.report);
    let mut found = false;
    for finding in report.findings.iter().filter(|finding| finding.id == flaw.id) {
        let Some(package) = inventory.packages.get(finding.package) else { continue };
        found = true;
        let _ = writeln!(
            text,
            "\n{} has it: {} {}",
            plain(name),
            plain(&package.name),
            plain(&package.version)
        );
        place(&mut text, inventory, package);
        let evidence = &finding.evidence;
        let _ = writeln!(
            text,
            "  judged as {} {} of {}",
            plain(&evidence.matched),
            plain(&evidence.version),
            evidence.space
        );
        let _ = writeln!(
            text,
            "  rule: {} ({}; {})",
            plain(&evidence.rule),
            finding.advisories.join(", "),
            evidence.feeds.join(", ")
        );
        let note = if finding.note.is_empty() {
            String::new()
        } else {
            format!(": {}", plain(&finding.note))
        };
        match &finding.fixed {
            Some(fixed) if finding.subscription => {
                let _ = writeln!(text, "  fixed in {} for subscribers (Ubuntu Pro)", plain(fixed));
            }
            Some(fixed) => {
                let _ = writeln!(text, "  upgrade to {}", plain(fixed));
            }
            None => {
                let _ = writeln!(text, "  {}{note}", finding.status.as_str());
            }
        }
        let _ =
            writeln!(text, "  severity here: {} ({})", finding.severity, finding.severity_source);
        match &finding.suppressed {
            Some(Suppression::Ignore { reason, owner, expires }) => {
                let _ = writeln!(
                    text,
                    "  not counted until {expires}: {} (owner {})",
                    plain(reason),
                    plain(owner)
                );
            }
            Some(Suppression::Vex { status, reason, author }) => {
                let _ = writeln!(
                    text,
                    "  not counted: {} says {} ({})",
                    plain(author),
                    plain(status),
                    plain(reason)
                );
            }
            None => {}
        }
    }
    if !found {
        let _ = writeln!(text, "\n{} does not have it.", plain(name));
        for (package, reason) in why_not(index, inventory, number)? {
            let _ = writeln!(
                text,
                "  {} {}: {}",
                plain(&package.name),
                plain(&package.version),
                plain(&reason)
            );
        }
        for doubt in &report.doubts {
            let _ = writeln!(text, "  but: {}", plain(&doubt.to_string()));
        }
    }
    Ok(text)
}

fn place(text: &mut String, inventory: &Inventory, package: &Package) {
    let _ = writeln!(text, "  proved by {}", plain(&package.evidence.path));
    if let Some(origin) = Origin::of(inventory, package) {
        let _ = writeln!(
            text,
            "  layer {}{}: {}",
            origin.layer,
            if origin.base { " (base image)" } else { "" },
            plain(&origin.step)
        );
    }
}

/// Packages that the flaw's records speak about, and why they are not affected.
fn why_not<'a>(
    index: &Index,
    inventory: &'a Inventory,
    flaw: usize,
) -> Result<Vec<(&'a Package, String)>, DbError> {
    let mut reasons = Vec::new();
    let os = inventory.distribution.as_ref().map(os_spaces).unwrap_or_default();
    for package in &inventory.packages {
        let spaces: Vec<&str> = match language_space(package.ecosystem) {
            Some(space) => vec![space],
            None => os.iter().map(String::as_str).collect(),
        };
        let source =
            package.source.as_ref().map_or(package.name.as_str(), |source| source.name.as_str());
        for space in spaces {
            let Some(space) = index.space(space)? else { continue };
            let mut names = vec![source];
            if source != package.name {
                names.push(&package.name);
            }
            for name in names {
                for row in space.rows(name, &mut 0)?.into_iter().filter(|row| row.flaw == flaw) {
                    let fixed = index.intervals(&row)?.iter().filter_map(|i| i.fixed()).next_back();
                    let reason = match (&package.owned_by, row.state, fixed) {
                        (Some(owner), _, _) => {
                            format!("owned by {owner}, which the distribution's advisories judge")
                        }
                        (None, State::NotAffected, _) => {
                            format!("{} says it is not affected {}", space.name, row.note)
                        }
                        (None, _, Some(fixed)) => {
                            format!("fixed in {fixed} by {} order", space.scheme.name())
                        }
                        (None, _, None) => "its version is outside of the affected ones".to_owned(),
                    };
                    reasons.push((package, reason));
                }
            }
        }
    }
    reasons.dedup();
    Ok(reasons)
}
