//! The gate of signatures.
//!
//! What is judged is the image's content: the digests that it was verified to come from when it
//! was pulled are held against what was signed. The names that it carries here only say which rule
//! applies. So nothing is won by giving an image another name, by moving a tag between the look and
//! the pull, or by loading, building or committing something under a name that is signed.

mod metadata;
mod signatures;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use brig_api::auth::RegistryAuth;
use brig_engine::{Occasion, Origin};
use brig_image::ImageStore;
use brig_proto::brig::{EvidenceFile, EvidenceSignature, TrustMetadata};
use brig_trust::cosign::Attached;
use brig_trust::key::KeyId;
use brig_trust::policy::{
    CosignRule, Dct, Local, Mode, Need, Question, Require, Rule, SignedBy, TrustPolicy, Vouched,
};
use brig_trust::{Gun, Role};
use brig_types::digest::Digest;
use brig_types::error::chain;
use brig_types::reference::Reference;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::metadata::Metadata;
use self::signatures::Signatures;
use super::facts::ClusterFacts;
use super::gate::{Decision, Gate, Subject, Verdict};
use super::policies::PolicyInForce;

/// The policy's name, and the rule's where there is none.
const NAME: &str = "trust";
const LOCAL_RULE: &str = "local";

/// Who signed it?
#[derive(Debug)]
pub struct TrustGate {
    metadata: Metadata,
    signatures: Signatures,
    facts: Arc<ClusterFacts>,
    images: ImageStore,
}

/// What a rule says of one name of an image.
struct Outcome {
    verdict: Verdict,
    mode: Mode,
    rule: String,
    digest: Option<Digest>,
    warnings: Vec<String>,
    details: Value,
}

impl Outcome {
    fn new(verdict: Verdict, mode: Mode, rule: &str) -> Self {
        let rule = rule.to_owned();
        Self { verdict, mode, rule, digest: None, warnings: Vec::new(), details: Value::Null }
    }

    fn refused(reason: impl Into<String>, mode: Mode, rule: &str) -> Self {
        Self::new(Verdict::Refused(reason.into()), mode, rule)
    }

    /// Whether the image may start by it.
    fn passes(&self) -> bool {
        self.verdict == Verdict::Admitted || self.mode != Mode::Enforce
    }
}

impl From<Outcome> for Decision {
    fn from(outcome: Outcome) -> Self {
        let Outcome { verdict, mode, rule, digest, warnings, details } = outcome;
        let verdict = if mode == Mode::Off { Verdict::Admitted } else { verdict };
        let enforced = mode == Mode::Enforce;
        Self { verdict, enforced, rule, digest, warnings, details }
    }
}

/// What was found out about who signed an image.
#[derive(Default)]
struct Findings {
    digest: Option<Digest>,
    warnings: Vec<String>,
    details: serde_json::Map<String, Value>,
}

impl TrustGate {
    /// A gate that keeps what it verified below `dir`.
    #[must_use]
    pub fn new(
        dir: &Path,
        insecure: Vec<String>,
        facts: Arc<ClusterFacts>,
        images: ImageStore,
    ) -> Self {
        Self {
            metadata: Metadata::new(dir),
            signatures: Signatures::new(dir, insecure),
            facts,
            images,
        }
    }

    async fn judge_name(
        &self,
        (policy, document): (&PolicyInForce, &TrustPolicy),
        reference: &Reference,
        subject: &Subject<'_>,
    ) -> Outcome {
        let repository = reference.name();
        let Some(rule) = document.rule_for(&repository) else {
            return Outcome::refused("no rule names it", document.mode, "");
        };
        let (mode, name) = (document.mode_of(rule), rule.prefix());
        if mode == Mode::Off {
            return Outcome::new(Verdict::Admitted, mode, name);
        }
        if stands(subject, &policy.standing) {
            let mut outcome = Outcome::new(Verdict::Admitted, mode, name);
            outcome.warnings.push(format!("{} ran before the policy came", subject.asked));
            return outcome;
        }
        match &rule.require {
            Require::Reject => {
                Outcome::refused(format!("images of {repository} are not allowed here"), mode, name)
            }
            Require::Accept => Self::accept(document, rule, reference, subject),
            Require::SignedBy(signed) => {
                let mut findings = Findings::default();
                let judged = self.signed(signed, reference, subject, &mut findings).await;
                let verdict = match judged {
                    Ok(()) => Verdict::Admitted,
                    Err(reason) => Verdict::Refused(reason),
                };
                let Findings { digest, warnings, details } = findings;
                let (details, rule) = (Value::Object(details), name.to_owned());
                Outcome { verdict, mode, rule, digest, warnings, details }
            }
        }
    }

