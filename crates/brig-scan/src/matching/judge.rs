//! An inventory as a whole: which advisories are asked about which of its packages, what they leave
//! open, and the answer in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::remember::{Matcher, Question, Ranked};
use super::{Database, Doubt, Finding, Options, Report, Status, Verdict, days_between, doubt};
use crate::db::{DbError, Index, language_space, os_spaces};
use crate::package::{Ecosystem, Inventory, Package};
use crate::purl::Purl;

/// Holds an inventory against a database.
pub(super) fn judge(
    matcher: &mut Matcher,
    index: &Index,
    inventory: &Inventory,
    options: &Options,
) -> Result<Report, DbError> {
    let mut run = Run {
        index,
        inventory,
        options,
        found: Vec::new(),
        doubts: Vec::new(),
        judged: 0,
        unjudged: 0,
        without_version: Vec::new(),
        third_party: Vec::new(),
        asked: BTreeSet::new(),
    };
    run.operating_system(matcher)?;
    run.languages(matcher)?;
    run.finish()
}

struct Run<'a> {
    index: &'a Index,
    inventory: &'a Inventory,
    options: &'a Options,
    found: Vec<(Question<'a>, Arc<[Ranked]>)>,
    doubts: Vec<Doubt>,
    judged: usize,
    unjudged: usize,
    without_version: Vec<String>,
    third_party: Vec<String>,
    /// The spaces that had something to say.
    asked: BTreeSet<&'a str>,
}

/// A finding that has its place.
struct Placed<'a> {
    urgency: u64,
    /// The order of the packages' names and versions.
    name: usize,
    at: usize,
    ranked: &'a Ranked,
}

impl<'a> Run<'a> {
    fn operating_system(&mut self, matcher: &mut Matcher) -> Result<(), DbError> {
        let inventory = self.inventory;
        let os: Vec<(usize, &Package)> = inventory
            .packages
            .iter()
            .enumerate()
            .filter(|(_, package)| package.ecosystem.is_os())
            .collect();
        if os.is_empty() {
            return Ok(());
        }
        let Some(distribution) = &inventory.distribution else {
            self.unjudged += os.len();
            self.doubts.push(Doubt::NoDistribution { packages: os.len() });
            return Ok(());
        };
        let shown = distribution
            .pretty_name
            .clone()
            .unwrap_or_else(|| distribution.qualifier().replacen('-', " ", 1));
        let names = os_spaces(distribution);
        let mut spaces = Vec::new();
        for name in &names {
            spaces.extend(self.index.space(name)?);
        }
        if let Some(end) = names
            .first()
            .and_then(|name| doubt::end_of_life(self.index, name, &shown, &self.options.today))
        {
            self.doubts.push(end);
        }
        if spaces.is_empty() {
            self.unjudged += os.len();
            self.doubts
                .push(Doubt::UnsupportedDistribution { distribution: shown, packages: os.len() });
            return Ok(());
        }
        self.asked.extend(spaces.iter().map(|space| space.name));
        let mut asked = Vec::new();
        for (at, package) in os {
            if is_foreign(package, &distribution.id) {
                self.third_party.push(package.name.clone());
                self.unjudged += 1;
                continue;
            }
            if package.version.is_empty() {
                self.without_version.push(package.name.clone());
                self.unjudged += 1;
                continue;
            }
            self.judged += 1;
            asked.push(Question::os(at, package));
        }
        self.support_ended(names.first().map_or("", String::as_str), &asked);
        matcher.look_up(self.index, &spaces, &mut asked, &mut self.found)
    }

