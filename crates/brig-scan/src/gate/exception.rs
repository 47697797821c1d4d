//! Exceptions: somebody answers for one flaw, somewhere, until a day.

use brig_types::prefix::ImagePrefix;
use serde::{Deserialize, Serialize};

use super::decide::Subject;
use super::policy::DoubtKind;
use super::{DocumentError, MAX_EXCEPTIONS, MAX_WORDS};
use crate::matching::{Finding, day, days_between, is_day};
use crate::package::Package;

/// Exceptions to the policy, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exceptions(pub Vec<Exception>);

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// A flaw by any of its ids, or a kind of doubt (`end_of_life`).
    pub id: String,
    /// The packages it is about, by their own or their source's name; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Where it holds.
    pub scope: Scope,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day it holds.
    #[serde(deserialize_with = "day")]
    pub expires: String,
}

/// Where an exception holds: all that is given must fit, and something must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Images with this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePrefix>,
    /// A service of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Services of this stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

impl Scope {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        let image = self.image.as_ref().is_none_or(|prefix| match subject.image {
            Some(image) => prefix.matches(image),
            None => prefix.is_all(),
        });
        let named = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == name)
        };
        image && named(&self.service, subject.service) && named(&self.stack, subject.stack)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = [
            self.image.as_ref().map(|image| format!("image {image}")),
            self.service.as_ref().map(|service| format!("service {service}")),
            self.stack.as_ref().map(|stack| format!("stack {stack}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        f.write_str(&parts.join(", "))
    }
}

impl Exceptions {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An exception without a reason, an owner, a scope or an end is none.
    pub(super) fn check(&self) -> Result<(), DocumentError> {
        if self.0.len() > MAX_EXCEPTIONS {
            let why = format!("more than {MAX_EXCEPTIONS}");
            return Err(DocumentError::Field { field: "exceptions".to_owned(), why });
        }
        for (at, exception) in self.0.iter().enumerate() {
            exception.check().map_err(|(field, why)| DocumentError::Field {
                field: format!("exceptions[{at}].{field}"),
                why,
            })?;
        }
        Ok(())
    }

    /// The exception that covers a finding, and whether it still holds.
    pub(super) fn of_finding<'a>(
        &'a self,
        finding: &Finding,
        package: &Package,
        subject: &Subject<'_>,
        today: &str,
    ) -> Found<'a> {
        self.first(subject, today, |exception| {
            let source = package.source.as_ref().map(|source| source.name.as_str());
            finding.is_named(&exception.id)
                && (exception.packages.is_empty()
                    || exception.packages.iter().any(|name| {
                        *name == package.name
                            || Some(name.as_str()) == source
                            || *name == finding.evidence.matched
                    }))
        })
    }

    /// The exception that covers a kind of doubt, and whether it still holds.
    pub(super) fn of_doubt<'a>(
        &'a self,
        kind: DoubtKind,
        subject: &Subject<'_>,
        today: &str,
    ) -> Found<'a> {
        self.first(subject, today, |exception| {
            exception.id == kind.as_str() && exception.packages.is_empty()
        })
    }

    /// One that holds before one that is over.
    fn first<'a>(
        &'a self,
        subject: &Subject<'_>,
        today: &str,
        applies: impl Fn(&Exception) -> bool,
    ) -> Found<'a> {
        let mut over = None;
        for exception in &self.0 {
            if exception.scope.holds(subject) && applies(exception) {
                if exception.holds(today) {
                    return Found::Holds(exception);
                }
                over = over.or(Some(exception));
            }
        }
        over.map_or(Found::No, Found::Over)
    }
}

/// What was found for a reason.
pub(super) enum Found<'a> {
    No,
    /// It came too late.
    Over(&'a Exception),
    Holds(&'a Exception),
}

impl Exception {
    /// Whether it holds on a day: its last day is included. On no day at all it does not.
    #[must_use]
    pub fn holds(&self, today: &str) -> bool {
        days_between(today, &self.expires).is_some_and(|days| days >= 0)
    }

    /// A short name that follows from what it is about: the same flaw, packages and scope have the
    /// same one.
    #[must_use]
    pub fn key(&self) -> String {
        let mut packages = self.packages.clone();
        packages.sort();
        let about = serde_json::json!([self.id, packages, self.scope]).to_string();
        let mut hash = brig_pki::hash::hex(&brig_pki::hash::sha256(about.as_bytes()));
        hash.truncate(12);
        hash
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let kinds = || DoubtKind::ALL.map(DoubtKind::as_str).join(", ");
        let long = |text: &String| text.len() > MAX_WORDS;
        if self.id.is_empty() || self.id.bytes().any(|byte| !byte.is_ascii_graphic()) {
            let why = format!("an id such as CVE-2026-1234, or a kind of doubt ({})", kinds());
            return Err(("id", why));
        }
        if self.scope.is_empty() {
            let why = "an image, a service or a stack is needed; image = \"*\" for everywhere";
            return Err(("scope", why.to_owned()));
        }
        if self.reason.trim().is_empty() {
            return Err(("reason", "say why".to_owned()));
        }
        if self.owner.trim().is_empty() {
            return Err(("owner", "say who answers for it".to_owned()));
        }
        if !is_day(&self.expires) {
            return Err(("expires", "the last day it holds, such as 2026-12-31".to_owned()));
        }
        let texts = [&self.id, &self.reason, &self.owner].into_iter();
        let scopes = self.scope.service.iter().chain(&self.scope.stack);
        if texts.chain(scopes).chain(&self.packages).any(long) || self.packages.len() > MAX_WORDS {
            return Err(("reason", format!("texts are at most {MAX_WORDS} bytes long")));
        }
        Ok(())
    }
}
