//! Why nothing found would not mean nothing there.

use std::fmt;

use serde::Serialize;

use super::days_between;
use crate::db::{Coverage, Index, Release, is_language};

/// A reason why a silence means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[non_exhaustive]
pub enum Doubt {
    /// No package was found at all.
    NothingFound,
    /// There are packages of an operating system, and no file says which it is.
    NoDistribution {
        /// How many.
        packages: usize,
    },
    /// No feed speaks about this release.
    UnsupportedDistribution {
        /// The distribution.
        distribution: String,
        /// How many packages that leaves unjudged.
        packages: usize,
    },
    /// The release gets no updates any more, so new flaws are not even looked for.
    EndOfLife {
        /// The distribution.
        distribution: String,
        /// Since when.
        since: String,
        /// Until when support can be bought.
        #[serde(skip_serializing_if = "Option::is_none")]
        paid_until: Option<String>,
    },
    /// No feed speaks about this ecosystem.
    NoData {
        /// The ecosystem.
        ecosystem: String,
        /// How many packages that leaves unjudged.
        packages: usize,
    },
    /// What is known about something in it is old.
    StaleData {
        /// The day up to which advisories are known, about what is known least far.
        newest: String,
        /// Days ago.
        days: i64,
        /// What is old, where the database tells that apart.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        about: Vec<Stale>,
    },
    /// A file could not be read to its end.
    Unread {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// Versions that say nothing about their place (`(devel)`, a branch, none).
    NoVersion {
        /// The packages.
        packages: Vec<String>,
    },
    /// Packages of other repositories, of which the distribution's advisories say nothing.
    ThirdParty {
        /// The packages.
        packages: Vec<String>,
    },
    /// Source packages that the distribution supports no more.
    SupportEnded {
        /// The packages.
        packages: Vec<String>,
    },
    /// A flaw that the distribution has not looked into.
    Undetermined {
        /// The flaws.
        ids: Vec<String>,
    },
}

/// A distribution or an ecosystem whose data is old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Which: `debian`, `pypi`.
    pub family: String,
    /// The feeds that know its newest advisories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub feeds: Vec<String>,
    /// Their day.
    pub newest: String,
    /// Days ago.
    pub days: i64,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is of {}, {} days ago", self.family, self.newest, self.days)?;
        match self.feeds.as_slice() {
            [] => Ok(()),
            [feed] => write!(f, " (feed {feed})"),
            feeds => write!(f, " (feeds {})", Listed(feeds)),
        }
    }
}

