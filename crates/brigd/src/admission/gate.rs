//! What a gate is asked and what it answers.

use async_trait::async_trait;
use brig_api::auth::RegistryAuth;
use brig_engine::{Occasion, Origin};
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use serde_json::Value;

use super::policies::PolicyInForce;

/// An image that somebody wants to start, as far as it is known.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// As the caller wrote it.
    pub asked: &'a str,
    /// The name that was asked for, with its tag or digest; nothing for an image's id.
    pub reference: Option<Reference>,
    /// The manifest that it is about, once that is settled: by the caller, or by the gate before.
    pub digest: Option<Digest>,
    /// The image that is here; nothing where it is judged before anybody pulls it.
    pub local: Option<LocalImage<'a>>,
    /// For whom.
    pub origin: &'a Origin,
    /// When, if it is for a container; a look before there is one is the time of its making.
    pub occasion: Occasion,
    /// The caller's credentials for the registry.
    pub auth: Option<&'a RegistryAuth>,
    /// The service that it is for, if it is for one and its name is known.
    pub service: &'a str,
    /// The stack that the service belongs to.
    pub stack: &'a str,
}

/// An image of this node.
#[derive(Clone, Copy, Debug)]
pub struct LocalImage<'a> {
    /// Digest of its configuration.
    pub id: &'a Digest,
    /// Names with the digests of manifests that led to it: what was verified when it was pulled.
    pub repo_digests: &'a [Reference],
    /// Names that it has here; anybody can give it some.
    pub tags: &'a [Reference],
}

/// Whether a gate lets an image through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Admitted,
    /// It does not: why, and the way out.
    Refused(String),
}

/// What a gate says of an image.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether it is let through, as if every rule were enforced.
    pub verdict: Verdict,
    /// Whether the policy stops what is refused, or warns only.
    pub enforced: bool,
    /// The rule that decided, as the policy names it.
    pub rule: String,
    /// The manifest that is meant, where the gate settled that.
    pub digest: Option<Digest>,
    /// What a user should know although it stopped nothing.
    pub warnings: Vec<String>,
    /// What the decision rests on, for people who ask.
    pub details: Value,
}

impl Decision {
    /// Lets everything through.
    #[must_use]
    pub fn admitted(rule: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Admitted,
            enforced: true,
            rule: rule.into(),
            digest: None,
            warnings: Vec::new(),
            details: Value::Null,
        }
    }
}

/// Judges images by a policy.
#[async_trait]
pub trait Gate: std::fmt::Debug + Send + Sync + 'static {
    /// Its policy's name.
    fn name(&self) -> &'static str;

    /// Checks a document and writes it as it is stored: canonical JSON.
    ///
    /// # Errors
    /// What is wrong with it, naming the field.
    fn canonical(&self, document: &[u8]) -> Result<Vec<u8>, String>;

    /// Judges an image. A policy that cannot be read refuses everything.
    async fn judge(&self, policy: &PolicyInForce, subject: &Subject<'_>) -> Decision;

    /// An image was admitted for a service: `pinned` is what the service's spec will say.
    async fn keep_evidence(&self, _policy: &PolicyInForce, _subject: &Subject<'_>, _pinned: &str) {}
}

/// A gate that is not there yet: there is no policy for it either.
#[derive(Debug)]
pub struct Open(pub &'static str);

#[async_trait]
impl Gate for Open {
    fn name(&self) -> &'static str {
        self.0
    }

    fn canonical(&self, _: &[u8]) -> Result<Vec<u8>, String> {
        Err(format!("{} policies are not supported yet", self.0))
    }

    async fn judge(&self, _: &PolicyInForce, _: &Subject<'_>) -> Decision {
        Decision::admitted("")
    }
}