    fn languages(&mut self, matcher: &mut Matcher) -> Result<(), DbError> {
        let inventory = self.inventory;
        let mut by_space: BTreeMap<&str, Vec<Question<'a>>> = BTreeMap::new();
        let mut no_rule = 0;
        for (at, package) in inventory.packages.iter().enumerate() {
            // The distribution judges what it built, whatever version its upstream calls it.
            if package.ecosystem.is_os() || package.owned_by.is_some() {
                continue;
            }
            match language_space(package.ecosystem) {
                Some(space) => {
                    by_space.entry(space).or_default().push(Question::language(at, package));
                }
                None => no_rule += 1,
            }
        }
        if no_rule > 0 {
            self.unjudged += no_rule;
            self.doubts.push(Doubt::NoData {
                ecosystem: "other ecosystems".to_owned(),
                packages: no_rule,
            });
        }
        for (name, asked) in by_space {
            let Some(space) = self.index.space(name)? else {
                self.unjudged += asked.len();
                self.doubts
                    .push(Doubt::NoData { ecosystem: name.to_owned(), packages: asked.len() });
                continue;
            };
            self.asked.insert(space.name);
            // A version that says nothing is a doubt where any version has a flaw.
            let (mut comparable, vague): (Vec<_>, Vec<_>) = asked
                .into_iter()
                .partition(|question| space.scheme.is_comparable(question.asked.version));
            for Question { asked, .. } in vague {
                if space.rows(asked.name, &mut 0)?.is_empty() {
                    self.judged += 1;
                } else {
                    self.without_version.push(asked.name.to_owned());
                    self.unjudged += 1;
                }
            }
            self.judged += comparable.len();
            matcher.look_up(self.index, &[space], &mut comparable, &mut self.found)?;
        }
        Ok(())
    }