/// How many names a sentence lists.
const LISTED: usize = 5;

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingFound => f.write_str("no package was found that could be judged"),
            Self::NoDistribution { packages } => {
                write!(
                    f,
                    "no file says which distribution this is: {packages} packages of it cannot be judged"
                )
            }
            Self::UnsupportedDistribution { distribution, packages } => {
                write!(
                    f,
                    "the database has no advisories for {distribution}: {packages} packages cannot be judged"
                )
            }
            Self::EndOfLife { distribution, since, paid_until } => {
                write!(
                    f,
                    "{distribution} has been out of support since {since}: new flaws are not looked into"
                )?;
                match paid_until {
                    Some(until) => write!(f, " (subscribers get fixes until {until})"),
                    None => Ok(()),
                }
            }
            Self::NoData { ecosystem, packages } => {
                write!(
                    f,
                    "the database has no advisories for {ecosystem}: {packages} packages cannot be judged"
                )
            }
            Self::StaleData { newest, days, about } => {
                match about.as_slice() {
                    [] => write!(f, "the newest advisory is of {newest}, {days} days ago")?,
                    about => {
                        let about: Vec<String> = about.iter().map(ToString::to_string).collect();
                        write!(f, "the newest advisory about {}", Listed(&about))?;
                    }
                }
                f.write_str(": run brig scan db update")
            }
            Self::Unread { path, why } => write!(f, "{path} could not be read: {why}"),
            Self::NoVersion { packages } => {
                write!(
                    f,
                    "{} packages do not say their version: {}",
                    packages.len(),
                    Listed(packages)
                )
            }
            Self::ThirdParty { packages } => write!(
                f,
                "{} packages are not the distribution's own and no feed speaks about them: {}",
                packages.len(),
                Listed(packages)
            ),
            Self::SupportEnded { packages } => write!(
                f,
                "the distribution has ended its support of {} packages: {}",
                packages.len(),
                Listed(packages)
            ),
            Self::Undetermined { ids } => {
                write!(
                    f,
                    "the distribution has not looked into {} flaws: {}",
                    ids.len(),
                    Listed(ids)
                )
            }
        }
    }
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self.0.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", "),
        )?;
        match self.0.len().checked_sub(LISTED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// How many times as old as a distribution's a language's data may be: distributions publish every
/// day, while a registry may have nothing to say for weeks, which makes its data no older.
const QUIET: i64 = 4;

/// What of it was known last more than `limit` days ago.
pub(super) fn stale(ages: &[Coverage], limit: u32, today: &str) -> Option<Doubt> {
    let mut about: Vec<Stale> = ages
        .iter()
        .filter_map(|age| {
            let days = days_between(&age.newest, today)?;
            let limit = i64::from(limit) * if is_language(&age.family) { QUIET } else { 1 };
            (days > limit).then(|| Stale {
                family: age.family.clone(),
                feeds: age.feeds.clone(),
                newest: age.newest.clone(),
                days,
            })
        })
        .collect();
    about.sort_by_key(|stale| std::cmp::Reverse(stale.days));
    let Stale { newest, days, .. } = about.first()?.clone();
    about.retain(|stale| !stale.family.is_empty());
    Some(Doubt::StaleData { newest, days, about })
}

/// The end of a release's support, when that is past.
pub(super) fn end_of_life(
    index: &Index,
    space: &str,
    distribution: &str,
    today: &str,
) -> Option<Doubt> {
    let known = index.releases().iter().find(|release| release.space == space).cloned();
    let release = known.or_else(|| built_in(space))?;
    let end = release.end.clone().max(release.end_lts.clone())?;
    if days_between(&end, today)? <= 0 {
        return None;
    }
    let paid_until =
        release.end_paid.filter(|until| days_between(until, today).is_some_and(|days| days <= 0));
    Some(Doubt::EndOfLife { distribution: distribution.to_owned(), since: end, paid_until })
}

/// Ends of support that no feed carries, as the projects announce them.
fn built_in(space: &str) -> Option<Release> {
    const ENDS: [(&str, &str); 27] = [
        ("alpine:3.3", "2017-11-01"),
        ("alpine:3.4", "2018-05-01"),
        ("alpine:3.5", "2018-11-01"),
        ("alpine:3.6", "2019-05-01"),
        ("alpine:3.7", "2019-11-01"),
        ("alpine:3.8", "2020-05-01"),
        ("alpine:3.9", "2020-11-01"),
        ("alpine:3.10", "2021-05-01"),
        ("alpine:3.11", "2021-11-01"),
        ("alpine:3.12", "2022-05-01"),
        ("alpine:3.13", "2022-11-01"),
        ("alpine:3.14", "2023-05-01"),
        ("alpine:3.15", "2023-11-01"),
        ("alpine:3.16", "2024-05-23"),
        ("alpine:3.17", "2024-11-22"),
        ("alpine:3.18", "2025-05-09"),
        ("alpine:3.19", "2025-11-01"),
        ("alpine:3.20", "2026-04-01"),
        ("alpine:3.21", "2026-11-01"),
        ("alpine:3.22", "2027-05-01"),
        ("alpine:3.23", "2027-11-01"),
        ("almalinux:8", "2029-03-01"),
        ("almalinux:9", "2032-05-31"),
        ("rocky:8", "2029-05-31"),
        ("rocky:9", "2032-05-31"),
        ("amazon:2", "2026-06-30"),
        ("centos:7", "2024-06-30"),
    ];
    let (_, end) = ENDS.iter().find(|(known, _)| *known == space)?;
    Some(Release { space: space.to_owned(), end: Some((*end).to_owned()), ..Release::default() })
}
