//! What is wrong with one package of one version, and what was said of it before: images have most of
//! their packages in common.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::weigh::weigh;
use super::{Details, Options, Report, judge};
use crate::db::{DbError, Index, Space};
use crate::package::{Ecosystem, Inventory, Package};
use crate::severity::Severity;
use crate::version::source_version;

/// Findings that are remembered. Together they have some 100 MiB.
const MAX_REMEMBERED: usize = 100_000;

/// Judges inventories one after another and remembers what it said of each package, so that what
/// many images have in common is judged once. What it answers does not depend on what it was asked
/// before.
#[derive(Debug)]
pub struct Matcher {
    /// The database that what is remembered comes from.
    database: String,
    known: HashMap<Box<[u8]>, Arc<[Ranked]>>,
    findings: usize,
    /// How many may be remembered.
    limit: usize,
    key: Vec<u8>,
}

impl Default for Matcher {
    fn default() -> Self {
        Self::remembering(MAX_REMEMBERED)
    }
}

/// Something that is wrong with a package, and its place among everything that is wrong.
#[derive(Debug)]
pub(super) struct Ranked {
    pub(super) urgency: u64,
    pub(super) details: Arc<Details>,
}

/// A name and a version by which advisories know a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
}

/// A package, and by which one or two names it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// Its place in the inventory.
    pub(super) at: usize,
    pub(super) package: &'a Package,
    pub(super) asked: Asked<'a>,
    pub(super) also: Option<Asked<'a>>,
}

