//! OSV records (schema 1.x), as JSON or YAML, of every ecosystem.

use serde::Deserialize;
use serde_json::Value;

use super::{day, one_line};
use crate::db::{Collector, End, Flaw, Range, Row, SpaceName, State, Tier};
use crate::severity::Severity;
use crate::version::Scheme;

#[derive(Debug, Deserialize)]
pub(super) struct Record {
    id: String,
    #[serde(default)]
    modified: Option<String>,
    #[serde(default)]
    published: Option<String>,
    #[serde(default)]
    withdrawn: Option<String>,
    #[serde(default)]
    summary: Option<String>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    aliases: Option<Vec<String>>,
    #[serde(default)]
    upstream: Option<Vec<String>>,
    #[serde(default)]
    related: Option<Vec<String>>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
    #[serde(default)]
    severity: Option<Vec<Score>>,
    #[serde(default)]
    affected: Option<Vec<Affected>>,
    #[serde(default)]
    database_specific: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    #[serde(default)]
    url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Score {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    score: String,
}

#[derive(Debug, Deserialize)]
struct Affected {
    #[serde(default)]
    package: Option<Package>,
    #[serde(default)]
    ranges: Option<OneOrMany<Events>>,
    #[serde(default)]
    versions: Option<Vec<String>>,
    #[serde(default)]
    severity: Option<Vec<Score>>,
    #[serde(default)]
    ecosystem_specific: Option<Value>,
    #[serde(default)]
    database_specific: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Package {
    ecosystem: String,
    name: String,
}

/// Some publishers leave the list out where it has one member.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

#[derive(Debug, Deserialize)]
struct Events {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
    limit: Option<String>,
}

/// Announcements of changes that have nothing to do with security, unless they name a flaw.
const NOT_ABOUT_SECURITY: [&str; 4] = ["ALBA-", "ALEA-", "RHBA-", "RHEA-"];

pub(super) fn record(into: &mut Collector, record: Record) {
    into.counted(day(record
        .modified
        .as_deref()
        .or(record.published.as_deref())
        .unwrap_or_default()));
    // Livepatches are judged by the running kernel's module, of which an image has none.
    if record.withdrawn.is_some() || record.id.starts_with("LSN-") {
        return;
    }
    let affected = record.affected.as_deref().unwrap_or_default();
    let spaces: Vec<Option<SpaceName>> = affected
        .iter()
        .map(|a| a.package.as_ref().and_then(|package| SpaceName::of_osv(&package.ecosystem)))
        .collect();
    let os = spaces
        .iter()
        .flatten()
        .any(|space| matches!(space.scheme, Scheme::Dpkg | Scheme::Rpm | Scheme::Apk));
    let identity = Identity::of(&record, os);
    if identity.flaws.is_empty() {
        return;
    }
    facts(into, &record, &identity);
    for (affected, space) in affected.iter().zip(spaces) {
        if let (Some(space), Some(package)) = (space, &affected.package) {
            statement(into, &record, &identity, affected, &space, &package.name);
        }
    }
}

/// Which flaws a record is about.
struct Identity {
    flaws: Vec<String>,
    tier: Tier,
    malicious: bool,
}

impl Identity {
    fn of(record: &Record, os: bool) -> Self {
        let id = &record.id;
        let malicious = id.starts_with("MAL-");
        if !os {
            return Self { flaws: vec![id.clone()], tier: Tier::Notice, malicious };
        }
        // DEBIAN-CVE-2024-1, UBUNTU-CVE-…, ALPINE-CVE-…: one verdict about one flaw.
        if let Some(at) = id.find("CVE-") {
            let flaw = id.get(at..).unwrap_or(id).to_owned();
            return Self { flaws: vec![flaw], tier: Tier::Verdict, malicious };
        }
        let mut flaws: Vec<String> = [&record.aliases, &record.upstream, &record.related]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|other| other.starts_with("CVE-"))
            .cloned()
            .collect();
        if flaws.is_empty() && id.starts_with("ELA-") {
            flaws.extend(
                record
                    .references
                    .iter()
                    .flatten()
                    .filter_map(|reference| reference.url.as_deref()?.rsplit('/').next())
                    .filter(|last| last.starts_with("CVE-"))
                    .map(str::to_owned),
            );
        }
        flaws.sort_unstable();
        flaws.dedup();
        if flaws.is_empty() && !NOT_ABOUT_SECURITY.iter().any(|kind| id.starts_with(kind)) {
            flaws.push(id.clone());
        }
        Self { flaws, tier: Tier::Notice, malicious }
    }
}

fn facts(into: &mut Collector, record: &Record, identity: &Identity) {
    let vectors = record
        .severity
        .iter()
        .flatten()
        .filter(|score| score.kind.starts_with("CVSS"))
        .map(|score| score.score.clone())
        .collect();
    let summary = record
        .summary
        .as_deref()
        .filter(|s| !s.is_empty())
        .or(record.details.as_deref())
        .unwrap_or_default();
    let word = |value: &Value| value.get("severity").and_then(Value::as_str).map(Severity::of_word);
    let severity = record
        .database_specific
        .as_ref()
        .and_then(word)
        .filter(|severity| *severity != Severity::Unknown)
        .map(|severity| (severity, "GitHub"));
    // An announcement's score and words are about all of its flaws together.
    if let [flaw] = identity.flaws.as_slice() {
        into.flaw(
            flaw,
            Flaw {
                summary: one_line(summary),
                published: day(record.published.as_deref().unwrap_or_default()).to_owned(),
                vectors,
                severity: if identity.malicious {
                    Some((Severity::Critical, "OSV"))
                } else {
                    severity
                },
                base_score: None,
            },
        );
        if *flaw == record.id {
            for alias in record.aliases.iter().flatten() {
                into.alias(flaw, alias);
            }
        }
    }
}

fn statement(
    into: &mut Collector,
    record: &Record,
    identity: &Identity,
    affected: &Affected,
    space: &SpaceName,
    package: &str,
) {
    let groups: &[Events] = match &affected.ranges {
        Some(OneOrMany::Many(groups)) => groups,
        Some(OneOrMany::One(group)) => std::slice::from_ref(group),
        None => &[],
    };
    let mut ranges = Vec::new();
    for group in groups.iter().filter(|group| group.kind != "GIT") {
        walk(&group.events, space.scheme, &mut ranges);
    }
    // A version that is named and lies in a range already says nothing new.
    let mut single: Vec<&String> = affected
        .versions
        .iter()
        .flatten()
        .filter(|version| !ranges.iter().any(|range: &Range| range.contains(version, space.scheme)))
        .collect();
    single.sort_unstable();
    single.dedup();
    ranges.extend(single.into_iter().map(|version| Range::only(version)));
    if ranges.is_empty() {
        return;
    }
    let inner = |key: &str| {
        [&affected.ecosystem_specific, &affected.database_specific]
            .into_iter()
            .flatten()
            .find_map(|value| value.get(key).and_then(Value::as_str))
            .unwrap_or_default()
    };
    let urgency = inner("urgency").trim_end_matches('*');
    let stated = record
        .severity
        .iter()
        .flatten()
        .chain(affected.severity.iter().flatten())
        .find(|score| score.kind == "Ubuntu")
        .map(|score| Severity::of_word(&score.score));
    let severity = match (stated, urgency, inner("informational")) {
        (Some(severity), _, _) => severity,
        // Not a flaw but news: unmaintained, or a notice.
        (None, _, "unmaintained" | "notice") => Severity::Negligible,
        (None, "", _) => summary_severity(record.summary.as_deref().unwrap_or_default(), space),
        (None, urgency, _) => Severity::of_word(urgency),
    };
    let state = if urgency == "end-of-life" { State::EndOfLife } else { State::Affected };
    let name = space.normalise(package);
    for flaw in &identity.flaws {
        into.row(
            space,
            Row {
                package: name.clone(),
                flaw: flaw.clone(),
                advisory: record.id.clone(),
                tier: identity.tier,
                state,
                severity,
                ranges: ranges.clone(),
                module: module(record.summary.as_deref().unwrap_or_default(), space),
                note: String::new(),
                malicious: identity.malicious,
            },
        );
    }
}

/// Walks the events in the order of versions; what is open at the end stays open.
fn walk(events: &[Event], scheme: Scheme, ranges: &mut Vec<Range>) {
    enum Step<'a> {
        Introduced,
        Fixed(&'a str),
        Last(&'a str),
        Limit(&'a str),
    }
    let mut steps: Vec<(&str, Step<'_>)> = Vec::new();
    for event in events {
        if let Some(version) = &event.introduced {
            steps.push((if version == "0" { "" } else { version }, Step::Introduced));
        } else if let Some(version) = &event.fixed {
            steps.push((version, Step::Fixed(version)));
        } else if let Some(version) = &event.last_affected {
            steps.push((version, Step::Last(version)));
        } else if let Some(version) = event.limit.as_deref().filter(|limit| *limit != "*") {
            steps.push((version, Step::Limit(version)));
        }
    }
    steps.sort_by(|(a, _), (b, _)| match (a.is_empty(), b.is_empty()) {
        (false, false) => scheme.compare(a, b),
        (a, b) => b.cmp(&a),
    });
    let mut open: Option<&str> = None;
    for (version, step) in steps {
        let end = match step {
            Step::Introduced => {
                open = open.or(Some(version));
                continue;
            }
            Step::Fixed(end) | Step::Limit(end) => End::Before(end.to_owned()),
            Step::Last(end) => End::With(end.to_owned()),
        };
        if let Some(from) = open.take() {
            ranges.push(Range { from: from.to_owned(), after: false, end });
        }
    }
    if let Some(from) = open {
        ranges.push(Range { from: from.to_owned(), after: false, end: End::Open });
    }
}

/// Red Hat's rebuilds say it in the title: `Important: openssl security update`.
fn summary_severity(summary: &str, space: &SpaceName) -> Severity {
    match summary.split_once(':') {
        Some((word, _)) if space.scheme == Scheme::Rpm => Severity::of_word(word),
        _ => Severity::Unknown,
    }
}

/// And the module stream as well: `Moderate: nodejs:14 security update`.
fn module(summary: &str, space: &SpaceName) -> String {
    let title = summary.split_once(": ").map_or("", |(_, title)| title);
    let word = title.split(' ').next().unwrap_or_default();
    match word.split_once(':') {
        Some((name, stream))
            if space.scheme == Scheme::Rpm && !name.is_empty() && !stream.is_empty() =>
        {
            word.to_owned()
        }
        _ => String::new(),
    }
}
