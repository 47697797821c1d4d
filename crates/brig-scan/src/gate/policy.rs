//! The policy: rules by image prefix.

use brig_types::prefix::ImagePrefix;
use brig_types::reference::Reference;
use serde::{Deserialize, Serialize};

use super::exception::Exceptions;
use super::{DocumentError, MAX_RULES, read};
use crate::matching::{Doubt, Options};
use crate::severity::Severity;

/// What may start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Of the rules whose prefix matches, the one with the longest prefix decides. An image that no
    /// rule matches is admitted.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What somebody answers for.
    #[serde(default, skip_serializing_if = "Exceptions::is_empty")]
    pub exceptions: Exceptions,
}

/// What may start of the images with a prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The images it is about.
    pub prefix: ImagePrefix,
    /// What a reason to refuse does.
    #[serde(default)]
    pub mode: Mode,
    /// Refuse flaws of this severity and above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Let pass what no upgrade ends; flaws that are known to be exploited do not pass by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixable_only: bool,
    /// Refuse flaws that are known to be exploited, whatever their severity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known_exploited: bool,
    /// Refuse flaws that are exploited within 30 days with this probability or a greater one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epss: Option<f64>,
    /// What flaws without any severity do, where `severity` is given.
    #[serde(default = "Action::warning")]
    pub unrated: Action,
    /// What it does when not everything could be judged.
    #[serde(default)]
    pub unknown: Action,
    /// The same for single kinds of doubt.
    #[serde(default, skip_serializing_if = "Doubts::is_empty")]
    pub doubts: Doubts,
    /// Days after which the data counts as stale; 0 for never.
    #[serde(default = "default_age")]
    pub max_age: u32,
}

/// What a rule does with a reason to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuse.
    #[default]
    Enforce,
    /// Admit and say it.
    Warn,
    /// Admit; nothing is judged.
    Off,
}

/// What one kind of reason does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing.
    Accept,
    /// It is said, and the image starts.
    Warn,
    /// The image does not start.
    #[default]
    Refuse,
}

impl Action {
    fn warning() -> Self {
        Self::Warn
    }
}

/// Kinds of doubt whose action differs from the rule's `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doubts {
    /// There is no inventory of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_inventory: Option<Action>,
    /// There is no database, or it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_database: Option<Action>,
    /// The newest advisory is older than `max_age`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Action>,
    /// No package was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing_found: Option<Action>,
    /// The distribution is not known, or no feed speaks about it or an ecosystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<Action>,
    /// The release or a package gets no updates any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_life: Option<Action>,
    /// A file could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Action>,
    /// Packages without a version, of other repositories, or flaws that nobody has looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unjudged: Option<Action>,
}

/// A kind of doubt, as policies and exceptions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtKind {
    /// See [`Doubts::no_inventory`].
    NoInventory,
    /// See [`Doubts::no_database`].
    NoDatabase,
    /// See [`Doubts::stale`].
    Stale,
    /// See [`Doubts::nothing_found`].
    NothingFound,
    /// See [`Doubts::unsupported`].
    Unsupported,
    /// See [`Doubts::end_of_life`].
    EndOfLife,
    /// See [`Doubts::unreadable`].
    Unreadable,
    /// See [`Doubts::unjudged`].
    Unjudged,
}

impl DoubtKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::NoInventory,
        Self::NoDatabase,
        Self::Stale,
        Self::NothingFound,
        Self::Unsupported,
        Self::EndOfLife,
        Self::Unreadable,
        Self::Unjudged,
    ];

    /// As policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoInventory => "no_inventory",
            Self::NoDatabase => "no_database",
            Self::Stale => "stale",
            Self::NothingFound => "nothing_found",
            Self::Unsupported => "unsupported",
            Self::EndOfLife => "end_of_life",
            Self::Unreadable => "unreadable",
            Self::Unjudged => "unjudged",
        }
    }

    /// The kind of a report's doubt.
    #[must_use]
    pub fn of(doubt: &Doubt) -> Self {
        match doubt {
            Doubt::NothingFound => Self::NothingFound,
            Doubt::NoDistribution { .. }
            | Doubt::UnsupportedDistribution { .. }
            | Doubt::NoData { .. } => Self::Unsupported,
            Doubt::EndOfLife { .. } | Doubt::SupportEnded { .. } => Self::EndOfLife,
            Doubt::StaleData { .. } => Self::Stale,
            Doubt::Unread { .. } => Self::Unreadable,
            Doubt::NoVersion { .. } | Doubt::ThirdParty { .. } | Doubt::Undetermined { .. } => {
                Self::Unjudged
            }
        }
    }
}

