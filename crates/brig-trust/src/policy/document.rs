//! The document.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brig_pki::web::{WebConnector, WebTrust};
use brig_types::error::chain;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cosign::{self, PublicKey};
use crate::key::KeyId;
use crate::name::{Gun, Role};
use crate::remote::ServerAddress;
use crate::root::{FirstUse, Pinning};

/// Largest document.
pub const MAX_DOCUMENT: usize = 256 << 10;
const MAX_RULES: usize = 1000;
/// What stands for all images that no other rule names.
const REST: &str = "*";
/// Where images of Docker Hub are.
const HUB: &str = "docker.io/";
/// Where its official ones are, whose names may be said without it.
const OFFICIAL: &str = "docker.io/library/";

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct DocumentError {
    /// The field, as `rules[2].images`.
    pub at: String,
    /// What is wrong.
    pub reason: String,
}

fn wrong(at: impl Into<String>, reason: impl Into<String>) -> DocumentError {
    DocumentError { at: at.into(), reason: reason.into() }
}

/// What happens to an image that a rule refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It does not start.
    #[default]
    Enforce,
    /// It starts, and somebody is warned.
    Warn,
    /// Nothing is asked.
    Off,
}

/// What an image is that came from no registry: built, loaded, imported or committed here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Local {
    /// It is refused, but where the rule for all other images accepts.
    #[default]
    Refuse,
    /// It is accepted where it is called by its id, or by a name that is accepted.
    Accept,
}

/// A trust policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustPolicy {
    /// What happens to what is refused.
    #[serde(default)]
    pub mode: Mode,
    /// What images without a registry are.
    #[serde(default)]
    pub local: Local,
    /// The rules, in any order.
    pub rules: Vec<Rule>,
}

/// What is demanded of some images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The beginning of their names, in whole parts: `registry.example/team`; `*` for the rest.
    pub images: String,
    /// What is demanded.
    pub require: Require,
    /// In place of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What a rule demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Require {
    /// What cannot be had: the images are refused.
    Reject,
    /// Nothing.
    Accept,
    /// Signatures.
    SignedBy(Box<SignedBy>),
}

/// Whose signatures are demanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBy {
    /// Docker's content trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dct: Option<Dct>,
    /// Key pairs of cosign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosign: Option<CosignRule>,
    /// Where both are named: both, or one of them.
    #[serde(default)]
    pub need: Need,
}

/// How many of several kinds of signatures are demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// All.
    #[default]
    All,
    /// One.
    Any,
}

/// What metadata is that has run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expired {
    /// It proves nothing.
    #[default]
    Refuse,
    /// It counts, and somebody is warned.
    Warn,
}

/// Signatures of docker's content trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dct {
    /// The trust server, `https://…`.
    pub server: String,
    /// Authorities for its TLS beside the system's, PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// IDs of root keys: one of them has to be the repository's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub root_keys: BTreeSet<KeyId>,
    /// IDs of root certificates, instead.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub root_certificates: BTreeSet<KeyId>,
    /// Believe the first root that is seen, instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first_use: bool,
    /// Delegations that have to have signed the same image: `alice` for `targets/alice`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signers: BTreeSet<String>,
    /// How many of them; all, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_signers: Option<usize>,
    /// How old stored metadata may be when the server is out of reach: `12h`, `7d`. As long as it
    /// lasts, if nothing is said.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "to_text",
        deserialize_with = "from_text"
    )]
    pub max_age: Option<Duration>,
    /// What happens when it has run out.
    #[serde(default)]
    pub expired: Expired,
}

/// Signatures of cosign's key pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosignRule {
    /// Public keys, PEM.
    pub keys: Vec<String>,
    /// How many of them have to have signed.
    #[serde(default = "one")]
    pub min_signers: usize,
    /// What the signature's name is held against.
    #[serde(default)]
    pub identity: Identity,
    /// What signers have to have added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

const fn one() -> usize {
    1
}

/// What a signature's name is held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The same repository.
    #[default]
    Repository,
    /// The same repository, and the tag where it has one.
    Tag,
    /// Nothing: the digest alone counts.
    Any,
}

impl From<Identity> for cosign::Identity {
    fn from(identity: Identity) -> Self {
        match identity {
            Identity::Repository => Self::Repository,
            Identity::Tag => Self::Tag,
            Identity::Any => Self::Any,
        }
    }
}

