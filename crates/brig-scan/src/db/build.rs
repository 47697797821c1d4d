//! From rows in the order of the feeds to an index: one flaw for all of its names, verdicts over
//! announcements, everything sorted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use brig_files::Durability;
use serde::{Deserialize, Serialize};

use super::collect::{Collector, End, Exploited, Flaw, Range, Row, State, Tier};
use super::format::{
    BLOCK, END_BEFORE, END_WITH, EXPLOITED, FIXED, FORMAT, FROM_EXCLUSIVE, HAS_EPSS, HAS_SCORE,
    HASH, MAGIC, MALICIOUS, RANSOMWARE, SECTION, SECTIONS,
};
use super::{DbError, Feed, Release, Support, age};
use crate::severity::{self, Severity};
use crate::version::Scheme;

/// Longest string in the table; longer ones are cut.
const MAX_STRING: usize = 4000;

/// What is read whole when an index is opened.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) created: String,
    pub(super) feeds: Vec<Feed>,
    pub(super) releases: Vec<Release>,
    pub(super) support: Vec<Support>,
}

impl Collector {
    /// The index's bytes. The same rows and the same time give the same bytes.
    ///
    /// # Errors
    /// [`DbError::Full`] when there is more than its numbers can hold.
    pub fn to_bytes(self, created: &str) -> Result<Vec<u8>, DbError> {
        let names = Names::join(&self);
        let mut writer = Writer::default();
        // The empty string is 0.
        writer.string("")?;
        let flaws = writer.flaws(&self, &names)?;
        for (space, rows) in self.rows {
            writer.space(&space.name, space.scheme, rows, &names, &flaws)?;
        }
        let mut feeds = self.feeds;
        age::note(&mut feeds, &self.said);
        let mut meta = Meta {
            created: created.to_owned(),
            feeds,
            releases: self.releases,
            support: self.support,
        };
        meta.releases.sort_by(|a, b| a.space.cmp(&b.space));
        meta.releases.dedup();
        meta.support.sort_by(|a, b| (&a.space, &a.package).cmp(&(&b.space, &b.package)));
        meta.support.dedup();
        writer.finish(&meta)
    }

    /// Writes the index in place of what is at `path`, which stays whole until then.
    ///
    /// # Errors
    /// [`DbError::Write`] and [`DbError::Full`].
    pub fn write(self, path: &Path, created: &str) -> Result<(), DbError> {
        let bytes = self.to_bytes(created)?;
        replace(path, &bytes).map_err(|error| DbError::Write(path.to_owned(), error))
    }
}

/// Puts bytes in place of a file: a reader sees the old or the new one, whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Readers refuse what others may write.
    brig_files::replace(path, bytes, 0o644, Durability::Synced)
}

/// Which ids name the same flaw, and under which it is filed.
struct Names {
    group: HashMap<String, usize>,
    /// The id and all names of each group, sorted.
    groups: Vec<(String, BTreeSet<String>)>,
}

impl Names {
    /// Joins aliases. Two CVE ids are two flaws, whatever a record says: such a record is filed under
    /// the first and shows the other name too.
    fn join(from: &Collector) -> Self {
        let mut ids: BTreeSet<&str> = from.flaws.keys().map(String::as_str).collect();
        for rows in from.rows.values() {
            ids.extend(rows.iter().map(|(_, row)| row.flaw.as_str()));
        }
        let mut edges: BTreeSet<(bool, &str, &str)> = BTreeSet::new();
        for (a, b) in &from.aliases {
            ids.extend([a.as_str(), b.as_str()]);
            let with_cve = a.starts_with("CVE-") || b.starts_with("CVE-");
            edges.insert((!with_cve, a.min(b), a.max(b)));
        }
        let ids: Vec<&str> = ids.into_iter().collect();
        let place: HashMap<&str, usize> =
            ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut parent: Vec<usize> = (0..ids.len()).collect();
        let mut has_cve: Vec<bool> = ids.iter().map(|id| id.starts_with("CVE-")).collect();
        let mut extra: Vec<(&str, &str)> = Vec::new();
        for (_, a, b) in edges {
            let (Some(x), Some(y)) = (place.get(a), place.get(b)) else { continue };
            let (x, y) = (root(&mut parent, *x), root(&mut parent, *y));
            if x == y {
                continue;
            }
            if has_cve.get(x) == Some(&true) && has_cve.get(y) == Some(&true) {
                extra.push((a, b));
                continue;
            }
            let joined = has_cve.get(x) == Some(&true) || has_cve.get(y) == Some(&true);
            if let (Some(up), Some(cve)) = (parent.get_mut(y), has_cve.get_mut(x)) {
                *up = x;
                *cve = joined;
            }
        }
        let mut members: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (at, id) in ids.iter().enumerate() {
            members.entry(root(&mut parent, at)).or_default().insert((*id).to_owned());
        }
        let mut groups: Vec<(String, BTreeSet<String>)> =
            members.into_values().map(|names| (filed_under(&names), names)).collect();
        groups.sort();
        let mut group = HashMap::new();
        for (at, (_, names)) in groups.iter().enumerate() {
            group.extend(names.iter().map(|name| (name.clone(), at)));
        }
        for (a, b) in extra {
            for (one, other) in [(a, b), (b, a)] {
                if !one.starts_with("CVE-")
                    && let Some((_, names)) = group.get(one).and_then(|at| groups.get_mut(*at))
                {
                    names.insert(other.to_owned());
                }
            }
        }
        Self { group, groups }
    }
}