    /// Whether an image that is here is one of those that a rule accepts: that it is called so is
    /// not enough.
    fn accept(
        document: &TrustPolicy,
        rule: &Rule,
        reference: &Reference,
        subject: &Subject<'_>,
    ) -> Outcome {
        let (mode, name) = (document.mode_of(rule), rule.prefix());
        let comes_from = |origin: &Reference| {
            document.rule_for(&origin.name()).is_some_and(|other| other.prefix() == name)
        };
        let admitted = match subject.local {
            None => true,
            Some(local) => {
                rule.is_rest()
                    || local.repo_digests.iter().any(comes_from)
                    || (local.repo_digests.is_empty() && document.local == Local::Accept)
            }
        };
        if admitted {
            return Outcome::new(Verdict::Admitted, mode, name);
        }
        Outcome::refused(
            format!(
                "the image that is here as {} was not pulled from there; pull it: docker pull {}",
                reference.familiar(),
                reference.familiar()
            ),
            mode,
            name,
        )
    }

    /// Whether those who have to have signed an image.
    async fn signed(
        &self,
        signed: &SignedBy,
        reference: &Reference,
        subject: &Subject<'_>,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let repository = reference.name();
        findings.details.insert("Repository".to_owned(), json!(repository));
        let gun = Gun::parse(&repository).map_err(|error| error.to_string())?;
        let facts = self.facts.ask(&repository).await.map_err(|error| {
            format!("what this node remembers of its swarm cannot be read: {error}")
        })?;
        let evidence = facts.and_then(|facts| facts.evidence);
        if let Some(evidence) = &evidence
            && stands(subject, &evidence.admitted)
        {
            findings.details.insert("AdmittedBefore".to_owned(), json!(true));
            return Ok(());
        }
        let here: Option<Vec<Digest>> = subject.local.map(|local| {
            local.repo_digests.iter().filter_map(|name| name.digest().cloned()).collect()
        });
        let question = Question { reference, here: here.as_deref() };
        let mut outcomes = Vec::new();
        if let Some(rule) = &signed.dct {
            let judged = self.by_metadata(rule, &gun, &question, subject, evidence.as_ref());
            outcomes.push(judged.await.map(|(vouched, known)| {
                findings.warnings.extend(known.warnings);
                findings.details.insert("ContentTrust".to_owned(), known.details);
                vouched
            }));
        }
        if let Some(rule) = &signed.cosign {
            let settled = outcomes.first().and_then(|outcome| outcome.as_ref().ok());
            let digests = match settled {
                Some(vouched) => vec![vouched.digest.clone()],
                None => self.candidates(&question, subject.auth).await?,
            };
            let judged = self.by_keys(rule, reference, &digests, subject, evidence.as_ref()).await;
            if let Ok(vouched) = &judged {
                let shown = json!({ "Keys": vouched.signers });
                findings.details.insert("Cosign".to_owned(), shown);
            }
            outcomes.push(judged);
        }
        let vouched = match signed.need {
            Need::All => outcomes.into_iter().collect::<Result<Vec<_>, _>>()?,
            Need::Any => {
                let (good, bad): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
                let good: Vec<Vouched> = good.into_iter().flatten().collect();
                if good.is_empty() {
                    let reasons: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
                    return Err(reasons.join("; "));
                }
                good
            }
        };
        let signers: BTreeSet<&String> = vouched.iter().flat_map(|v| &v.signers).collect();
        findings.details.insert("Signers".to_owned(), json!(signers));
        findings.digest = vouched.first().map(|vouched| vouched.digest.clone());
        Ok(())
    }