impl TrustPolicy {
    /// Reads a document, JSON, and checks every field.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT {
            return Err(wrong("document", format!("larger than {MAX_DOCUMENT} bytes")));
        }
        let policy: Self =
            serde_json::from_slice(text).map_err(|error| wrong("document", error.to_string()))?;
        policy.check()?;
        Ok(policy)
    }

    /// Reads a document that somebody wants to put in force: what can only be a mistake is refused
    /// here, and goes on being understood where it is in force already.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn parse_new(text: &[u8]) -> Result<Self, DocumentError> {
        let policy = Self::parse(text)?;
        for (number, rule) in policy.rules.iter().enumerate() {
            let at = |field: &str| format!("rules[{number}].{field}");
            check_registry(&rule.images).map_err(|reason| wrong(at("images"), reason))?;
            if let Require::SignedBy(signed) = &rule.require
                && let Some(dct) = &signed.dct
            {
                dct.check_new(&at("require.signed_by.dct"))?;
            }
        }
        Ok(policy)
    }

    /// The document as it is stored: fields in their order, what is not said filled in.
    ///
    /// # Errors
    /// [`DocumentError`], which a policy that was read does not meet.
    pub fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        serde_json::to_vec(self).map_err(|error| wrong("document", error.to_string()))
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.rules.len() > MAX_RULES {
            return Err(wrong("rules", format!("more than {MAX_RULES}")));
        }
        let mut seen = BTreeSet::new();
        for (number, rule) in self.rules.iter().enumerate() {
            let at = |field: &str| format!("rules[{number}].{field}");
            let prefix = rule.prefix();
            check_prefix(prefix).map_err(|reason| wrong(at("images"), reason))?;
            if !seen.insert(prefix) {
                return Err(wrong(at("images"), format!("{prefix} comes twice")));
            }
            if let Require::SignedBy(signed) = &rule.require {
                signed.check(&at("require.signed_by"))?;
            }
        }
        if !seen.contains(REST) {
            return Err(wrong(
                "rules",
                "no rule for the rest: add one with images = \"*\" and require = \"reject\" or \"accept\"",
            ));
        }
        Ok(())
    }

    /// The rule for a repository, named in full.
    #[must_use]
    pub fn rule_for(&self, repository: &str) -> Option<&Rule> {
        let fits = |rule: &&Rule| rule.fits(repository);
        self.rules.iter().filter(fits).max_by_key(|rule| rule.weight(repository))
    }

    /// What happens to what this rule refuses.
    #[must_use]
    pub fn mode_of(&self, rule: &Rule) -> Mode {
        rule.mode.unwrap_or(self.mode)
    }
}