fn root(parent: &mut [usize], mut at: usize) -> usize {
    while let Some(up) = parent.get(at).copied().filter(|up| *up != at) {
        let above = parent.get(up).copied().unwrap_or(up);
        if let Some(slot) = parent.get_mut(at) {
            *slot = above;
        }
        at = up;
    }
    at
}

/// A CVE id if there is one, else GitHub's, else the first.
fn filed_under(names: &BTreeSet<String>) -> String {
    ["CVE-", "GHSA-", ""]
        .into_iter()
        .find_map(|prefix| names.iter().find(|name| name.starts_with(prefix)))
        .cloned()
        .unwrap_or_default()
}

#[derive(Default)]
struct Writer {
    strings: Vec<u8>,
    known: HashMap<String, u32>,
    known_ranges: HashMap<Vec<u32>, u32>,
    spaces: Vec<u8>,
    packages: Vec<u8>,
    rows: Vec<u8>,
    ranges: Vec<u8>,
    flaws: Vec<u8>,
    names: Vec<u8>,
    package_count: u32,
    row_count: u32,
    range_count: u32,
}

impl Writer {
    fn string(&mut self, text: &str) -> Result<u32, DbError> {
        if let Some(at) = self.known.get(text) {
            return Ok(*at);
        }
        let mut end = text.len().min(MAX_STRING);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = text.get(..end).unwrap_or_default();
        let at = u32::try_from(self.strings.len()).map_err(|_| DbError::Full("4 GiB of text"))?;
        let length = u16::try_from(cut.len()).unwrap_or(0);
        self.strings.extend(length.to_le_bytes());
        self.strings.extend(cut.as_bytes());
        self.known.insert(text.to_owned(), at);
        Ok(at)
    }

    /// Writes every flaw that a row is about, and answers the number of each group that has one.
    fn flaws(&mut self, from: &Collector, names: &Names) -> Result<HashMap<usize, u32>, DbError> {
        let mut used: BTreeSet<usize> = BTreeSet::new();
        for rows in from.rows.values() {
            used.extend(rows.iter().filter_map(|(_, row)| names.group.get(&row.flaw)));
        }
        let mut numbers = HashMap::new();
        let mut lookup: BTreeMap<&str, u32> = BTreeMap::new();
        for (number, group) in used.into_iter().enumerate() {
            let number = u32::try_from(number).map_err(|_| DbError::Full("4 billion flaws"))?;
            let Some((id, all)) = names.groups.get(group) else { continue };
            numbers.insert(group, number);
            for name in all {
                if names.group.get(name) == Some(&group) {
                    lookup.insert(name, number);
                }
            }
            self.flaw(from, id, all)?;
        }
        for (name, number) in lookup {
            let at = self.string(name)?;
            self.names.extend(at.to_le_bytes());
            self.names.extend(number.to_le_bytes());
        }
        Ok(numbers)
    }

