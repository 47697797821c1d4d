//! May this image start here?
//!
//! Two gates answer, each by a policy of its own: who signed the image (`trust`) and what it is
//! vulnerable to (`scan`). They are asked wherever an image is chosen: when a service is created or
//! changed ([`services`]), by a task's node before it fetches one ([`tasks`]), and by the engine for
//! every container ([`hook`]), whoever wants it. Where there is no policy nothing is asked and
//! nothing costs time.
//!
//! What ran before a policy came goes on, and may be restarted: a gate never causes an outage.

pub mod api;
pub mod facts;
pub mod gate;
pub mod hook;
pub mod policies;
pub mod services;
pub mod tasks;
pub mod trust;

mod files;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use brig_engine::{Origin, Refusal};
use brig_image::ImageStore;
use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind, chain};
use tokio_util::sync::CancellationToken;

use self::gate::{Decision, Gate, Subject, Verdict};
use self::policies::{Policies, PolicyInForce};
use crate::audit::AuditLog;
use crate::audit::entry::{Entry, Kind};

/// The action of refusals in the audit log.
const AUDIT_ACTION: &str = "admission";

/// How often the managers are asked for what is remembered of them.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Keeps what this node remembers of its cluster's policies up to date until the daemon stops.
pub async fn follow(admission: Arc<Admission>, stop: CancellationToken) {
    loop {
        if let Err(error) = admission.policies.list().await {
            tracing::warn!(error = %chain(&error), "nothing new starts here");
        }
        let pause = tokio::time::sleep(LOOK_EVERY);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// The gates and their policies.
#[derive(Debug)]
pub struct Admission {
    /// What the gates go by.
    pub policies: Policies,
    /// Who signed it?
    pub trust: Box<dyn Gate>,
    /// What is it vulnerable to?
    pub scan: Box<dyn Gate>,
    images: ImageStore,
    audit: AuditLog,
}

/// What is written down of a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// What is refused, and what would be.
    Everything,
    /// What is refused; the rest is judged again.
    Refusals,
    /// All of it is judged again.
    Nothing,
}

impl Recorded {
    fn includes(self, enforced: bool) -> bool {
        match self {
            Self::Everything => true,
            Self::Refusals => enforced,
            Self::Nothing => false,
        }
    }
}

/// An image that may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The manifest that was judged, where a gate settled it.
    pub digest: Option<Digest>,
    /// For whoever asked.
    pub warnings: Vec<String>,
}

/// An image that may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The policy that says so.
    pub policy: String,
    /// Its version.
    pub version: u64,
    /// What to tell: cause, evidence, the way out.
    pub message: String,
}

impl Categorized for Refused {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Forbidden
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let attributes = BTreeMap::from([
            ("policy".to_owned(), refused.policy),
            ("version".to_owned(), refused.version.to_string()),
            ("reason".to_owned(), refused.message.clone()),
        ]);
        Self { message: refused.message, attributes }
    }
}

impl Admission {
    /// The gates over these policies.
    #[must_use]
    pub fn new(
        policies: Policies,
        trust: Box<dyn Gate>,
        scan: Box<dyn Gate>,
        images: ImageStore,
        audit: AuditLog,
    ) -> Self {
        Self { policies, trust, scan, images, audit }
    }

    /// Both gates, in the order in which they are asked: the first says which manifest is meant.
    #[must_use]
    pub fn gates(&self) -> [&dyn Gate; 2] {
        [self.trust.as_ref(), self.scan.as_ref()]
    }

    /// The gate of this name.
    #[must_use]
    pub fn gate(&self, name: &str) -> Option<&dyn Gate> {
        self.gates().into_iter().find(|gate| gate.name() == name)
    }

    /// The gates that have a policy now.
    ///
    /// # Errors
    /// [`Refused`] when that cannot be known: then nothing new starts.
    pub async fn in_force(&self) -> Result<Vec<(&dyn Gate, PolicyInForce)>, Refused> {
        let policies = self.policies.list().await.map_err(|error| Refused {
            policy: String::new(),
            version: 0,
            message: format!("which policies count cannot be known: {}", chain(&error)),
        })?;
        let mut found = Vec::new();
        for gate in self.gates() {
            let policy = policies.iter().find(|policy| policy.name == gate.name());
            found.extend(policy.map(|policy| (gate, policy.clone())));
        }
        Ok(found)
    }

    /// Judges an image by everything that counts now.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn judge(&self, subject: Subject<'_>) -> Result<Admitted, Refused> {
        let in_force = self.in_force().await?;
        self.judge_by(&in_force, subject).await
    }

    /// Judges an image that is here by its name or id, for a client.
    ///
    /// # Errors
    /// [`Refused`]. What is not here is nobody's to run.
    pub async fn judge_local(&self, asked: &str) -> Result<Vec<String>, Refused> {
        let Ok(image) = self.images.resolve(asked) else { return Ok(Vec::new()) };
        let request = hook::request(asked, &image, Origin::Client);
        Ok(self.judge(hook::subject(&request, None)).await?.warnings)
    }

    /// Judges an image by these gates.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn judge_by(
        &self,
        gates: &[(&dyn Gate, PolicyInForce)],
        subject: Subject<'_>,
    ) -> Result<Admitted, Refused> {
        self.weigh(gates, subject, Recorded::Everything).await
    }

    async fn weigh(
        &self,
        gates: &[(&dyn Gate, PolicyInForce)],
        mut subject: Subject<'_>,
        recorded: Recorded,
    ) -> Result<Admitted, Refused> {
        let mut admitted = Admitted { digest: subject.digest.clone(), warnings: Vec::new() };
        for (gate, policy) in gates {
            let Decision { verdict, enforced, rule, digest, warnings, .. } =
                gate.judge(policy, &subject).await;
            admitted.warnings.extend(warnings);
            if digest.is_some() {
                subject.digest.clone_from(&digest);
                admitted.digest = digest;
            }
            let Verdict::Refused(reason) = verdict else { continue };
            let message = told(&subject, policy, &rule, &reason);
            if recorded.includes(enforced) {
                self.record(&subject, policy, &rule, &reason, enforced);
            }
            if enforced {
                let (policy, version) = (policy.name.clone(), policy.version);
                return Err(Refused { policy, version, message });
            }
            admitted.warnings.push(message);
        }
        Ok(admitted)
    }

    fn record(
        &self,
        subject: &Subject<'_>,
        policy: &PolicyInForce,
        rule: &str,
        reason: &str,
        enforced: bool,
    ) {
        let text = if enforced { "an image was refused" } else { "an image would be refused" };
        tracing::warn!(
            image = subject.asked,
            policy = policy.name,
            version = policy.version,
            rule,
            reason,
            "{text}"
        );
        let entry = Entry {
            kind: Kind::Decision,
            action: AUDIT_ACTION.to_owned(),
            object: subject.asked.to_owned(),
            rule: format!("{}/{rule}@{}", policy.name, policy.version),
            allowed: !enforced,
            note: reason.to_owned(),
            ..Entry::default()
        };
        if let Err(error) = self.audit.append(entry) {
            tracing::error!(error = %chain(&error), "a refusal is not in the audit log");
        }
    }
}

fn told(subject: &Subject<'_>, policy: &PolicyInForce, rule: &str, reason: &str) -> String {
    let (name, version) = (&policy.name, policy.version);
    format!(
        "image {} refused by the {name} policy (version {version}, rule {rule}): {reason}",
        subject.asked
    )
}
