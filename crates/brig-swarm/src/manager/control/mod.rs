//! The cluster's control side: reading and changing its objects, for the daemon's API.
//!
//! Every change is one transaction on the store; the control loops see it there. Texts are
//! SwarmKit's, with the prefix that Docker Engine puts before them.

mod access;
mod behind;
pub(crate) mod cluster;
mod configs;
mod logs;
mod networks;
pub(crate) mod nodes;
mod policies;
mod scan;
mod secrets;
mod services;
mod tasks;
mod trust;

use std::sync::Arc;

use brig_pki::tls::TlsCredentials;
use brig_proto::brig::AdmissionFacts;
use brig_proto::swarm::{Annotations, Service};
use brig_store::{BackendError, Index, State, Store, StoreError, StoreObject, Watcher};

pub use self::behind::{BehindReason, NodeBehind};
pub use self::cluster::TokenRotation;
pub use self::logs::LogStream;
pub use self::services::{RegistryAuthFrom, UpdateOptions};
pub use self::trust::TrustRecords;
use super::keys::KeyManager;
use super::logbroker::LogBroker;
use super::other_logs::OtherLogs;
use super::scan_files::ScanFiles;
use crate::error::ControlError;
use crate::validate::service::invalid;

/// The cluster's objects. Only managers have it; clones share everything.
#[derive(Clone)]
pub struct Control {
    store: Store,
    logs: LogBroker,
    other_logs: OtherLogs,
    own_node: String,
    /// The manager's certificate, for the authorities that settings name.
    identity: Arc<TlsCredentials>,
    keys: KeyManager,
    scan_files: ScanFiles,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn new(
        store: Store,
        (logs, other_logs): (LogBroker, OtherLogs),
        own_node: String,
        identity: Arc<TlsCredentials>,
        keys: KeyManager,
        scan_files: ScanFiles,
    ) -> Self {
        Self { store, logs, other_logs, own_node, identity, keys, scan_files }
    }

    #[cfg(test)]
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// Whether what is read here is what is stored now. A manager that has lost the others goes on
    /// answering with what it last saw.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.store.is_current()
    }

    /// What this manager tells nodes that are to judge an image of a repository.
    #[must_use]
    pub fn admission_facts(&self, repository: &str) -> AdmissionFacts {
        crate::manager::admission::facts(&self.store.view(), repository)
    }

    /// Every change of every object from now on, as the store made it durable.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        self.store.watch()
    }
}

/// Finds an object the way Docker does: by id, by name, then by a prefix of its id.
fn find<T: StoreObject>(
    state: &State,
    kind: &'static str,
    reference: &str,
    name: impl Fn(&T) -> &str,
) -> Result<Arc<T>, ControlError> {
    if let Some(object) = state.get::<T>(reference) {
        return Ok(object);
    }
    let not_found = || ControlError::NotFound { kind, reference: reference.to_owned() };
    if reference.is_empty() {
        return Err(not_found());
    }
    let named: Vec<&Arc<T>> = state.all::<T>().filter(|object| name(object) == reference).collect();
    let found = if named.is_empty() { state.by_id_prefix::<T>(reference).collect() } else { named };
    match found.as_slice() {
        [] => Err(not_found()),
        [only] => Ok(Arc::clone(only)),
        several => Err(ControlError::Ambiguous {
            kind,
            reference: reference.to_owned(),
            matches: several.len(),
        }),
    }
}

/// Whether the caller changes what it read.
fn check_version<T: StoreObject>(object: &T, version: u64) -> Result<(), ControlError> {
    if object.version() == version { Ok(()) } else { Err(ControlError::OutOfSequence) }
}

fn name_of(annotations: Option<&Annotations>) -> &str {
    annotations.map_or("", |annotations| annotations.name.as_str())
}

/// Refuses to remove what a service uses.
fn check_unused(
    state: &State,
    index: Index,
    kind: &str,
    id: &str,
    name: &str,
) -> Result<(), ControlError> {
    let users: Vec<&str> = state
        .indexed::<Service>(index, id)
        .map(|service| crate::task::service_name(service))
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    let services = if users.len() == 1 { "service" } else { "services" };
    Err(invalid(format!(
        "{kind} '{name}' is in use by the following {services}: {}",
        users.join(", ")
    )))
}

/// Whether only labels differ; names and contents are for ever.
fn only_labels_differ(old: Option<&Annotations>, new: Option<&Annotations>) -> bool {
    name_of(old) == name_of(new)
}

/// Adds what may be done about lost managers.
fn advised(cause: Arc<BackendError>) -> Arc<BackendError> {
    match &*cause {
        BackendError::Unavailable(why) => Arc::new(BackendError::Unavailable(format!(
            "{why}; if most managers are gone for good, \"docker swarm init --force-new-cluster\" goes on with this one alone"
        ))),
        _ => cause,
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameConflict { kind, name } => {
                Self::AlreadyExists { kind: kind.as_str(), name }
            }
            StoreError::SequenceConflict { .. } => Self::OutOfSequence,
            StoreError::NotFound { kind, id } => {
                Self::NotFound { kind: kind.as_str(), reference: id }
            }
            StoreError::NoQuorum(cause) => Self::NoQuorum(StoreError::NoQuorum(advised(cause))),
            StoreError::Closed => Self::NotManagerAnyMore,
            other => Self::Store(other),
        }
    }
}