    fn flaw(&mut self, from: &Collector, id: &str, all: &BTreeSet<String>) -> Result<(), DbError> {
        let mut facts = from.flaws.get(id).cloned().unwrap_or_default();
        for name in all {
            if let Some(more) = from.flaws.get(name).filter(|_| name != id) {
                merge(&mut facts, more);
            }
        }
        let best = |prefixes: &[&str]| -> Option<(f64, Severity, &str)> {
            facts
                .vectors
                .iter()
                .filter(|vector| prefixes.iter().any(|prefix| vector.starts_with(prefix)))
                .filter_map(|vector| {
                    severity::score(vector).map(|(score, band)| (score, band, vector.as_str()))
                })
                .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.2.cmp(a.2)))
        };
        let (v2, v3, v4) = (best(&["AV:", "CVSS:2"]), best(&["CVSS:3"]), best(&["CVSS:4"]));
        let judged = [(v3, "CVSS v3"), (v4, "CVSS v4")]
            .into_iter()
            .find_map(|(best, source)| best.map(|(_, band, _)| (band, source)))
            .or(facts.severity)
            .or(v2.map(|(_, band, _)| (band, "CVSS v2")))
            .or(facts
                .base_score
                .map(|tenths| (Severity::of_score(f64::from(tenths) / 10.0), "CVSS v3")))
            .unwrap_or((Severity::Unknown, ""));
        let tenths = v3
            .or(v4)
            .or(v2)
            .map(|(score, _, _)| {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100
                let tenths = (score * 10.0).round() as u8;
                tenths
            })
            .or(facts.base_score);
        let nobody = Exploited::default();
        let exploited = all.iter().find_map(|name| from.exploited.get(name));
        let epss = all.iter().filter_map(|name| from.epss.get(name)).max().copied();
        let mut flags = 0;
        if let Some(exploited) = exploited {
            flags |= EXPLOITED | if exploited.ransomware { RANSOMWARE } else { 0 };
        }
        flags |= if epss.is_some() { HAS_EPSS } else { 0 }
            | if tenths.is_some() { HAS_SCORE } else { 0 };
        let exploited = exploited.unwrap_or(&nobody);
        let vector = |best: Option<(f64, Severity, &str)>| {
            best.map_or("", |(_, _, vector)| vector).to_owned()
        };
        let listed =
            all.iter().map(String::as_str).filter(|name| *name != id).collect::<Vec<_>>().join(" ");
        for text in [
            id,
            &listed,
            &facts.summary,
            &facts.published,
            &vector(v2),
            &vector(v3),
            &vector(v4),
            judged.1,
            &exploited.added,
            &exploited.due,
        ] {
            let at = self.string(text)?;
            self.flaws.extend(at.to_le_bytes());
        }
        let (probability, percentile) = epss.unwrap_or_default();
        self.flaws.extend(probability.to_le_bytes());
        self.flaws.extend(percentile.to_le_bytes());
        self.flaws.extend([number_of(judged.0), tenths.unwrap_or(0), flags, 0]);
        Ok(())
    }

    fn space(
        &mut self,
        name: &str,
        scheme: Scheme,
        rows: Vec<(u16, Row)>,
        names: &Names,
        flaws: &HashMap<usize, u32>,
    ) -> Result<(), DbError> {
        let mut packages: BTreeMap<String, BTreeMap<u32, Vec<(u16, Row)>>> = BTreeMap::new();
        for (feed, row) in rows {
            let Some(flaw) = names.group.get(&row.flaw).and_then(|group| flaws.get(group)) else {
                continue;
            };
            packages
                .entry(row.package.clone())
                .or_default()
                .entry(*flaw)
                .or_default()
                .push((feed, row));
        }
        let first = self.package_count;
        for (package, flaws) in packages {
            let first_row = self.row_count;
            for (flaw, rows) in flaws {
                for (feed, row) in decided(rows) {
                    self.row(flaw, feed, &row)?;
                }
            }
            let at = self.string(&package)?;
            for number in [at, first_row, self.row_count - first_row] {
                self.packages.extend(number.to_le_bytes());
            }
            self.package_count =
                self.package_count.checked_add(1).ok_or(DbError::Full("4 billion packages"))?;
        }
        let at = self.string(name)?;
        let scheme = Scheme::ALL
            .iter()
            .position(|known| *known == scheme)
            .and_then(|at| u32::try_from(at).ok());
        for number in [at, scheme.unwrap_or(u32::MAX), first, self.package_count - first] {
            self.spaces.extend(number.to_le_bytes());
        }
        Ok(())
    }

    fn row(&mut self, flaw: u32, feed: u16, row: &Row) -> Result<(), DbError> {
        let ranges = u16::try_from(row.ranges.len())
            .map_err(|_| DbError::Full("65,535 ranges in one record"))?;
        let first_range = self.ranges(&row.ranges)?;
        let numbers = [
            flaw,
            self.string(&row.advisory)?,
            self.string(&row.module)?,
            self.string(&row.note)?,
            first_range,
        ];
        for number in numbers {
            self.rows.extend(number.to_le_bytes());
        }
        self.rows.extend(ranges.to_le_bytes());
        self.rows.extend(feed.to_le_bytes());
        let state = State::ALL
            .iter()
            .position(|state| *state == row.state)
            .and_then(|at| u8::try_from(at).ok());
        let flags = if row.malicious { MALICIOUS } else { 0 };
        self.rows.extend([state.unwrap_or(0), number_of(row.severity), flags, 0]);
        self.row_count = self.row_count.checked_add(1).ok_or(DbError::Full("4 billion rows"))?;
        Ok(())
    }

    /// Where these ranges stand. One announcement says the same of many flaws and packages: equal
    /// ranges are written once.
    fn ranges(&mut self, ranges: &[Range]) -> Result<u32, DbError> {
        let mut numbers = Vec::with_capacity(ranges.len() * 3);
        for range in ranges {
            let from = self.string(&range.from)?;
            let (end, kind) = match &range.end {
                End::Open => (0, 0),
                End::Before(version) => (self.string(version)?, END_BEFORE),
                End::With(version) => (self.string(version)?, END_WITH),
            };
            numbers.extend([from, end, kind | if range.after { FROM_EXCLUSIVE } else { 0 }]);
        }
        if let Some(at) = self.known_ranges.get(&numbers) {
            return Ok(*at);
        }
        let at = self.range_count;
        for number in &numbers {
            self.ranges.extend(number.to_le_bytes());
        }
        let more = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        self.range_count = at.checked_add(more).ok_or(DbError::Full("4 billion ranges"))?;
        self.known_ranges.insert(numbers, at);
        Ok(at)
    }

    fn finish(self, meta: &Meta) -> Result<Vec<u8>, DbError> {
        let meta = serde_json::to_vec(meta).map_err(|_| DbError::Full("what JSON can say"))?;
        let sections: [Vec<u8>; SECTIONS] = [
            self.strings,
            self.spaces,
            self.packages,
            self.rows,
            self.ranges,
            self.flaws,
            self.names,
            meta,
        ];
        let data: usize = sections.iter().map(Vec::len).sum();
        let blocks = data.div_ceil(BLOCK);
        let header = FIXED + SECTIONS * SECTION + blocks * 4 + HASH;
        let number = |n: usize| u32::try_from(n).map_err(|_| DbError::Full("4 GiB"));
        let mut body = Vec::with_capacity(data);
        let mut bytes = Vec::with_capacity(header + data);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(number(header)?.to_le_bytes());
        bytes.extend(
            u64::try_from(header + data).map_err(|_| DbError::Full("its lengths"))?.to_le_bytes(),
        );
        bytes.extend(number(BLOCK)?.to_le_bytes());
        bytes.extend(number(blocks)?.to_le_bytes());
        for section in &sections {
            for number in [header + body.len(), section.len()] {
                bytes.extend(
                    u64::try_from(number).map_err(|_| DbError::Full("its lengths"))?.to_le_bytes(),
                );
            }
            body.extend(section);
        }
        for block in body.chunks(BLOCK) {
            bytes.extend(checksum(block).to_le_bytes());
        }
        let hash = brig_pki::hash::sha256(&bytes);
        bytes.extend(hash);
        bytes.append(&mut body);
        Ok(bytes)
    }
}

