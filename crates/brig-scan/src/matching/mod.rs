//! What is wrong with an inventory, by a database: two sorted lists joined, the distribution's word
//! over everybody else's, and nothing passed over in silence.

mod doubt;
mod ignore;
mod judge;
mod remember;
mod vex;
mod weigh;

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use doubt::{Doubt, Stale};
pub use ignore::{IgnoreError, IgnoreFile};
pub use remember::Matcher;
pub use vex::{Vex, VexError};

use crate::db::{DbError, Index};
use crate::package::Inventory;
use crate::severity::Severity;

/// Holds one inventory against a database; many of them: [`Matcher`].
///
/// # Errors
/// [`DbError::Damaged`] when the database is.
pub fn judge(index: &Index, inventory: &Inventory, options: &Options) -> Result<Report, DbError> {
    Matcher::new().judge(index, inventory, options)
}

/// What is asked beside the inventory and the database.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Today, as `2026-11-22`: ends of support and exceptions are held against it.
    pub today: String,
    /// Days after which data counts as stale; none for never.
    pub max_age: Option<u32>,
    /// Exceptions.
    pub ignore: IgnoreFile,
    /// Statements of others about what does not apply here.
    pub vex: Vex,
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was judged and nothing was found.
    Clean,
    /// Nothing was found, but not everything could be judged.
    Unknown,
    /// Something was found.
    Vulnerable,
}

impl Verdict {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Unknown => "unknown",
            Self::Vulnerable => "vulnerable",
        }
    }
}

/// What can be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is a fixed version.
    Fixed,
    /// There is none yet.
    Affected,
    /// Nobody has found out whether this build has the flaw.
    UnderInvestigation,
    /// A fix may come later.
    FixDeferred,
    /// No fix will come.
    WillNotFix,
    /// The release or the package is not supported any more.
    EndOfLife,
}

impl Status {
    /// As people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Affected => "no fix yet",
            Self::UnderInvestigation => "under investigation",
            Self::FixDeferred => "fix deferred",
            Self::WillNotFix => "won't fix",
            Self::EndOfLife => "end of life",
        }
    }
}

/// Why a finding is not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Suppression {
    /// An exception of the ignore file.
    Ignore {
        /// Why.
        reason: String,
        /// Who answers for it.
        owner: String,
        /// The last day it holds.
        expires: String,
    },
    /// A VEX statement.
    Vex {
        /// `not_affected` or `fixed`.
        status: String,
        /// Its justification or impact statement.
        reason: String,
        /// Who says so.
        author: String,
    },
}

/// How it came to a finding: enough to check it by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The space whose advisories judged it, such as `debian:12`.
    pub space: String,
    /// The name that was looked up: a source package's for Debian and Alpine.
    pub matched: String,
    /// The version that was compared.
    pub version: String,
    /// The rule: `5.36.0-7 < 5.36.0-7+deb12u4 by dpkg order`.
    pub rule: String,
    /// The feeds that say so.
    pub feeds: Vec<String>,
}

/// A flaw as it is in a package of one version: the same for all images that have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Details {
    /// The flaw.
    pub id: String,
    /// Its other names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The records that say so.
    pub advisories: Vec<String>,
    /// One line.
    pub summary: String,
    /// The day it was published.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub published: String,
    /// How bad.
    pub severity: Severity,
    /// Who says so.
    pub severity_source: String,
    /// CVSS base score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// CVSS vectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vectors: Vec<String>,
    /// What can be done.
    pub status: Status,
    /// The version that has it no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// Whether that version is for subscribers only (Ubuntu Pro).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub subscription: bool,
    /// The distribution's reason in its own words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The day it got into the catalogue of exploited flaws.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exploited: Option<String>,
    /// Known from extortion.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ransomware: bool,
    /// Probability of exploitation within 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epss: Option<f64>,
    /// A malicious package.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub malicious: bool,
    /// How it was found.
    pub evidence: Evidence,
}

