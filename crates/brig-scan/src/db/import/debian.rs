//! Debian's security tracker: its JSON, and the text lists that it is made of.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::one_line;
use crate::db::space::debian_release;
use crate::db::{Collector, End, Flaw, Range, Row, SpaceName, State, Tier};
use crate::severity::Severity;
use crate::version::Scheme;

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    description: Option<String>,
    releases: BTreeMap<String, Status>,
}

#[derive(Debug, Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    fixed_version: Option<String>,
    #[serde(default)]
    urgency: Option<String>,
    #[serde(default)]
    nodsa: Option<String>,
    #[serde(default)]
    nodsa_reason: Option<String>,
}

/// `{source: {CVE: {releases: {codename: …}}}}`. False when it is not that.
pub(super) fn tracker(into: &mut Collector, bytes: &[u8]) -> Result<bool, String> {
    let sources: BTreeMap<String, BTreeMap<String, Entry>> = match serde_json::from_slice(bytes) {
        Ok(sources) => sources,
        Err(error) if error.is_data() => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    for (source, flaws) in sources {
        for (flaw, entry) in flaws {
            into.counted("");
            if let Some(description) = &entry.description {
                into.flaw(&flaw, Flaw { summary: one_line(description), ..Flaw::default() });
            }
            for (release, status) in entry.releases {
                if let Some(row) = verdict(&source, &flaw, &status) {
                    into.row(&space(&release), row);
                }
            }
        }
    }
    Ok(true)
}

fn verdict(source: &str, flaw: &str, status: &Status) -> Option<Row> {
    let urgency = status.urgency.as_deref().unwrap_or_default().trim_end_matches('*');
    let mut row = Row {
        package: source.to_owned(),
        flaw: flaw.to_owned(),
        advisory: flaw.to_owned(),
        tier: Tier::Verdict,
        severity: Severity::of_word(urgency),
        note: one_line(status.nodsa.as_deref().unwrap_or_default()),
        ranges: vec![Range::default()],
        ..Row::default()
    };
    match (status.status.as_str(), status.fixed_version.as_deref()) {
        ("resolved", Some("0")) => {
            row.state = State::NotAffected;
            row.ranges.clear();
        }
        ("resolved", Some(fixed)) => row.ranges = vec![Range::before(fixed)],
        ("open", _) => {
            row.state = match (status.nodsa_reason.as_deref(), urgency) {
                (_, "end-of-life") => State::EndOfLife,
                (Some("ignored"), _) => State::WontFix,
                (Some("postponed"), _) => State::Deferred,
                _ => State::Affected,
            };
        }
        ("undetermined", _) => row.state = State::UnderInvestigation,
        _ => return None,
    }
    Some(row)
}

fn space(release: &str) -> SpaceName {
    let number = debian_release(release).unwrap_or(release);
    SpaceName { name: format!("debian:{number}"), scheme: Scheme::Dpkg }
}

/// Releases that inherit unstable's fix where `CVE/list` says nothing about them.
const INHERITING: [&str; 8] =
    ["stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid"];

/// Whether the text is a list of advisories (`[29 Mar 2023] DSA-…`) or of flaws (`CVE-2024-1 (…)`
/// with indented lines).
pub(super) fn is_list(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return false;
    };
    let starts = (first.starts_with('[') && first.contains("] D")) || first.starts_with("CVE-");
    starts && (second.starts_with('\t') || second.starts_with("    "))
}

/// The lists themselves.
pub(super) fn list(into: &mut Collector, text: &str) {
    let mut head = Head::default();
    let mut notes: Vec<Note<'_>> = Vec::new();
    for line in text.lines() {
        if line.starts_with(char::is_whitespace) {
            let line = line.trim();
            if let Some(flaws) = line.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                if head.notice {
                    head.flaws =
                        flaws.split_whitespace().filter(|id| id.starts_with("CVE-")).collect();
                }
            } else if let Some(note) = Note::parse(line) {
                notes.push(note);
            }
            continue;
        }
        put(into, &head, &notes);
        notes.clear();
        head = Head::parse(line);
        if !head.id.is_empty() {
            into.counted(&head.date);
        }
    }
    put(into, &head, &notes);
}

