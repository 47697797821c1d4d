//! The table: one line for each upgrade, the most urgent first; below it what to do and what could
//! not be judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::origin::{Origin, base_layers, base_name};
use super::{Filter, Subject, plain};
use crate::db::os_spaces;
use crate::matching::{Finding, Report};
use crate::package::{Inventory, Package};
use crate::severity::Severity;
use crate::version::Scheme;

/// Ids that a line lists.
const LISTED: usize = 4;

/// What one upgrade ends, or what nothing ends.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) installed: &'a str,
    /// The version to upgrade to; none when there is no fix.
    pub(super) fixed: Option<String>,
    pub(super) severity: Severity,
    pub(super) findings: Vec<&'a Finding>,
    pub(super) binaries: Vec<&'a str>,
    pub(super) origin: Option<Origin>,
}

pub(super) fn write(subject: Subject<'_>, filter: &Filter) -> String {
    let Subject { name, inventory, report } = subject;
    let mut text = String::new();
    let _ = writeln!(text, "{}  {}", plain(name), plain(&described(inventory)));
    let _ =
        writeln!(text, "{}: {}", report.verdict.as_str().to_uppercase(), counts(report, filter));
    let lines = lines(inventory, subject.shown(filter));
    if !lines.is_empty() {
        let mut rows = vec![
            ["PACKAGE", "INSTALLED", "FIXED IN", "SEVERITY", "LAYER", "VULNERABILITIES"]
                .map(str::to_owned),
        ];
        rows.extend(lines.iter().map(row));
        text.push('\n');
        text.push_str(&align(&rows));
    }
    text.push_str(&advice(inventory, &lines));
    for doubt in &report.doubts {
        let _ = writeln!(text, "unknown: {}", plain(&doubt.to_string()));
    }
    for expired in &report.expired {
        let _ = writeln!(text, "exception over: {}", plain(expired));
    }
    if !lines.is_empty() {
        let _ = writeln!(
            text,
            "Why: brig scan explain {} {}",
            ids(&lines).next().unwrap_or("CVE"),
            plain(name)
        );
    }
    text
}

fn ids<'a>(lines: &'a [Line<'a>]) -> impl Iterator<Item = &'a str> {
    lines.iter().flat_map(|line| &line.findings).map(|finding| finding.id.as_str())
}

fn described(inventory: &Inventory) -> String {
    let distribution = inventory.distribution.as_ref().map(|distribution| {
        distribution
            .pretty_name
            .clone()
            .unwrap_or_else(|| distribution.qualifier().replacen('-', " ", 1))
    });
    let distribution = distribution.unwrap_or_else(|| "no distribution".to_owned());
    match inventory.packages.len() {
        1 => format!("({distribution}, 1 package)"),
        packages => format!("({distribution}, {packages} packages)"),
    }
}

/// `3 critical, 5 high, 12 fixable; 4 suppressed, 14 negligible not shown`.
pub(super) fn counts(report: &Report, filter: &Filter) -> String {
    let mut bands: BTreeMap<std::cmp::Reverse<Severity>, usize> = BTreeMap::new();
    let mut fixable = 0;
    for finding in report.findings.iter().filter(|finding| filter.counts(finding)) {
        *bands.entry(std::cmp::Reverse(finding.severity)).or_default() += 1;
        fixable += usize::from(finding.fixable());
    }
    let mut parts: Vec<String> =
        bands.iter().map(|(band, count)| format!("{count} {}", band.0)).collect();
    if parts.is_empty() {
        parts.push(format!("nothing found in {} packages", report.judged));
    } else {
        parts.push(format!("{fixable} with a fix"));
    }
    let exploited =
        report.findings.iter().filter(|f| filter.counts(f) && f.exploited.is_some()).count();
    if exploited > 0 {
        parts.push(format!("{exploited} known to be exploited"));
    }
    let mut hidden = Vec::new();
    let mut hide = |count: usize, what: &str| {
        if count > 0 {
            hidden.push(format!("{count} {what}"));
        }
    };
    let suppressed = report.findings.iter().filter(|finding| finding.suppressed.is_some()).count();
    let minor = report.findings.iter().filter(|f| f.suppressed.is_none() && f.is_minor()).count();
    let filtered = report.findings.iter().filter(|f| f.counts() && !filter.counts(f)).count();
    hide(filtered, "left out by the flags");
    if !filter.all {
        hide(suppressed, "suppressed");
        hide(minor, "negligible");
    }
    hide(report.unjudged, "packages not judged");
    let hidden =
        if hidden.is_empty() { String::new() } else { format!(" ({})", hidden.join(", ")) };
    format!("{}{hidden}", parts.join(", "))
}

/// Findings joined by the upgrade that ends them.
pub(super) fn lines<'a>(
    inventory: &'a Inventory,
    findings: impl Iterator<Item = &'a Finding>,
) -> Vec<Line<'a>> {
    let mut order: Vec<Line<'a>> = Vec::new();
    let mut places: BTreeMap<(&str, &str, &str, bool, Option<usize>), usize> = BTreeMap::new();
    for finding in findings {
        let Some(package) = inventory.packages.get(finding.package) else { continue };
        let origin = Origin::of(inventory, package);
        let evidence = &finding.evidence;
        let key = (
            evidence.space.as_str(),
            evidence.matched.as_str(),
            evidence.version.as_str(),
            finding.fixable(),
            origin.as_ref().map(|origin| origin.layer),
        );
        let place = *places.entry(key).or_insert_with(|| {
            order.push(Line {
                name: &evidence.matched,
                installed: &evidence.version,
                fixed: None,
                severity: finding.severity,
                findings: Vec::new(),
                binaries: Vec::new(),
                origin,
            });
            order.len() - 1
        });
        if let Some(line) = order.get_mut(place) {
            line.add(finding, package, scheme(&evidence.space));
        }
    }
    order
}