    fn support_ended(&mut self, space: &str, asked: &[Question<'a>]) {
        let mut ended: Vec<String> = Vec::new();
        for entry in self.index.support().iter().filter(|entry| entry.space == space) {
            let over = entry.ended.as_deref().is_some_and(|day| {
                days_between(day, &self.options.today).is_some_and(|days| days >= 0)
            });
            if over
                && asked.iter().flat_map(Question::names).any(|asked| asked.name == entry.package)
            {
                ended.push(entry.package.clone());
            }
        }
        if !ended.is_empty() {
            ended.dedup();
            self.doubts.push(Doubt::SupportEnded { packages: ended });
        }
    }

    fn finish(mut self) -> Result<Report, DbError> {
        for (names, doubt) in [
            (
                &mut self.without_version,
                (|packages| Doubt::NoVersion { packages }) as fn(Vec<String>) -> Doubt,
            ),
            (&mut self.third_party, |packages| Doubt::ThirdParty { packages }),
        ] {
            names.sort_unstable();
            names.dedup();
            if !names.is_empty() {
                self.doubts.push(doubt(std::mem::take(names)));
            }
        }
        for unread in &self.inventory.unread {
            self.doubts
                .push(Doubt::Unread { path: unread.path.clone(), why: unread.reason.clone() });
        }
        if self.inventory.packages.is_empty() {
            self.doubts.push(Doubt::NothingFound);
        }
        let ages = self.index.ages(self.asked.iter().copied());
        self.doubts.extend(
            self.options.max_age.and_then(|limit| doubt::stale(&ages, limit, &self.options.today)),
        );
        let newest = ages.iter().map(|age| age.newest.as_str()).min().unwrap_or_default();
        let findings = self.in_order();
        let mut undetermined: Vec<String> = findings
            .iter()
            .filter(|f| {
                f.status == Status::UnderInvestigation && f.suppressed.is_none() && !f.is_minor()
            })
            .map(|finding| finding.id.clone())
            .collect();
        if !undetermined.is_empty() {
            undetermined.sort_unstable();
            undetermined.dedup();
            self.doubts.push(Doubt::Undetermined { ids: undetermined });
        }
        let verdict = if findings.iter().any(Finding::counts) {
            Verdict::Vulnerable
        } else if self.doubts.is_empty() {
            Verdict::Clean
        } else {
            Verdict::Unknown
        };
        Ok(Report {
            verdict,
            doubts: self.doubts,
            findings,
            judged: self.judged,
            unjudged: self.unjudged,
            expired: self.options.ignore.expired(&self.options.today),
            today: self.options.today.clone(),
            database: Database {
                digest: self.index.digest().to_owned(),
                created: self.index.created().to_owned(),
                newest: newest.to_owned(),
            },
        })
    }
    /// What was found, the most urgent first, and what of it does not count.
    fn in_order(&self) -> Vec<Finding> {
        let name = |question: &Question<'a>| (&question.package.name, &question.package.version);
        let mut by_name: Vec<usize> = (0..self.found.len()).collect();
        let question = |at: &usize| self.found.get(*at).map(|(question, _)| name(question));
        by_name.sort_by(|a, b| question(a).cmp(&question(b)));
        let mut placed = Vec::with_capacity(self.found.iter().map(|(_, all)| all.len()).sum());
        let same_name = by_name.chunk_by(|a, b| question(a) == question(b));
        for (place, found) in same_name.enumerate().flat_map(|(place, same)| {
            same.iter().filter_map(move |at| Some((place, self.found.get(*at)?)))
        }) {
            let (question, all) = found;
            placed.extend(all.iter().map(|ranked| Placed {
                urgency: ranked.urgency,
                name: place,
                at: question.at,
                ranked,
            }));
        }
        placed.sort_by(|a, b| {
            (a.urgency, a.name)
                .cmp(&(b.urgency, b.name))
                .then_with(|| (&a.ranked.details.id, a.at).cmp(&(&b.ranked.details.id, b.at)))
        });
        placed.into_iter().map(|placed| self.finding(&placed)).collect()
    }

    fn finding(&self, placed: &Placed<'_>) -> Finding {
        let mut finding = Finding {
            package: placed.at,
            details: Arc::clone(&placed.ranked.details),
            suppressed: None,
        };
        let Options { ignore, vex, today, .. } = self.options;
        if ignore.is_empty() && vex.is_empty() {
            return finding;
        }
        if let Some(package) = self.inventory.packages.get(placed.at) {
            finding.suppressed = ignore.suppresses(&finding, package, today);
            if finding.suppressed.is_none() && !vex.is_empty() {
                let purl = Purl::of(package, self.inventory.distribution.as_ref());
                finding.suppressed = vex.suppresses(&finding, &purl, &self.inventory.image);
            }
        }
        finding
    }
}

/// Whether an rpm was built by somebody else than the distribution: its advisories compare versions
/// that have nothing to do with it.
fn is_foreign(package: &Package, distribution: &str) -> bool {
    if package.ecosystem == Ecosystem::Deb {
        return has_foreign_mark(&package.version, distribution);
    }
    let (Ecosystem::Rpm, Some(vendor)) = (package.ecosystem, &package.vendor) else { return false };
    let own: &[&str] = match distribution {
        "rhel" => &["red hat"],
        "centos" => &["centos", "red hat"],
        "almalinux" => &["almalinux"],
        "rocky" => &["rocky"],
        "ol" | "oracle" => &["oracle"],
        "amzn" => &["amazon"],
        "fedora" => &["fedora"],
        "photon" => &["vmware", "broadcom"],
        "mariner" | "azurelinux" => &["microsoft"],
        id if id.contains("suse") || id == "sles" => &["suse"],
        _ => return false,
    };
    let vendor = vendor.to_ascii_lowercase();
    !own.iter().any(|word| vendor.contains(word))
}

/// Whether a deb's version has the mark of one of the repositories that people add to Debian and
/// Ubuntu: their names, or the release that it was built for (`1.25.3-1~bookworm`), which Debian
/// itself writes as a number. Ubuntu does write its releases' names (`5.1.6~rc2-0ubuntu1~xenial3.1`),
/// so there it takes more (`~ubuntu.22.04~jammy`). Names and maintainers tell nothing.
fn has_foreign_mark(version: &str, distribution: &str) -> bool {
    const NAMES: [&str; 6] = ["nodesource", ".pgdg", "sury.org", "dotdeb", "~ppa", ".gbp"];
    const RELEASES: [&str; 13] = [
        "stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "xenial", "bionic",
        "focal", "jammy", "noble", "plucky", "questing",
    ];
    let last = version.rsplit('~').next().unwrap_or_default();
    let word = last.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let marked = distribution != "ubuntu" || version.contains("~ubuntu.");
    NAMES.iter().any(|name| version.contains(name)) || (marked && RELEASES.contains(&word))
}
