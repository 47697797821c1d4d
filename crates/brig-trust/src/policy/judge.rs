//! What verified facts mean under a rule.

use std::collections::BTreeSet;

use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::document::{CosignRule, Dct};
use crate::cosign::{self, Attached, Expected};
use crate::name::Role;
use crate::repository::{Repository, Target};

/// Which image is in question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The repository, with the tag or the digest that was asked for; with neither, any image of it
    /// that was signed.
    pub reference: &'a Reference,
    /// Where the image is here: the manifests that it was verified to come from. One of them has to
    /// be what was signed.
    pub here: Option<&'a [Digest]>,
}

/// An image that its signers vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Its manifest.
    pub digest: Digest,
    /// Who: roles, or fingerprints of keys.
    pub signers: Vec<String>,
}

/// Why nobody vouches for an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unvouched {
    /// The tag is not signed.
    #[error("tag {tag} of {repository} is not signed")]
    Tag {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
    },
    /// The digest is not signed.
    #[error("{digest} is not signed in {repository}")]
    Digest {
        /// The repository.
        repository: String,
        /// The digest.
        digest: Digest,
    },
    /// None of the manifests of an image is signed.
    #[error("the image was not pulled as anything that is signed in {0}")]
    Nothing(String),
    /// What is here under the tag is something else.
    #[error(
        "the image that is here as {reference} is not the one that was signed ({signed}); pull it: docker pull {repository}@{signed}"
    )]
    Other {
        /// What was asked for.
        reference: String,
        /// Its repository.
        repository: String,
        /// What was signed.
        signed: Digest,
    },
    /// Signers are missing.
    #[error(
        "signed by {}, but {needed} of {} have to sign; missing: {}",
        list(found),
        list(wanted),
        list(missing)
    )]
    Signers {
        /// How many.
        needed: usize,
        /// Of whom.
        wanted: Vec<String>,
        /// Who has.
        found: Vec<String>,
        /// Who has not.
        missing: Vec<String>,
    },
    /// The keys of cosign.
    #[error("no signature of {digest} by {needed} of the policy's keys: {why}")]
    Keys {
        /// The image.
        digest: Digest,
        /// How many.
        needed: usize,
        /// Why the signatures that were found do not count.
        why: String,
    },
    /// The policy's keys cannot be used.
    #[error("the policy's keys cannot be used: {0}")]
    PolicyKeys(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

impl Dct {
    /// What verified metadata says of an image.
    ///
    /// # Errors
    /// [`Unvouched`].
    pub fn judge(
        &self,
        repository: &Repository,
        question: &Question<'_>,
    ) -> Result<Vouched, Unvouched> {
        let reference = question.reference;
        let name = || reference.familiar_name();
        let digest = |target: &Target| target.digest().and_then(|text| Digest::parse(&text).ok());
        // By digest, else by tag, else by what the image here came from.
        let (targets, signed) = match (reference.digest(), reference.tag()) {
            (Some(wanted), _) => {
                let fits = |digest: &Digest| digest == wanted;
                let found = released(repository, fits);
                if found.is_empty() {
                    let digest = wanted.clone();
                    return Err(Unvouched::Digest { repository: name(), digest });
                }
                (found, wanted.clone())
            }
            (None, Some(tag)) => {
                let unsigned = || Unvouched::Tag { repository: name(), tag: tag.to_owned() };
                let target = repository.released(tag).map_err(|_| unsigned())?;
                let digest = digest(&target).ok_or_else(unsigned)?;
                (vec![target], digest)
            }
            (None, None) => {
                let here = question.here.unwrap_or_default();
                let found = released(repository, |digest| here.contains(digest));
                let first = found.first().and_then(digest);
                let first = first.ok_or_else(|| Unvouched::Nothing(name()))?;
                let same: Vec<Target> =
                    found.into_iter().filter(|t| digest(t).as_ref() == Some(&first)).collect();
                (same, first)
            }
        };
        if let Some(here) = question.here
            && !here.contains(&signed)
        {
            return Err(Unvouched::Other {
                reference: reference.familiar(),
                repository: name(),
                signed,
            });
        }
        self.signed_by(repository, &targets, signed)
    }

    /// Whether the signers that are demanded agree with one of these.
    fn signed_by(
        &self,
        repository: &Repository,
        targets: &[Target],
        digest: Digest,
    ) -> Result<Vouched, Unvouched> {
        let all = repository.all_targets();
        let mut best: Vec<String> = Vec::new();
        for target in targets {
            let same = |other: &&Target| {
                other.name == target.name && other.digest().as_deref() == Some(digest.as_str())
            };
            let mut signers: BTreeSet<String> =
                all.iter().filter(same).filter_map(|other| signer(&other.role)).collect();
            let found = self.signers.iter().filter(|name| signers.contains(*name)).count();
            if found >= self.needed() {
                signers.extend(signer(&target.role));
                return Ok(Vouched { digest, signers: signers.into_iter().collect() });
            }
            best = signers.into_iter().collect();
        }
        let missing = self.signers.iter().filter(|name| !best.contains(name)).cloned().collect();
        Err(Unvouched::Signers {
            needed: self.needed(),
            wanted: self.signers.iter().cloned().collect(),
            found: best,
            missing,
        })
    }
}

/// What a role is called: a signer by its name, the owner of the repository by `targets`.
fn signer(role: &Role) -> Option<String> {
    if *role == Role::releases() {
        return None;
    }
    let name = role.as_str();
    Some(name.strip_prefix("targets/").unwrap_or(name).to_owned())
}

/// Everything that is released and has such a digest.
fn released(repository: &Repository, fits: impl Fn(&Digest) -> bool) -> Vec<Target> {
    let digest = |target: &Target| target.digest().and_then(|text| Digest::parse(&text).ok());
    let all = repository.all_released().into_values();
    all.filter(|target| digest(target).is_some_and(|digest| fits(&digest))).collect()
}

impl CosignRule {
    /// What signatures that were found beside an image say of it.
    ///
    /// # Errors
    /// [`Unvouched`].
    pub fn judge(
        &self,
        found: &[Attached],
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vouched, Unvouched> {
        let keys = self.public_keys().map_err(Unvouched::PolicyKeys)?;
        let identity = self.identity.into();
        let expected = Expected { reference, digest, identity, annotations: &self.annotations };
        let judgement = cosign::judge(found, &keys, &expected);
        let signers: Vec<String> = judgement.signers().into_iter().map(str::to_owned).collect();
        if signers.len() >= self.min_signers {
            return Ok(Vouched { digest: digest.clone(), signers });
        }
        let why = if signers.is_empty() {
            judgement.to_string()
        } else {
            format!("signed by {} only", signers.join(", "))
        };
        Err(Unvouched::Keys { digest: digest.clone(), needed: self.min_signers, why })
    }
}