impl Doubts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of(&self, kind: DoubtKind) -> Option<Action> {
        match kind {
            DoubtKind::NoInventory => self.no_inventory,
            DoubtKind::NoDatabase => self.no_database,
            DoubtKind::Stale => self.stale,
            DoubtKind::NothingFound => self.nothing_found,
            DoubtKind::Unsupported => self.unsupported,
            DoubtKind::EndOfLife => self.end_of_life,
            DoubtKind::Unreadable => self.unreadable,
            DoubtKind::Unjudged => self.unjudged,
        }
    }
}

fn default_age() -> u32 {
    7
}

impl Rule {
    /// What it does about a kind of doubt.
    #[must_use]
    pub fn on(&self, kind: DoubtKind) -> Action {
        self.doubts.of(kind).unwrap_or(self.unknown)
    }

    /// How an image is judged for it: nothing is left out, the policy's own exceptions come later.
    #[must_use]
    pub fn options(&self, today: &str) -> Options {
        Options {
            today: today.to_owned(),
            max_age: (self.max_age > 0).then_some(self.max_age),
            ..Options::default()
        }
    }
}

impl Policy {
    /// Reads a policy: JSON or TOML.
    ///
    /// # Errors
    /// [`DocumentError`], which names the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let policy: Self = read(bytes)?;
        policy.exceptions.check()?;
        let field = |name: String, why: String| Err(DocumentError::Field { field: name, why });
        if policy.rules.len() > MAX_RULES {
            return field("rules".to_owned(), format!("more than {MAX_RULES}"));
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            if let Some(epss) = rule.epss
                && !(epss > 0.0 && epss <= 1.0)
            {
                let why = format!("{epss} is no probability between 0 and 1");
                return field(format!("rules[{at}].epss"), why);
            }
            if rule.severity == Some(Severity::Negligible) {
                let why =
                    "negligible flaws never count; use \"low\" or above, or \"unknown\" for all";
                return field(format!("rules[{at}].severity"), why.to_owned());
            }
            let twin = policy.rules.iter().take(at).position(|other| other.prefix == rule.prefix);
            if let Some(twin) = twin {
                let why = format!("{} is rules[{twin}]'s prefix already", rule.prefix);
                return field(format!("rules[{at}].prefix"), why);
            }
        }
        Ok(policy)
    }

    /// Reads a policy that somebody wants to put in force: what can only be a mistake is refused here,
    /// and goes on being understood where it is in force already.
    ///
    /// # Errors
    /// [`DocumentError`], which names the field.
    pub fn parse_new(bytes: &[u8]) -> Result<Self, DocumentError> {
        let policy = Self::parse(bytes)?;
        if policy.rules.is_empty() {
            let why = "there are none, so nothing would ever be refused: write one, for example \
                       [[rules]] with prefix = \"*\" and severity = \"high\" (docs/scan-policy.md); \
                       to have no policy: brig scan policy rm";
            return Err(DocumentError::Field { field: "rules".to_owned(), why: why.to_owned() });
        }
        Ok(policy)
    }

    /// The policy in its one form, which is what is stored.
    ///
    /// # Errors
    /// [`DocumentError::Write`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, DocumentError> {
        serde_json::to_vec(self).map_err(DocumentError::Write)
    }

    /// The rule that decides about an image; an image without a name is `*`'s.
    #[must_use]
    pub fn rule(&self, image: Option<&Reference>) -> Option<&Rule> {
        self.rules
            .iter()
            .filter(|rule| match image {
                Some(image) => rule.prefix.matches(image),
                None => rule.prefix.is_all(),
            })
            .max_by_key(|rule| rule.prefix.weight())
    }
}