pub(super) fn checksum(block: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(block);
    crc.sum()
}

fn number_of(severity: Severity) -> u8 {
    Severity::ALL
        .iter()
        .position(|known| *known == severity)
        .and_then(|at| u8::try_from(at).ok())
        .unwrap_or(0)
}

fn merge(facts: &mut Flaw, more: &Flaw) {
    if facts.summary.is_empty() {
        facts.summary.clone_from(&more.summary);
    }
    if facts.published.is_empty()
        || (!more.published.is_empty() && more.published < facts.published)
    {
        facts.published.clone_from(&more.published);
    }
    for vector in &more.vectors {
        if !facts.vectors.contains(vector) {
            facts.vectors.push(vector.clone());
        }
    }
    facts.severity = facts.severity.or(more.severity);
    facts.base_score = facts.base_score.or(more.base_score);
}

/// What holds for one flaw in one package: the publisher's verdict where there is one, and
/// announcements where the verdict knows no fix yet or there is none.
fn decided(mut rows: Vec<(u16, Row)>) -> Vec<(u16, Row)> {
    let has_fix = |row: &Row| {
        row.state == State::NotAffected
            || row.ranges.iter().any(|range| matches!(range.end, End::Before(_)))
    };
    let verdicts = rows.iter().filter(|(_, row)| row.tier == Tier::Verdict).count();
    if verdicts > 0 && verdicts < rows.len() {
        let settled = rows.iter().any(|(_, row)| row.tier == Tier::Verdict && has_fix(row));
        let keep = if settled { Tier::Verdict } else { Tier::Notice };
        rows.retain(|(_, row)| row.tier == keep);
    }
    // One publisher's "not affected" does not silence another that disagrees.
    if rows.iter().any(|(_, row)| row.state != State::NotAffected) {
        rows.retain(|(_, row)| row.state != State::NotAffected);
    }
    rows.sort_by(|(a, x), (b, y)| {
        (&x.advisory, &x.module, a, &x.ranges).cmp(&(&y.advisory, &y.module, b, &y.ranges))
    });
    rows.dedup_by(|(_, a), (_, b)| a == b);
    rows
}
