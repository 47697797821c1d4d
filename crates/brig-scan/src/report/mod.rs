//! Reports: for people (table, HTML, explanations, differences) and for programs (JSON, SARIF, bills
//! of materials with vulnerabilities). The same report gives the same bytes.

mod bom;
mod diff;
mod explain;
mod html;
mod json;
mod origin;
mod sarif;
mod table;

use std::collections::BTreeSet;
use std::str::FromStr;

pub use diff::diff;
pub use explain::explain;
pub use origin::Origin;

use crate::matching::{Finding, Report};
use crate::package::Inventory;
use crate::severity::Severity;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// Everything, for programs.
    Json,
    /// For code-scanning sites.
    Sarif,
    /// CycloneDX 1.6 with vulnerabilities.
    CycloneDx,
    /// SPDX 2.3.
    Spdx,
    /// One page without scripts.
    Html,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "table" => Self::Table,
            "json" => Self::Json,
            "sarif" => Self::Sarif,
            "cyclonedx" => Self::CycloneDx,
            "spdx" | "spdx-json" => Self::Spdx,
            "html" => Self::Html,
            other => {
                return Err(format!(
                    "unknown format {other:?}: use table, json, sarif, cyclonedx, spdx or html"
                ));
            }
        })
    }
}

/// Which findings a report shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Bands; none for all.
    pub severities: BTreeSet<Severity>,
    /// Leave out what nobody can fix by an upgrade.
    pub ignore_unfixed: bool,
    /// Show suppressed and negligible ones as well.
    pub all: bool,
}

impl Filter {
    /// Whether a finding is shown.
    #[must_use]
    pub fn shows(&self, finding: &Finding) -> bool {
        (self.severities.is_empty() || self.severities.contains(&finding.severity))
            && (!self.ignore_unfixed || finding.fixable())
            && (self.all || (finding.suppressed.is_none() && !finding.is_minor()))
    }

    /// Whether a finding is shown and counts: what an exit status is about.
    #[must_use]
    pub fn counts(&self, finding: &Finding) -> bool {
        finding.counts() && self.shows(finding)
    }
}

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The name that was asked for: an image or a file.
    pub name: &'a str,
    /// What is in it.
    pub inventory: &'a Inventory,
    /// What is wrong with it.
    pub report: &'a Report,
}

impl<'a> Subject<'a> {
    fn shown(&self, filter: &'a Filter) -> impl Iterator<Item = &'a Finding> {
        self.report.findings.iter().filter(|finding| filter.shows(finding))
    }
}

/// Writes a report.
#[must_use]
pub fn write(subject: Subject<'_>, filter: &Filter, format: Format) -> String {
    match format {
        Format::Table => table::write(subject, filter),
        Format::Json => json::write(subject, filter),
        Format::Sarif => sarif::write(subject, filter),
        Format::CycloneDx => bom::cyclonedx(subject, filter),
        Format::Spdx => bom::spdx(subject),
        Format::Html => html::write(subject, filter),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Text of images and feeds must not move the cursor or change the colours of a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
