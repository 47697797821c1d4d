//! The cluster object: settings, join tokens, trust anchor.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::ca::MIN_NODE_EXPIRY;
use brig_pki::token::{JoinToken, UnlockKey};
use brig_proto::swarm::{
    Cluster, ClusterSpec, EncryptionKey, Node, issuance_status::State as IssuanceState,
};
use brig_store::Tx;

use super::{Control, check_version};
use crate::backup::Snapshot;
use crate::error::ControlError;
use crate::manager::ca::{external, rotation};
use crate::manager::join_tokens::TokenLimit;
use crate::manager::keys::{self, DataKeyStatus};
use crate::validate::service::invalid;

/// Which secrets of the cluster are made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenRotation {
    /// The workers' join token.
    pub worker: bool,
    /// The managers' join token.
    pub manager: bool,
    /// The unlock key.
    pub unlock_key: bool,
    /// The limits of the new join tokens.
    pub limit: TokenLimit,
}

impl Control {
    /// The cluster, without any of its keys; the join tokens are in it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] cannot happen on a manager that runs.
    pub fn cluster(&self) -> Result<Arc<Cluster>, ControlError> {
        let view = self.store.view();
        let cluster = view.all::<Cluster>().next().ok_or_else(missing)?;
        Ok(Arc::new(redacted(cluster)))
    }

    /// Changes the cluster's settings, rotates tokens and begins to rotate the root.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`], [`ControlError::InvalidArgument`]; [`ControlError::Keys`]
    /// when the change was made but this manager's keys did not follow.
    pub async fn update_cluster(
        &self,
        version: u64,
        spec: ClusterSpec,
        tokens: TokenRotation,
    ) -> Result<(), ControlError> {
        check_spec(&spec)?;
        if tokens.limit != TokenLimit::default() && !(tokens.worker || tokens.manager) {
            return Err(invalid("only a new join token can be limited"));
        }
        let limit = tokens.limit.stored(SystemTime::now())?;
        let signers = self.find_signers(&spec).await?;
        self.store
            .update(|tx| {
                let mut cluster = tx
                    .all::<Cluster>()
                    .next()
                    .map(|cluster| (**cluster).clone())
                    .ok_or_else(missing)?;
                check_version(&cluster, version)?;
                let root = cluster.root_ca.get_or_insert_default();
                if let Some(config) = &spec.ca_config
                    && let Some(changed) = rotation::requested(root, config, &signers)?
                {
                    *root = changed;
                }
                let current = root.join_tokens.get_or_insert_default();
                if tokens.worker {
                    current.worker = new_token(&root.ca_cert)?;
                    current.worker_limit = limit;
                }
                if tokens.manager {
                    current.manager = new_token(&root.ca_cert)?;
                    current.manager_limit = limit;
                }
                cluster.spec = Some(without_signer(spec));
                let is_locked_first = set_unlock_key(&mut cluster, tokens.unlock_key)?;
                if is_locked_first {
                    // The keys before were on the disk beside what they protect.
                    keys::want_new_data_key(&mut cluster, "autolock was turned on");
                    renew_managers(tx)?;
                }
                tx.update(cluster)?;
                Ok::<_, ControlError>(())
            })
            .await?;
        self.keys.follow_unlock_key().await.map_err(|error| ControlError::Keys(Box::new(error)))
    }

    /// Finds out who signs for the roots that new settings ask for. That is for the cluster as it is
    /// now; if it changes meanwhile, the change is out of sequence.
    async fn find_signers(&self, spec: &ClusterSpec) -> Result<rotation::Signers, ControlError> {
        let cluster = self.store.view().all::<Cluster>().next().cloned().ok_or_else(missing)?;
        let config = spec.ca_config.clone().unwrap_or_default();
        external::find_signers(&cluster, &config, &self.identity).await
    }

    /// Which data keys seal the cluster's objects. Reads through the whole store.
    ///
    /// # Errors
    /// [`ControlError::KeyStatus`].
    pub async fn data_keys(&self) -> Result<DataKeyStatus, ControlError> {
        self.keys.status().await.map_err(|error| ControlError::KeyStatus(Box::new(error)))
    }