    /// What content trust says.
    async fn by_metadata(
        &self,
        rule: &Dct,
        gun: &Gun,
        question: &Question<'_>,
        subject: &Subject<'_>,
        evidence: Option<&TrustMetadata>,
    ) -> Result<(Vouched, Shown), String> {
        let recent = match (subject.origin, subject.occasion) {
            (Origin::Task { .. }, _) => metadata::RECENT_FOR_TASKS,
            (Origin::Client, Occasion::FirstStart) => metadata::RECENT_FOR_STARTS,
            (Origin::Client, Occasion::Create) => Duration::ZERO,
        };
        let reading = metadata::Reading { rule, gun, auth: subject.auth, recent };
        let known = self.metadata.read(&reading, evidence).await;
        let known = known.map_err(|error| chain(&error))?;
        let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let repository = &known.repository;
        // By their own IDs: what a rule for several repositories of one owner names.
        let root_keys: Vec<KeyId> = repository
            .root
            .document
            .role_keys(&Role::Root)
            .map(|role| role.keys.iter().filter_map(|(_, key)| key.canonical_id().ok()).collect())
            .unwrap_or_default();
        let details = json!({
            "Server": rule.server,
            "RootKeys": root_keys,
            "Evidence": if known.stored { "stored" } else { "fresh" },
            "ConfirmedAt": time(known.confirmed_at),
            "Expires": time(repository.timestamp.document.expires.0),
            "RootVersion": repository.root.document.version,
        });
        let vouched = rule.judge(repository, question).map_err(|error| error.to_string())?;
        Ok((vouched, Shown { warnings: known.warnings, details }))
    }

    /// Which manifests may be meant, where nobody said it.
    async fn candidates(
        &self,
        question: &Question<'_>,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<Digest>, String> {
        let reference = question.reference;
        match (reference.digest(), question.here) {
            (Some(digest), Some(here)) if !here.contains(digest) => {
                Err(format!("the image that is here is not {}", reference.familiar()))
            }
            (Some(digest), _) => Ok(vec![digest.clone()]),
            (None, Some([])) => Err(format!(
                "the image that is here came from no registry, so nobody can have signed it; pull it: docker pull {}",
                reference.familiar()
            )),
            (None, Some(here)) => Ok(here.to_vec()),
            (None, None) => {
                let credentials = auth.map(crate::api::image_transfer::credentials_of);
                let found = self.images.distribution(reference, credentials).await;
                found.map(|found| vec![found.digest]).map_err(|error| {
                    format!("the registry does not say what {reference} is: {}", chain(&error))
                })
            }
        }
    }