/// One flaw in one package.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Place of the package in the inventory.
    pub package: usize,
    #[serde(flatten, serialize_with = "shared")]
    details: Arc<Details>,
    /// Why it is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<Suppression>,
}

fn shared<S: Serializer>(details: &Arc<Details>, to: S) -> Result<S::Ok, S::Error> {
    details.as_ref().serialize(to)
}

impl Deref for Finding {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.details
    }
}

impl Details {
    /// Whether an upgrade that anybody can have ends it.
    #[must_use]
    pub fn fixable(&self) -> bool {
        self.fixed.is_some() && !self.subscription
    }

    /// Whether it is news rather than a flaw: shown when asked for, never counted.
    #[must_use]
    pub fn is_minor(&self) -> bool {
        self.severity == Severity::Negligible && self.exploited.is_none() && !self.malicious
    }
}

impl Finding {
    /// Whether this is one of its ids, however it is written: a `cve-…` that would silently be
    /// another one helps nobody.
    #[must_use]
    pub fn is_named(&self, id: &str) -> bool {
        std::iter::once(&self.id)
            .chain(&self.aliases)
            .chain(&self.advisories)
            .any(|own| own.eq_ignore_ascii_case(id))
    }

    /// Whether it makes a verdict of "vulnerable".
    #[must_use]
    pub fn counts(&self) -> bool {
        self.suppressed.is_none() && !self.is_minor() && self.status != Status::UnderInvestigation
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In one word.
    pub verdict: Verdict,
    /// Why it may be incomplete.
    pub doubts: Vec<Doubt>,
    /// What was found, the most urgent first; suppressed ones as well.
    pub findings: Vec<Finding>,
    /// Packages that were judged.
    pub judged: usize,
    /// Packages whose version, origin or ecosystem forbids to judge them.
    pub unjudged: usize,
    /// Exceptions that do not hold any more.
    pub expired: Vec<String>,
    /// The day it was made for.
    pub today: String,
    /// The database.
    pub database: Database,
}

/// The database that a report rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Hash of its content.
    pub digest: String,
    /// When it was made.
    pub created: String,
    /// The day up to which it knows advisories about all that was judged.
    pub newest: String,
}

impl Report {
    /// The findings that count.
    pub fn counted(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.counts())
    }

    /// Whether any doubt remains about this inventory.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.doubts.is_empty()
    }

    /// The package of a finding.
    #[must_use]
    pub fn package<'a>(
        &self,
        inventory: &'a Inventory,
        finding: &Finding,
    ) -> Option<&'a crate::package::Package> {
        inventory.packages.get(finding.package)
    }
}

/// Days between two days of the form `2026-11-22`; none when one is no day.
pub(crate) fn days_between(from: &str, to: &str) -> Option<i64> {
    Some(day_number(to)? - day_number(from)?)
}

/// Whether the text is a day of the calendar.
#[must_use]
pub fn is_day(text: &str) -> bool {
    text.len() == 10 && day_number(text).is_some()
}

/// A day, in quotes or as TOML writes days.
pub(crate) fn day<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expires has to be a day such as \"2026-12-31\"")]
    enum Day {
        Quoted(String),
        Plain(toml::value::Datetime),
    }
    Ok(match Day::deserialize(from)? {
        Day::Quoted(text) => text,
        // With a time of day it is no day, and refused as such.
        Day::Plain(plain) => plain.to_string(),
    })
}

fn day_number(text: &str) -> Option<i64> {
    let mut parts = text.get(..10)?.split('-');
    let year: i32 = parts.next()?.parse().ok()?;
    let month: u8 = parts.next()?.parse().ok()?;
    let day: u8 = parts.next()?.parse().ok()?;
    let date =
        time::Date::from_calendar_date(year, time::Month::try_from(month).ok()?, day).ok()?;
    Some(i64::from(date.to_julian_day()))
}

#[cfg(test)]
mod age_tests;
#[cfg(test)]
mod tests;