/// What an entry is about.
#[derive(Default)]
struct Head<'a> {
    id: &'a str,
    date: String,
    flaws: Vec<&'a str>,
    notice: bool,
}

impl<'a> Head<'a> {
    fn parse(line: &'a str) -> Self {
        if let Some((date, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            let id = rest.split(' ').next().unwrap_or_default();
            // A regression's update without flaws of its own fixes the update, not a flaw.
            let flaws = if rest.contains("security update") { vec![id] } else { Vec::new() };
            return Self { id, date: written_out(date), flaws, notice: true };
        }
        let id = line.split(' ').next().unwrap_or_default();
        if id.starts_with("CVE-") && !id.contains("XXXX") {
            return Self { id, date: String::new(), flaws: vec![id], notice: false };
        }
        Self::default()
    }
}

/// One line: a release (none is unstable), a source package, and a version or a word.
struct Note<'a> {
    release: Option<&'a str>,
    source: &'a str,
    version: &'a str,
    remark: &'a str,
}

impl<'a> Note<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (release, rest) = match line.strip_prefix('[') {
            Some(rest) => {
                let (release, rest) = rest.split_once(']')?;
                (Some(release), rest.trim_start())
            }
            None => (None, line),
        };
        let rest = rest.strip_prefix("- ")?;
        let (rest, remark) = match rest.split_once('(') {
            Some((rest, remark)) => (rest, remark.trim_end().strip_suffix(')').unwrap_or(remark)),
            None => (rest, ""),
        };
        let mut words = rest.split_whitespace();
        let (source, version) = (words.next()?, words.next()?);
        Some(Self { release, source, version, remark })
    }
}

fn put(into: &mut Collector, head: &Head<'_>, notes: &[Note<'_>]) {
    for flaw in &head.flaws {
        for note in notes {
            let releases: Vec<&str> = match note.release {
                Some(release) => vec![release],
                None if head.notice => vec!["sid"],
                None => INHERITING
                    .into_iter()
                    .filter(|release| {
                        !notes.iter().any(|n| n.source == note.source && n.release == Some(release))
                    })
                    .collect(),
            };
            for release in releases {
                if let Some(row) = stated(head, flaw, note) {
                    into.row(&space(release), row);
                }
            }
        }
    }
}

fn stated(head: &Head<'_>, flaw: &str, note: &Note<'_>) -> Option<Row> {
    let mut row = Row {
        package: note.source.to_owned(),
        flaw: flaw.to_owned(),
        advisory: head.id.to_owned(),
        tier: if head.notice { Tier::Notice } else { Tier::Verdict },
        ranges: vec![Range::default()],
        note: one_line(note.remark),
        ..Row::default()
    };
    if note.remark.split(';').any(|part| part.trim() == "unimportant") {
        row.severity = Severity::Negligible;
    }
    match note.version {
        "<not-affected>" => {
            row.state = State::NotAffected;
            row.ranges.clear();
        }
        "<unfixed>" | "<no-dsa>" => {}
        "<postponed>" => row.state = State::Deferred,
        "<ignored>" => row.state = State::WontFix,
        "<end-of-life>" => row.state = State::EndOfLife,
        "<undetermined>" => row.state = State::UnderInvestigation,
        word if word.starts_with('<') => return None,
        "0" => {
            row.state = State::NotAffected;
            row.ranges.clear();
        }
        fixed => {
            row.ranges = vec![Range { end: End::Before(fixed.to_owned()), ..Range::default() }]
        }
    }
    Some(row)
}

/// `29 Mar 2023` as `2023-03-29`; empty when it is no date.
fn written_out(date: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_whitespace();
    let (Some(day), Some(month), Some(year)) = (words.next(), words.next(), words.next()) else {
        return String::new();
    };
    match MONTHS.iter().position(|known| month.starts_with(known)) {
        Some(month) if year.len() == 4 => format!("{year}-{:02}-{day:0>2}", month + 1),
        _ => String::new(),
    }
}
