//! How old the data is, told apart by what it is about: that one distribution's feed is fresh says
//! nothing about another's.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use super::{Feed, space};

/// A feed serves a family when one in so many of its statements is about that, or one in so many of
/// all statements about that is its. Records that name a package of another registry in passing make
/// nothing younger.
const SHARE: u64 = 10;

/// How old what is known of a distribution, or of a language's packages, is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// What it is about: a space's name without its release, such as `debian` or `pypi`.
    pub family: String,
    /// The day up to which advisories are known.
    pub newest: String,
    /// The feeds that know them until then.
    pub feeds: Vec<String>,
}

/// What a feed said about one family while it was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    statements: u64,
    /// The newest day of a record; empty when none has one.
    newest: String,
}

impl Said {
    pub(super) fn add(&mut self, day: &str) {
        self.statements += 1;
        if day > self.newest.as_str() {
            day.clone_into(&mut self.newest);
        }
    }
}

/// Writes into each feed which families it serves.
pub(super) fn note(feeds: &mut [Feed], said: &[BTreeMap<String, Said>]) {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (family, said) in said.iter().flatten() {
        *all.entry(family).or_default() += said.statements;
    }
    let mut unserved: BTreeSet<&str> = all.keys().copied().collect();
    let nothing = BTreeMap::new();
    for (at, feed) in feeds.iter_mut().enumerate() {
        let own = said.get(at).unwrap_or(&nothing);
        let total: u64 = own.values().map(|said| said.statements).sum();
        let served = own.iter().filter(|(family, said)| {
            let share = said.statements.saturating_mul(SHARE);
            share >= total || all.get(family.as_str()).is_none_or(|all| share >= *all)
        });
        let served: BTreeMap<_, _> =
            served.map(|(family, said)| (family.clone(), said.newest.clone())).collect();
        unserved.retain(|family| !served.contains_key(*family));
        feed.serves = Some(served);
    }
    // Many that have little to say each: all of them count.
    for (feed, own) in feeds.iter_mut().zip(said) {
        for (family, said) in own.iter().filter(|(family, _)| unserved.contains(family.as_str())) {
            let serves = feed.serves.get_or_insert_default();
            serves.insert(family.clone(), said.newest.clone());
        }
    }
}

impl Index {
    /// The day up to which it knows any advisories. Feeds that only say how urgent flaws are do not
    /// make it younger, and nothing in it is younger than itself: a record may be dated ahead, and
    /// feeds without dates are as old as the database.
    #[must_use]
    pub fn newest(&self) -> &str {
        let dated = self.feeds().iter().filter(|feed| !feed.enriches && !feed.newest.is_empty());
        self.at_most(dated.map(|feed| feed.newest.as_str()).max())
    }

    /// The same for each distribution and ecosystem that it has advisories about, in the order of
    /// their names. `None` for a database that does not know which feed serves what.
    #[must_use]
    pub fn coverage(&self) -> Option<Vec<Coverage>> {
        if !self.says_what_feeds_serve() {
            return None;
        }
        let served = self.feeds().iter().filter_map(|feed| feed.serves.as_ref());
        let families: BTreeSet<&str> = served.flat_map(|s| s.keys().map(String::as_str)).collect();
        Some(families.into_iter().map(|family| self.covers(family)).collect())
    }

    /// How old what it knows about the spaces is that an inventory was held against: one entry for
    /// each family, or one without a name for all where that cannot be told apart.
    pub(crate) fn ages<'s>(&self, spaces: impl IntoIterator<Item = &'s str>) -> Vec<Coverage> {
        let families: BTreeSet<&str> = spaces.into_iter().map(space::family).collect();
        if families.is_empty() || !self.says_what_feeds_serve() {
            let (family, newest) = (String::new(), self.newest().to_owned());
            return vec![Coverage { family, newest, feeds: Vec::new() }];
        }
        families.into_iter().map(|family| self.covers(family)).collect()
    }

    fn says_what_feeds_serve(&self) -> bool {
        self.feeds().iter().all(|feed| feed.serves.is_some())
    }

    fn covers(&self, family: &str) -> Coverage {
        let serving = || {
            let serves = |feed: &Feed| feed.serves.as_ref()?.get(family).cloned();
            self.feeds().iter().filter_map(move |feed| Some((&feed.name, serves(feed)?)))
        };
        let newest = serving().map(|(_, day)| day).max().unwrap_or_default();
        let names = serving().filter(|(_, day)| *day == newest).map(|(name, _)| name);
        Coverage {
            family: family.to_owned(),
            feeds: names.filter(|name| !name.is_empty()).cloned().collect(),
            newest: self.at_most(Some(newest.as_str()).filter(|day| !day.is_empty())).to_owned(),
        }
    }

    /// A day of a record, but none after that of the database itself.
    fn at_most<'a>(&'a self, day: Option<&'a str>) -> &'a str {
        let created = self.created();
        let created = created.get(..10).unwrap_or(created);
        day.filter(|day| *day < created).unwrap_or(created)
    }
}