impl Matcher {
    /// One that remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn remembering(limit: usize) -> Self {
        Self { database: String::new(), known: HashMap::new(), findings: 0, limit, key: Vec::new() }
    }

    /// Holds an inventory against a database. With another database than the last time everything
    /// that is remembered is forgotten.
    ///
    /// # Errors
    /// [`DbError::Damaged`] when the database is.
    pub fn judge(
        &mut self,
        index: &Index,
        inventory: &Inventory,
        options: &Options,
    ) -> Result<Report, DbError> {
        if self.database != index.digest() {
            self.forget();
            index.digest().clone_into(&mut self.database);
        }
        judge::judge(self, index, inventory, options)
    }

    /// What the spaces' advisories say of packages, those without a flaw left out. Asked in the order
    /// of names, so that it is a join of two sorted lists.
    pub(super) fn look_up<'q>(
        &mut self,
        index: &Index,
        spaces: &[Space<'_>],
        questions: &mut [Question<'q>],
        found: &mut Vec<(Question<'q>, Arc<[Ranked]>)>,
    ) -> Result<(), DbError> {
        questions.sort_by_key(|question| question.asked);
        let mut hints = vec![0; spaces.len()];
        for question in questions.iter() {
            let known = self.one(index, spaces, question, &mut hints)?;
            if !known.is_empty() {
                found.push((*question, known));
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.known.clear();
        self.findings = 0;
    }

    fn one(
        &mut self,
        index: &Index,
        spaces: &[Space<'_>],
        question: &Question<'_>,
        hints: &mut [usize],
    ) -> Result<Arc<[Ranked]>, DbError> {
        question.key(spaces, &mut self.key);
        if let Some(known) = self.known.get(self.key.as_slice()) {
            return Ok(Arc::clone(known));
        }
        let mut ranked: Vec<Ranked> = of_package(index, spaces, question, hints)?
            .into_iter()
            .map(|details| Ranked { urgency: urgency(&details), details: Arc::new(details) })
            .collect();
        ranked.sort_by(|a, b| (a.urgency, &a.details.id).cmp(&(b.urgency, &b.details.id)));
        let ranked: Arc<[Ranked]> = ranked.into();
        // Packages without a flaw take some room too.
        let weight = ranked.len().max(1);
        if self.findings + weight > self.limit {
            self.forget();
        }
        self.findings += weight;
        self.known.insert(self.key.as_slice().into(), Arc::clone(&ranked));
        Ok(ranked)
    }
}

impl<'a> Question<'a> {
    /// A language's package.
    pub(super) fn language(at: usize, package: &'a Package) -> Self {
        let asked = Asked { name: &package.name, version: &package.version };
        Self { at, package, asked, also: None }
    }

    /// An operating system's package by the names that its distribution's advisories know it by.
    pub(super) fn os(at: usize, package: &'a Package) -> Self {
        let own = Asked { name: &package.name, version: &package.version };
        let (asked, also) = match (package.ecosystem, &package.source) {
            (Ecosystem::Deb, Some(source)) => {
                (Asked { name: unsigned(&source.name), version: &source.version }, None)
            }
            (Ecosystem::Deb, None) => (
                Asked { name: unsigned(&package.name), version: source_version(&package.version) },
                None,
            ),
            // Alpine speaks of origins, Wolfi and its relatives of both.
            (Ecosystem::Apk, Some(source)) if source.name != package.name => {
                let origin = Asked { name: &source.name, version: &package.version };
                (origin.min(own), Some(origin.max(own)))
            }
            _ => (own, None),
        };
        Self { at, package, asked, also }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = Asked<'a>> + use<'a> {
        std::iter::once(self.asked).chain(self.also)
    }

    /// All that the answer depends on. How many parts there are and how long each is comes before
    /// them: what images say about themselves cannot make one question look like another.
    fn key(&self, spaces: &[Space<'_>], key: &mut Vec<u8>) {
        let package = self.package;
        let rpm = (package.ecosystem == Ecosystem::Rpm).then_some(package.version.as_str());
        let module = package.module.as_deref().filter(|_| rpm.is_some());
        key.clear();
        key.extend([self.also.is_some(), rpm.is_some(), module.is_some()].map(u8::from));
        key.extend_from_slice(&spaces.len().to_le_bytes());
        let names = self.names().flat_map(|asked| [asked.name, asked.version]);
        for part in names.chain(rpm).chain(module).chain(spaces.iter().map(|space| space.name)) {
            key.extend_from_slice(&part.len().to_le_bytes());
            key.extend_from_slice(part.as_bytes());
        }
    }
}

/// Everything that the spaces' advisories find wrong with a package. Ubuntu's advisories for
/// subscribers count where those for everybody know no fix.
fn of_package(
    index: &Index,
    spaces: &[Space<'_>],
    question: &Question<'_>,
    hints: &mut [usize],
) -> Result<Vec<Details>, DbError> {
    let mut found: BTreeMap<String, Details> = BTreeMap::new();
    for ((at, space), hint) in spaces.iter().enumerate().zip(hints) {
        let subscribers = space.name.starts_with("ubuntu-pro:");
        for asked in question.names() {
            // A flaw's statements stand together.
            for rows in space.rows(asked.name, hint)?.chunk_by(|a, b| a.flaw == b.flaw) {
                let Some(mut details) = weigh(index, space, question.package, asked, rows)? else {
                    continue;
                };
                if !subscribers {
                    found.entry(details.id.clone()).or_insert(details);
                    continue;
                }
                details.subscription = details.fixed.is_some();
                let settled = match (found.get(&details.id), spaces.first()) {
                    (Some(known), _) => known.fixed.is_some(),
                    // Everybody's advisories speak about it and do not call this version affected.
                    (None, Some(first)) if at > 0 => speaks(index, first, &details)?,
                    (None, _) => false,
                };
                if !settled {
                    found.insert(details.id.clone(), details);
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

fn speaks(index: &Index, space: &Space<'_>, details: &Details) -> Result<bool, DbError> {
    let Some(flaw) = index.find(&details.id)? else { return Ok(false) };
    Ok(space.rows(&details.evidence.matched, &mut 0)?.iter().any(|row| row.flaw == flaw))
}

/// What is exploited first, then what is bad and can be fixed by how likely it is, then the rest by
/// how bad it is; the smaller the more urgent.
fn urgency(details: &Details) -> u64 {
    const LIKELY: u64 = 1_000_000;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 1,000,000
    let likely = (details.epss.unwrap_or(0.0).clamp(0.0, 1.0) * 1e6) as u64;
    let unlikely = LIKELY - likely;
    let pressing = details.severity >= Severity::High && details.fixable();
    let worst = Severity::ALL.len() - 1;
    let harmless = worst - (details.severity as usize).min(worst);
    // Twenty bits hold a million.
    [
        (1, u64::from(details.exploited.is_none() && !details.malicious)),
        (1, u64::from(!pressing)),
        (20, if pressing { unlikely } else { LIKELY }),
        (8, u64::try_from(harmless).unwrap_or_default()),
        (20, unlikely),
    ]
    .into_iter()
    .fold(0, |all, (bits, value)| (all << bits) | value)
}

/// Signed kernels are filed under the kernel that was signed.
fn unsigned(source: &str) -> &str {
    match source {
        "linux-signed" | "linux-meta" | "linux-signed-amd64" | "linux-signed-arm64"
        | "linux-signed-i386" => "linux",
        source => source,
    }
}

#[cfg(test)]
#[path = "remember_tests.rs"]
mod tests;
