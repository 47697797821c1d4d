//! What importers fill: rows about packages and facts about flaws, still in the order of the feeds.

use std::collections::{BTreeMap, HashMap};

use super::age::Said;
use super::{Feed, Release, SpaceName, Support, space};
use crate::matching::is_day;
use crate::severity::Severity;

/// How a distribution means to deal with a flaw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Affected inside the ranges; a range that ends says what fixes it.
    #[default]
    Affected,
    /// Nobody has found out yet.
    UnderInvestigation,
    /// A fix may come later.
    Deferred,
    /// No fix will come.
    WontFix,
    /// The release or the package has no support any more.
    EndOfLife,
    /// This build does not have the flaw.
    NotAffected,
}

impl State {
    /// Every state; the place is its number in the index.
    pub const ALL: [Self; 6] = [
        Self::Affected,
        Self::UnderInvestigation,
        Self::Deferred,
        Self::WontFix,
        Self::EndOfLife,
        Self::NotAffected,
    ];
}

/// What a row rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// One announcement: it says what it fixed and nothing about the rest.
    #[default]
    Notice,
    /// The publisher's standing verdict on this package.
    Verdict,
}

/// Where a run of affected versions ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Nowhere: every later version.
    #[default]
    Open,
    /// Before this version, which is fixed.
    Before(String),
    /// With this version, which is affected still.
    With(String),
}

/// A run of affected versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The first; empty for the very first.
    pub from: String,
    /// Whether `from` itself is not part of it.
    pub after: bool,
    /// The end.
    pub end: End,
}

impl Range {
    /// Every version before `fixed`.
    #[must_use]
    pub fn before(fixed: &str) -> Self {
        Self { from: String::new(), after: false, end: End::Before(fixed.to_owned()) }
    }

    /// Just one version.
    #[must_use]
    pub fn only(version: &str) -> Self {
        Self { from: version.to_owned(), after: false, end: End::With(version.to_owned()) }
    }

    /// Whether it holds a version.
    #[must_use]
    pub fn contains(&self, version: &str, scheme: crate::version::Scheme) -> bool {
        let starts = self.from.is_empty() || {
            let order = scheme.compare(version, &self.from);
            order.is_gt() || (order.is_eq() && !self.after)
        };
        starts
            && match &self.end {
                End::Open => true,
                End::Before(end) => scheme.compare(version, end).is_lt(),
                End::With(end) => scheme.compare(version, end).is_le(),
            }
    }
}

/// One statement of one advisory about one package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Package, by the name that the space's tables use.
    pub package: String,
    /// The flaw, by the id that the record uses.
    pub flaw: String,
    /// The record.
    pub advisory: String,
    /// What it rests on.
    pub tier: Tier,
    /// What the publisher means to do.
    pub state: State,
    /// The publisher's own severity.
    pub severity: Severity,
    /// Affected versions.
    pub ranges: Vec<Range>,
    /// The module stream of rpms, `nodejs:14`.
    pub module: String,
    /// The publisher's reason in a few words.
    pub note: String,
    /// A malicious package rather than a flaw in one.
    pub malicious: bool,
}

/// Facts about a flaw that hold for every package.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flaw {
    /// One line.
    pub summary: String,
    /// The day it was published.
    pub published: String,
    /// CVSS vectors.
    pub vectors: Vec<String>,
    /// A severity in words and who says so.
    pub severity: Option<(Severity, &'static str)>,
    /// A CVSS base score without its vector, in tenths.
    pub base_score: Option<u8>,
}

/// An entry of the catalogue of exploited vulnerabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exploited {
    pub(super) added: String,
    pub(super) due: String,
    pub(super) ransomware: bool,
}

/// Rows by space, flaws by id, and which ids name the same flaw.
#[derive(Debug, Default)]
pub struct Collector {
    pub(super) rows: BTreeMap<SpaceName, Vec<(u16, Row)>>,
    pub(super) flaws: HashMap<String, Flaw>,
    pub(super) aliases: Vec<(String, String)>,
    pub(super) exploited: HashMap<String, Exploited>,
    /// Probability and percentile, in millionths.
    pub(super) epss: HashMap<String, (u32, u32)>,
    pub(super) feeds: Vec<Feed>,
    /// What each feed says about which family.
    pub(super) said: Vec<BTreeMap<String, Said>>,
    /// The day of the record that is being read; empty when it has none.
    record: String,
    pub(super) releases: Vec<Release>,
    pub(super) support: Vec<Support>,
}

impl Collector {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a feed; what is put in from now on is its.
    pub fn feed(&mut self, feed: Feed) {
        self.feeds.push(feed);
        self.record.clear();
    }

    /// Takes the last feed back: it was none.
    pub(super) fn take_back(&mut self) {
        self.feeds.pop();
        self.said.truncate(self.feeds.len());
    }

    /// The feeds so far.
    #[must_use]
    pub fn feeds(&self) -> &[Feed] {
        &self.feeds
    }

    pub(super) fn current(&mut self) -> &mut Feed {
        if self.feeds.is_empty() {
            self.feeds.push(Feed::default());
        }
        let last = self.feeds.len() - 1;
        &mut self.feeds[last]
    }

    /// Adds a statement.
    pub fn row(&mut self, space: &SpaceName, row: Row) {
        let feed = self.feeds.len().saturating_sub(1);
        if self.said.len() <= feed {
            self.said.resize_with(feed + 1, BTreeMap::new);
        }
        if let Some(said) = self.said.get_mut(feed) {
            let family = space::family(&space.name);
            match said.get_mut(family) {
                Some(said) => said.add(&self.record),
                None => said.entry(family.to_owned()).or_default().add(&self.record),
            }
        }
        let feed = u16::try_from(feed).unwrap_or(u16::MAX);
        match self.rows.get_mut(space) {
            Some(rows) => rows.push((feed, row)),
            None => {
                self.rows.insert(space.clone(), vec![(feed, row)]);
            }
        }
    }

    /// Adds facts about a flaw; what is known already stays.
    pub fn flaw(&mut self, id: &str, facts: Flaw) {
        let known = self.flaws.entry(id.to_owned()).or_default();
        if known.summary.is_empty() {
            known.summary = facts.summary;
        }
        if known.published.is_empty()
            || (!facts.published.is_empty() && facts.published < known.published)
        {
            known.published = facts.published;
        }
        for vector in facts.vectors {
            if !known.vectors.contains(&vector) {
                known.vectors.push(vector);
            }
        }
        known.severity = known.severity.or(facts.severity);
        known.base_score = known.base_score.or(facts.base_score);
    }

    /// Says that two ids name the same flaw.
    pub fn alias(&mut self, one: &str, other: &str) {
        if one != other {
            self.aliases.push((one.to_owned(), other.to_owned()));
        }
    }

    /// Says that the feed is about the urgency of flaws that others announce.
    pub(super) fn enriches(&mut self) {
        self.current().enriches = true;
    }

    /// Begins a record; the rows until the next one are its.
    pub(super) fn counted(&mut self, date: &str) {
        // Dates before the web are somebody's zero value.
        let day = date.get(..10).filter(|day| *day > "1990" && is_day(day)).unwrap_or_default();
        day.clone_into(&mut self.record);
        let feed = self.current();
        feed.records += 1;
        if day > feed.newest.as_str() {
            day.clone_into(&mut feed.newest);
        }
    }

    pub(super) fn skipped(&mut self, why: impl FnOnce() -> String) {
        let feed = self.current();
        feed.skipped += 1;
        if feed.skipped_because.is_none() {
            feed.skipped_because = Some(why());
        }
    }
}