impl Rule {
    /// The beginning, without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.images.trim_end_matches('/')
    }

    /// Whether this is the rule for what no other one names.
    #[must_use]
    pub fn is_rest(&self) -> bool {
        self.prefix() == REST
    }

    fn fits(&self, repository: &str) -> bool {
        self.is_rest()
            || self.is_official(repository)
            || repository
                .strip_prefix(self.prefix())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether it names an official image as everybody does, `docker.io/nginx`.
    fn is_official(&self, repository: &str) -> bool {
        repository
            .strip_prefix(OFFICIAL)
            .is_some_and(|name| self.prefix().strip_prefix(HUB).is_some_and(|short| short == name))
    }

    /// The longer, the more of the name it says; of two that say the same the one in full.
    fn weight(&self, repository: &str) -> (usize, usize) {
        let own = self.prefix().len();
        match (self.is_rest(), self.is_official(repository)) {
            (true, _) => (0, 0),
            (false, true) => (repository.len(), own),
            (false, false) => (own, own),
        }
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix == REST {
        return Ok(());
    }
    let host = prefix.split('/').next().unwrap_or_default();
    if !(host.contains(['.', ':']) || host == "localhost") {
        return Err(format!(
            "{prefix:?} does not name its registry: images of Docker Hub are docker.io/library/NAME or docker.io/USER/NAME"
        ));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"./-_:[]".contains(&b);
    let parts = prefix.split('/').skip(1);
    if !prefix.bytes().all(plain) || parts.into_iter().any(|p| p.is_empty() || p.contains(':')) {
        return Err(format!("{prefix:?} is not the beginning of an image's name, without tag"));
    }
    if host == "index.docker.io" {
        return Err("Docker Hub is called docker.io".to_owned());
    }
    Ok(())
}

/// `busybox:1` is an image with a tag to who writes it, and would be a registry that nobody has.
fn check_registry(images: &str) -> Result<(), String> {
    match images.split_once(':') {
        Some((name, rest))
            if !rest.contains('/') && !name.contains(['.', '[']) && name != "localhost" =>
        {
            Err(format!(
                "{images:?} may be a registry or a tag: write \"{images}/\" for the registry, \"docker.io/library/{name}\" for the image, whatever its tag"
            ))
        }
        _ => Ok(()),
    }
}

impl SignedBy {
    fn check(&self, at: &str) -> Result<(), DocumentError> {
        if self.dct.is_none() && self.cosign.is_none() {
            return Err(wrong(at, "name dct, cosign or both"));
        }
        if let Some(dct) = &self.dct {
            dct.check(&format!("{at}.dct"))?;
        }
        if let Some(cosign) = &self.cosign {
            cosign.check(&format!("{at}.cosign"))?;
        }
        Ok(())
    }
}

impl Dct {
    fn check(&self, at: &str) -> Result<(), DocumentError> {
        ServerAddress::parse(&self.server)
            .map_err(|error| wrong(format!("{at}.server"), error.to_string()))?;
        let pins = [!self.root_keys.is_empty(), !self.root_certificates.is_empty(), self.first_use];
        if pins.into_iter().filter(|pin| *pin).count() != 1 {
            return Err(wrong(
                at,
                "say whom to believe by one of root_keys, root_certificates, first_use = true",
            ));
        }
        for signer in &self.signers {
            Role::signer(signer)
                .map_err(|error| wrong(format!("{at}.signers"), error.to_string()))?;
        }
        let all = self.signers.len();
        if self.min_signers.is_some_and(|needed| needed == 0 || needed > all) {
            return Err(wrong(
                format!("{at}.min_signers"),
                format!("expected 1 to {all}, the number of signers"),
            ));
        }
        Ok(())
    }

    fn check_new(&self, at: &str) -> Result<(), DocumentError> {
        let authorities = WebTrust::Verified { extra_roots: vec![self.ca.clone().into_bytes()] };
        if !self.ca.is_empty()
            && let Err(error) = WebConnector::new(&authorities, None)
        {
            return Err(wrong(format!("{at}.ca"), chain(&error)));
        }
        if self.max_age.is_some_and(|age| age.is_zero()) {
            return Err(wrong(
                format!("{at}.max_age"),
                "nothing is that young: name what counts without the server, such as 1h",
            ));
        }
        Ok(())
    }

    /// What the root of a repository has to match.
    #[must_use]
    pub fn pinning(&self, gun: &Gun) -> Pinning {
        let named = |ids: &BTreeSet<KeyId>| {
            let ids: Vec<KeyId> = ids.iter().cloned().collect();
            let pinned = (!ids.is_empty()).then(|| (gun.as_str().to_owned(), ids));
            pinned.into_iter().collect()
        };
        Pinning {
            certificates: named(&self.root_certificates),
            keys: named(&self.root_keys),
            authorities: BTreeMap::new(),
            otherwise: if self.first_use { FirstUse::Trust } else { FirstUse::Refuse },
        }
    }

    /// How many of the signers are needed.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.min_signers.unwrap_or(self.signers.len())
    }
}

impl CosignRule {
    fn check(&self, at: &str) -> Result<(), DocumentError> {
        let keys = self.public_keys().map_err(|reason| wrong(format!("{at}.keys"), reason))?;
        if keys.is_empty() {
            return Err(wrong(format!("{at}.keys"), "no key"));
        }
        if self.min_signers == 0 || self.min_signers > keys.len() {
            return Err(wrong(
                format!("{at}.min_signers"),
                format!("expected 1 to {}, the number of keys", keys.len()),
            ));
        }
        Ok(())
    }

    /// The keys, each once.
    ///
    /// # Errors
    /// What is wrong with one.
    pub fn public_keys(&self) -> Result<Vec<PublicKey>, String> {
        let mut keys: BTreeMap<String, PublicKey> = BTreeMap::new();
        for text in &self.keys {
            let found = cosign::public_keys(text.as_bytes()).map_err(|error| error.to_string())?;
            keys.extend(found.into_iter().map(|key| (key.fingerprint(), key)));
        }
        Ok(keys.into_values().collect())
    }
}

const UNITS: [(char, u64); 4] = [('d', 86400), ('h', 3600), ('m', 60), ('s', 1)];

#[expect(clippy::ref_option, reason = "serde's form")]
fn to_text<S: Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(age) = age else { return serializer.serialize_none() };
    let seconds = age.as_secs();
    let fits = UNITS.into_iter().find(|(_, length)| seconds.is_multiple_of(*length));
    let (unit, length) = fits.unwrap_or(('s', 1));
    serializer.serialize_str(&format!("{}{unit}", seconds / length))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let read = || {
        let (number, length) = UNITS
            .into_iter()
            .find_map(|(unit, length)| Some((text.strip_suffix(unit)?, length)))?;
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        number.parse::<u64>().ok()?.checked_mul(length).map(Duration::from_secs)
    };
    let invalid = || {
        serde::de::Error::custom(format!(
            "invalid max_age {text:?}: expected 90m, 12h, 7d or the like"
        ))
    };
    read().map(Some).ok_or_else(invalid)
}