    /// Has the cluster's objects sealed with a new data key, in the background.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub async fn rotate_data_key(&self, reason: &str) -> Result<(), ControlError> {
        Ok(self.store.update(|tx| keys::rotate_data_key(tx, reason)).await?)
    }

    /// The cluster as it is now, for a backup.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { state: (*self.store.view()).clone(), node: self.own_node.clone() }
    }

    /// The key that unlocks managers, to be shown to somebody; `None` while autolock is off. From
    /// the first time on nothing else opens a manager's keys.
    ///
    /// # Errors
    /// [`ControlError::Pki`] when the stored key is damaged; [`ControlError::Keys`].
    pub async fn show_unlock_key(
        &self,
    ) -> Result<Option<brig_types::secret::SecretString>, ControlError> {
        let key = self
            .store
            .update(|tx| {
                let cluster = tx.all::<Cluster>().next().cloned().ok_or_else(missing)?;
                let key = keys::unlock_key(&cluster).map_err(ControlError::Pki)?;
                if key.is_some() && !cluster.unlock_key_shown {
                    tx.update(Cluster { unlock_key_shown: true, ..(*cluster).clone() })?;
                }
                Ok::<_, ControlError>(key)
            })
            .await?;
        self.keys.follow_unlock_key().await.map_err(|error| ControlError::Keys(Box::new(error)))?;
        Ok(key.map(|key| key.to_secret_string()))
    }

    /// The key that unlocks managers; `None` while autolock is off.
    ///
    /// # Errors
    /// [`ControlError::Pki`] when the stored key is damaged.
    pub fn unlock_key(&self) -> Result<Option<brig_types::secret::SecretString>, ControlError> {
        let view = self.store.view();
        let cluster = view.all::<Cluster>().next().ok_or_else(missing)?;
        keys::unlock_key(cluster)
            .map(|key| key.map(|key| key.to_secret_string()))
            .map_err(ControlError::Pki)
    }
}

/// The settings as they are stored. A root that was asked for is a part of the cluster then, with
/// its key; clients that send back what they read would ask for it without its key.
pub(crate) fn without_signer(mut spec: ClusterSpec) -> ClusterSpec {
    if let Some(config) = &mut spec.ca_config {
        config.signing_ca_cert.clear();
        config.signing_ca_key.clear();
    }
    spec
}

/// Checks settings, of a new cluster or a changed one.
pub(crate) fn check_spec(spec: &ClusterSpec) -> Result<(), ControlError> {
    if let Some(config) = &spec.ca_config {
        if let Some(expiry) = &config.node_cert_expiry {
            let long_enough =
                Duration::try_from(*expiry).is_ok_and(|expiry| expiry >= MIN_NODE_EXPIRY);
            if !long_enough {
                return Err(invalid("minimum certificate expiry time is: 1h0m0s"));
            }
        }
        external::check_settings(config)?;
    }
    let period =
        spec.dispatcher.as_ref().and_then(|dispatcher| dispatcher.heartbeat_period.as_ref());
    if period.is_some_and(|period| Duration::try_from(*period).is_err()) {
        return Err(invalid("heartbeat time period cannot be a negative duration"));
    }
    Ok(())
}

/// Gives the cluster the unlock key that its settings ask for, or takes it away; with `rotate`
/// another one. Answers whether there was none before.
pub(crate) fn set_unlock_key(cluster: &mut Cluster, rotate: bool) -> Result<bool, ControlError> {
    let is_managers = |key: &EncryptionKey| key.subsystem == keys::UNLOCK_SUBSYSTEM;
    let is_wanted = cluster
        .spec
        .as_ref()
        .and_then(|spec| spec.encryption_config.as_ref())
        .is_some_and(|config| config.auto_lock_managers);
    let had_one = cluster.unlock_keys.iter().any(is_managers);
    if is_wanted && had_one && !rotate {
        return Ok(false);
    }
    cluster.unlock_keys.retain(|key| !is_managers(key));
    cluster.unlock_key_shown = false;
    if is_wanted {
        let key = UnlockKey::generate().map_err(ControlError::Pki)?;
        cluster.unlock_keys.push(EncryptionKey {
            subsystem: keys::UNLOCK_SUBSYSTEM.to_owned(),
            key: key.expose_secret().to_vec(),
            ..EncryptionKey::default()
        });
    }
    Ok(is_wanted && !had_one)
}

/// Tells all managers to get certificates for other keys.
fn renew_managers(tx: &mut Tx<'_>) -> Result<(), ControlError> {
    let managers: Vec<Arc<Node>> = tx.managers().cloned().collect();
    for manager in managers {
        let mut manager = (*manager).clone();
        if let Some(certificate) = &mut manager.certificate {
            certificate.status.get_or_insert_default().set_state(IssuanceState::Rotate);
            tx.update(manager)?;
        }
    }
    Ok(())
}

pub(crate) fn new_token(ca_cert: &[u8]) -> Result<String, ControlError> {
    JoinToken::generate(ca_cert)
        .map(|token| token.to_secret_string().expose_secret().to_owned())
        .map_err(ControlError::Pki)
}

fn missing() -> ControlError {
    ControlError::NotFound { kind: "cluster", reference: "default".to_owned() }
}

/// A copy without private keys.
pub(crate) fn redacted(cluster: &Cluster) -> Cluster {
    let mut copy = cluster.clone();
    copy.unlock_keys.clear();
    copy.network_bootstrap_keys.clear();
    if let Some(root) = &mut copy.root_ca {
        root.ca_key.clear();
        if let Some(rotation) = &mut root.root_rotation {
            rotation.ca_key.clear();
        }
    }
    if let Some(config) = copy.spec.as_mut().and_then(|spec| spec.ca_config.as_mut()) {
        config.signing_ca_key.clear();
    }
    copy
}
