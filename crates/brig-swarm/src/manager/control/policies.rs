//! What may start: the gates' policies and what their decisions rest on. What is in a document is
//! the gates' business.

use std::sync::Arc;

use brig_proto::brig::{Policy, TrustMetadata};
use brig_proto::swarm::{Service, ServiceSpec};
use brig_store::State;
use brig_types::id::random_hex;

use super::{Control, check_version};
use crate::error::ControlError;
use crate::task;

/// Most bytes of one object: what etcd takes, with room for the seal.
const MAX_OBJECT: usize = 1 << 20;
/// Images that are noted before anybody looks whether they are still in use.
const MAX_ADMITTED: usize = 100;
const POLICY: &str = "policy";
const ID_LEN: usize = 25;

impl Control {
    /// All policies.
    #[must_use]
    pub fn policies(&self) -> Vec<Arc<Policy>> {
        self.store.view().all::<Policy>().cloned().collect()
    }

    /// The policy of a gate.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<Arc<Policy>> {
        self.store.view().by_name::<Policy>(name)
    }

    /// Stores a policy in place of what was read; `version` is 0 where there was none. What
    /// services run at this moment is noted in it.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`] when somebody else was faster.
    pub async fn put_policy(
        &self,
        mut policy: Policy,
        version: u64,
    ) -> Result<Arc<Policy>, ControlError> {
        self.store
            .update(|tx| {
                let services: Vec<_> = tx.all::<Service>().cloned().collect();
                let specs = services.iter().flat_map(|s| s.spec.iter().chain(&s.previous_spec));
                policy.standing = specs.filter_map(image).map(str::to_owned).collect();
                policy.standing.sort_unstable();
                policy.standing.dedup();
                match tx.by_name::<Policy>(&policy.name) {
                    Some(old) => {
                        check_version(&*old, version)?;
                        policy.id.clone_from(&old.id);
                        policy.meta.clone_from(&old.meta);
                        Ok(tx.update(policy)?)
                    }
                    None if version == 0 => {
                        policy.id = new_id();
                        policy.meta = None;
                        Ok(tx.create(policy)?)
                    }
                    None => Err(ControlError::OutOfSequence),
                }
            })
            .await
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::OutOfSequence`].
    pub async fn remove_policy(&self, name: &str, version: u64) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let missing =
                    || ControlError::NotFound { kind: POLICY, reference: name.to_owned() };
                let policy = tx.by_name::<Policy>(name).ok_or_else(missing)?;
                check_version(&*policy, version)?;
                tx.delete::<Policy>(&policy.id)?;
                Ok(())
            })
            .await
    }

    /// What was verified of a repository.
    #[must_use]
    pub fn trust_metadata(&self, repository: &str) -> Option<Arc<TrustMetadata>> {
        self.store.view().by_name::<TrustMetadata>(repository)
    }

    /// Keeps what was verified of a repository for all nodes, and which image was admitted by it.
    ///
    /// # Errors
    /// [`ControlError::InvalidArgument`] when it is more than one object may hold.
    pub async fn put_trust_metadata(
        &self,
        mut metadata: TrustMetadata,
    ) -> Result<(), ControlError> {
        let size: usize = metadata
            .files
            .iter()
            .map(|file| file.content.len())
            .chain(metadata.signatures.iter().map(|s| s.attached.len()))
            .sum();
        if size > MAX_OBJECT {
            return Err(ControlError::InvalidArgument(format!(
                "the trust data of {} has {size} bytes; the cluster keeps at most {MAX_OBJECT}",
                metadata.name
            )));
        }
        self.store
            .update(|tx| {
                match tx.by_name::<TrustMetadata>(&metadata.name) {
                    Some(old) => {
                        keep_admitted(tx, &old, &mut metadata);
                        metadata.id.clone_from(&old.id);
                        metadata.meta.clone_from(&old.meta);
                        if *old != metadata {
                            tx.update(metadata)?;
                        }
                    }
                    None => {
                        metadata.id = new_id();
                        metadata.meta = None;
                        tx.create(metadata)?;
                    }
                }
                Ok(())
            })
            .await
    }
}

/// Images that were admitted before stay noted, with their signatures; once there are many, only
/// those that a service names. (A service is stored after its image was noted.)
fn keep_admitted(state: &State, old: &TrustMetadata, metadata: &mut TrustMetadata) {
    let mut admitted = old.admitted.clone();
    admitted.retain(|reference| !metadata.admitted.contains(reference));
    if admitted.len() >= MAX_ADMITTED {
        let services: Vec<_> = state.all::<Service>().collect();
        let specs = || services.iter().flat_map(|s| s.spec.iter().chain(&s.previous_spec));
        admitted.retain(|reference| specs().any(|spec| image(spec) == Some(reference)));
    }
    admitted.append(&mut metadata.admitted);
    metadata.admitted = admitted;
    for signature in &old.signatures {
        let counts = metadata.admitted.iter().any(|r| r.ends_with(&signature.digest));
        if counts && !metadata.signatures.contains(signature) {
            metadata.signatures.push(signature.clone());
        }
    }
}

fn image(spec: &ServiceSpec) -> Option<&str> {
    let container = spec.task.as_ref().and_then(task::container)?;
    Some(container.image.as_str()).filter(|image| !image.is_empty())
}

fn new_id() -> String {
    random_hex().chars().take(ID_LEN).collect()
}