impl<'a> Line<'a> {
    fn add(&mut self, finding: &'a Finding, package: &'a Package, scheme: Scheme) {
        self.severity = self.severity.max(finding.severity);
        if finding.fixable()
            && let Some(fixed) = &finding.fixed
            && self.fixed.as_ref().is_none_or(|known| scheme.compare(fixed, known).is_gt())
        {
            self.fixed = Some(fixed.clone());
        }
        if !self.findings.iter().any(|known| known.id == finding.id) {
            self.findings.push(finding);
        }
        if !self.binaries.contains(&package.name.as_str()) {
            self.binaries.push(&package.name);
        }
    }
}

/// The order of a space's versions, by its name.
fn scheme(space: &str) -> Scheme {
    match space.split(':').next().unwrap_or(space) {
        "debian" | "ubuntu" | "ubuntu-pro" => Scheme::Dpkg,
        "alpine" | "wolfi" | "chainguard" | "minimos" => Scheme::Apk,
        "npm" | "cargo" | "hex" | "pub" | "swift" => Scheme::Semver,
        "go" => Scheme::Go,
        "nuget" => Scheme::NuGet,
        "pypi" => Scheme::Pep440,
        "maven" => Scheme::Maven,
        "gem" => Scheme::Gem,
        "composer" => Scheme::Composer,
        _ => Scheme::Rpm,
    }
}

fn row(line: &Line<'_>) -> [String; 6] {
    let fixed = match &line.fixed {
        Some(fixed) => fixed.clone(),
        None => {
            let mut states: Vec<&str> = line
                .findings
                .iter()
                .map(|finding| {
                    if finding.subscription { "subscribers only" } else { finding.status.as_str() }
                })
                .collect();
            states.sort_unstable();
            states.dedup();
            format!("({})", states.join(", "))
        }
    };
    let layer = match &line.origin {
        Some(origin) if origin.base => format!("{} base", origin.layer),
        Some(origin) => origin.layer.to_string(),
        None => "-".to_owned(),
    };
    let mut ids: Vec<String> =
        line.findings.iter().take(LISTED).map(|finding| marked(finding)).collect();
    match line.findings.len().checked_sub(LISTED) {
        None | Some(0) => {}
        Some(more) => ids.push(format!("and {more} more")),
    }
    [
        plain(line.name),
        plain(line.installed),
        plain(&fixed),
        line.severity.to_string(),
        layer,
        ids.join(", "),
    ]
}

fn marked(finding: &Finding) -> String {
    let mut marks = Vec::new();
    if finding.exploited.is_some() {
        marks.push(if finding.ransomware { "exploited, ransomware" } else { "exploited" });
    }
    if finding.malicious {
        marks.push("malicious");
    }
    if finding.suppressed.is_some() {
        marks.push("suppressed");
    }
    let id = plain(&finding.id);
    if marks.is_empty() { id } else { format!("{id} ({})", marks.join(", ")) }
}

/// What to do, by who has to do it.
fn advice(inventory: &Inventory, lines: &[Line<'_>]) -> String {
    let mut text = String::new();
    let fixable = || lines.iter().filter(|line| line.fixed.is_some());
    let base =
        fixable().filter(|line| line.origin.as_ref().is_some_and(|origin| origin.base)).count();
    let own = fixable().count() - base;
    if base + own > 0 {
        text.push('\n');
    }
    if base > 0 {
        let image = base_name(inventory).unwrap_or("a newer base image");
        let layers = base_layers(inventory);
        let _ = writeln!(
            text,
            "Build on {} ({} upgrades are in its {layers} layers), or upgrade in a step of your own.",
            plain(image),
            base
        );
    }
    if own > 0 {
        let mut steps: BTreeMap<(usize, &str), Vec<String>> = BTreeMap::new();
        for line in fixable() {
            let (layer, step) = match &line.origin {
                Some(origin) if origin.base => continue,
                Some(origin) => (origin.layer, origin.step.as_str()),
                None => (0, ""),
            };
            let target = line.fixed.as_deref().unwrap_or_default();
            steps.entry((layer, step)).or_default().push(plain(&format!("{} {target}", line.name)));
        }
        for ((layer, step), upgrades) in steps {
            let place = if layer == 0 {
                "Upgrade".to_owned()
            } else {
                format!("Layer {layer} ({}): upgrade", plain(step))
            };
            let _ = writeln!(text, "{place} to {}", upgrades.join(", "));
        }
    }
    // Distributions bring their fixes by their own tool.
    let spaces = inventory.distribution.as_ref().map(os_spaces).unwrap_or_default();
    let os = fixable()
        .any(|line| line.findings.iter().any(|finding| spaces.contains(&finding.evidence.space)));
    let tool = spaces.first().and_then(|space| match scheme(space) {
        Scheme::Dpkg => Some("apt-get update && apt-get upgrade"),
        Scheme::Apk => Some("apk upgrade"),
        Scheme::Rpm => Some("dnf upgrade"),
        _ => None,
    });
    if let (true, Some(tool)) = (os, tool) {
        let _ = writeln!(text, "The distribution's fixes come with: {tool}");
    }
    text
}

pub(super) fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