    /// What cosign's keys say.
    async fn by_keys(
        &self,
        rule: &CosignRule,
        reference: &Reference,
        digests: &[Digest],
        subject: &Subject<'_>,
        evidence: Option<&TrustMetadata>,
    ) -> Result<Vouched, String> {
        let mut reason = String::new();
        for digest in digests {
            let mut kept = evidence.map(|evidence| attached(evidence, digest)).unwrap_or_default();
            kept.extend(self.signatures.kept(digest).await);
            // What was found before is enough; nothing makes it wrong.
            if let Ok(vouched) = rule.judge(&kept, reference, digest) {
                return Ok(vouched);
            }
            let found = match self.signatures.find(reference, digest, subject.auth).await {
                Ok(found) => found,
                Err(error) => {
                    reason = error;
                    continue;
                }
            };
            match rule.judge(&found, reference, digest) {
                Ok(vouched) => return Ok(vouched),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

/// What is shown of metadata.
struct Shown {
    warnings: Vec<String>,
    details: Value,
}

/// Whether a task's image is one that was admitted before, and cannot have become another since.
fn stands(subject: &Subject<'_>, admitted: &[String]) -> bool {
    let is_task = matches!(subject.origin, Origin::Task { .. });
    let is_pinned = subject.reference.as_ref().is_some_and(|name| name.digest().is_some());
    is_task && is_pinned && admitted.iter().any(|image| image == subject.asked)
}

/// The signatures of an image that the cluster keeps.
fn attached(evidence: &TrustMetadata, digest: &Digest) -> Vec<Attached> {
    let of_digest = evidence.signatures.iter().filter(|s| s.digest == digest.as_str());
    of_digest.filter_map(|s| serde_json::from_slice(&s.attached).ok()).collect()
}

#[async_trait]
impl Gate for TrustGate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn canonical(&self, document: &[u8]) -> Result<Vec<u8>, String> {
        TrustPolicy::parse_new(document)
            .and_then(|policy| policy.to_json())
            .map_err(|error| error.to_string())
    }

    async fn judge(&self, policy: &PolicyInForce, subject: &Subject<'_>) -> Decision {
        let document = match TrustPolicy::parse(&policy.document) {
            Ok(document) => document,
            Err(error) => {
                let reason = format!("the policy cannot be read: {error}");
                return Outcome::refused(reason, Mode::Enforce, "").into();
            }
        };
        let by = (policy, &document);
        if let Some(reference) = &subject.reference {
            return self.judge_name(by, reference, subject).await.into();
        }
        // By its id: every repository that it was pulled from may vouch for it.
        let local = subject.local.map(|local| local.repo_digests).unwrap_or_default();
        let origins: BTreeSet<Reference> = local.iter().map(Reference::repository).collect();
        let mut refused: Option<Outcome> = None;
        for origin in &origins {
            let outcome = self.judge_name(by, origin, subject).await;
            if outcome.passes() {
                return outcome.into();
            }
            refused.get_or_insert(outcome);
        }
        if let Some(refused) = refused {
            return refused.into();
        }
        let rest_accepts =
            document.rules.iter().any(|r| r.is_rest() && r.require == Require::Accept);
        if document.local == Local::Accept || rest_accepts {
            return Outcome::new(Verdict::Admitted, document.mode, LOCAL_RULE).into();
        }
        let reason = "it came from no registry (it was built, loaded, imported or committed here), so nobody can have signed it";
        Outcome::refused(reason, document.mode, LOCAL_RULE).into()
    }

    async fn keep_evidence(&self, policy: &PolicyInForce, subject: &Subject<'_>, pinned: &str) {
        let (Ok(control), Some(reference)) = (self.facts.swarm().control(), &subject.reference)
        else {
            return;
        };
        let repository = reference.name();
        let Ok(document) = TrustPolicy::parse(&policy.document) else { return };
        let Some(Require::SignedBy(signed)) =
            document.rule_for(&repository).map(|rule| &rule.require)
        else {
            return;
        };
        let Ok(gun) = Gun::parse(&repository) else { return };
        let mut evidence = TrustMetadata {
            name: repository,
            admitted: vec![pinned.to_owned()],
            ..TrustMetadata::default()
        };
        if signed.dct.is_some() {
            let (files, confirmed_at) = self.metadata.kept(&gun).await;
            evidence.confirmed_at = confirmed_at;
            evidence.files = files
                .into_iter()
                .map(|(role, content)| EvidenceFile { role: role.to_string(), content })
                .collect();
        }
        if signed.cosign.is_some()
            && let Some(digest) = &subject.digest
        {
            let found = self.signatures.kept(digest).await;
            evidence.signatures = found
                .iter()
                .filter_map(|attached| serde_json::to_vec(attached).ok())
                .map(|attached| EvidenceSignature { digest: digest.to_string(), attached })
                .collect();
        }
        if let Err(error) = control.put_trust_metadata(evidence).await {
            let error = chain(&error);
            tracing::warn!(
                image = pinned,
                error,
                "the cluster does not keep an image's signatures"
            );
        }
    }
}
