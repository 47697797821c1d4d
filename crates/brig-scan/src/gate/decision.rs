//! What was decided, with every sentence that a person needs.

use std::fmt::Write as _;

use brig_types::prefix::ImagePrefix;
use serde::Serialize;

use super::policy::{DoubtKind, Mode};
use crate::severity::Severity;

/// Reasons that a refusal spells out; the others are counted.
const SPELT_OUT: usize = 10;

/// The decision about one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateDecision {
    /// The image as it was named.
    pub image: String,
    /// In one word.
    pub outcome: Outcome,
    /// The rule that decided; none when no rule is about this image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<ImagePrefix>,
    /// What that rule does with reasons to refuse.
    pub mode: Mode,
    /// What speaks against the image, the worst first.
    pub reasons: Vec<Reason>,
    /// What would speak against it if nobody answered for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excepted: Vec<Excepted>,
    /// The repository that a new exception would be for; none for an image without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}

/// The decision in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It may start.
    Admitted,
    /// It may start, and somebody should look at it.
    Warned,
    /// It may not start.
    Refused,
}

/// One thing that speaks against an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Whether the policy refuses for it; otherwise it warns.
    pub refuses: bool,
    /// An exception for it that does not hold any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_exception: Option<String>,
}

/// Of what kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum What {
    /// A flaw in a package.
    Flaw(Box<Flaw>),
    /// Something could not be judged.
    Doubt {
        /// As exceptions name it.
        doubt: DoubtKind,
        /// In a sentence.
        text: String,
    },
}

/// A flaw in a package.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flaw {
    /// Its id.
    pub id: String,
    /// What makes it count.
    pub triggers: Vec<Trigger>,
    /// How bad it is.
    pub severity: Severity,
    /// Probability of exploitation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epss: Option<f64>,
    /// The package.
    pub package: String,
    /// Its installed version.
    pub version: String,
    /// The file that proves it.
    pub path: String,
    /// The layer that brought it, by diff id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The same for people: `layer 2 (RUN apt-get install openssl)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The version that has it no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// What can be done, in words.
    pub status: &'static str,
}

/// What makes a flaw count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A malicious package.
    Malicious,
    /// Known to be exploited.
    Exploited,
    /// Its severity.
    Severity,
    /// Its probability of exploitation.
    Epss,
    /// Nobody says how bad it is.
    Unrated,
}

/// Something that somebody answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excepted {
    /// The flaw or the kind of doubt.
    pub id: String,
    /// The package, of a flaw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Who.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day.
    pub expires: String,
}

impl Reason {
    /// The id that an exception for it would have.
    #[must_use]
    pub fn id(&self) -> &str {
        match &self.what {
            What::Flaw(flaw) => &flaw.id,
            What::Doubt { doubt, .. } => doubt.as_str(),
        }
    }

    /// In one line: what, where, and what ends it.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = match &self.what {
            What::Flaw(flaw) => flaw.line(),
            What::Doubt { doubt, text } => format!("{text} ({})", doubt.as_str()),
        };
        if let Some(expired) = &self.expired_exception {
            let _ = write!(line, "; {expired}");
        }
        line
    }
}

impl Flaw {
    fn line(&self) -> String {
        let mut marks = vec![self.severity.as_str().to_owned()];
        for trigger in &self.triggers {
            match trigger {
                Trigger::Malicious => marks.push("a malicious package".to_owned()),
                Trigger::Exploited => marks.push("known to be exploited".to_owned()),
                Trigger::Epss => {
                    marks.push(format!("EPSS {:.2}", self.epss.unwrap_or_default()));
                }
                Trigger::Severity | Trigger::Unrated => {}
            }
        }
        let mut line =
            format!("{} ({}): {} {}", self.id, marks.join(", "), self.package, self.version);
        if let Some(origin) = &self.origin {
            let _ = write!(line, " in {origin}");
        }
        match &self.fixed {
            Some(fixed) => {
                let _ = write!(line, ", fixed in {fixed}: upgrade {} to {fixed}", self.package);
            }
            None => {
                let _ = write!(line, ", {}", self.status);
            }
        }
        line
    }
}

impl GateDecision {
    /// The reasons that refuse.
    pub fn refusing(&self) -> impl Iterator<Item = &Reason> {
        self.reasons.iter().filter(|reason| reason.refuses)
    }

    /// Why an image may not start and what can be done, in lines; whoever tells it says before which
    /// image it is about. Empty when nothing speaks against it enough, or when the rule is off.
    #[must_use]
    pub fn refusal(&self) -> String {
        if self.mode == Mode::Off || self.refusing().next().is_none() {
            return String::new();
        }
        let reasons: Vec<&Reason> = self.refusing().collect();
        let mut text = match reasons.len() {
            1 => "1 finding".to_owned(),
            several => format!("{several} findings"),
        };
        for reason in reasons.iter().take(SPELT_OUT) {
            let _ = write!(text, "\n  {}", reason.line());
        }
        if let Some(more) = reasons.len().checked_sub(SPELT_OUT).filter(|more| *more > 0) {
            let _ = write!(text, "\n  and {more} more: brig scan {}", self.image);
        }
        let upgrade = reasons
            .iter()
            .any(|reason| matches!(&reason.what, What::Flaw(flaw) if flaw.fixed.is_some()));
        if upgrade {
            text.push_str(
                "\nBuild the image anew with the fixed versions, or answer for it until a day:",
            );
        } else {
            text.push_str("\nUse another image, or answer for it until a day:");
        }
        if let Some(first) = reasons.first() {
            let _ = write!(text, "\n  {}", self.exception(first));
        }
        text
    }

    /// What speaks against an image without stopping it, a line for each thing.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warning = || self.reasons.iter().filter(|reason| !reason.refuses);
        let mut lines: Vec<String> = warning()
            .take(SPELT_OUT)
            .map(|reason| format!("scan policy: {}: {}", self.image, reason.line()))
            .collect();
        if let Some(more) = warning().count().checked_sub(SPELT_OUT).filter(|more| *more > 0) {
            lines.push(format!("scan policy: {}: {more} more: brig scan {0}", self.image));
        }
        lines
    }

    /// The command that adds an exception for a reason.
    #[must_use]
    pub fn exception(&self, reason: &Reason) -> String {
        let image = self.repository.as_deref().unwrap_or("'*'");
        format!(
            "brig scan exception add {} --image {image} --owner WHO --reason WHY --expires YYYY-MM-DD",
            reason.id()
        )
    }
}
