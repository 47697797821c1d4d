//! Whether a cluster could be restored from these objects.

use std::sync::Arc;

use brig_pki::ca::RootCa;
use brig_pki::token::JoinToken;
use brig_proto::swarm::{
    Cluster, Config, ContainerSpec, Network, Secret, Service, TaskSpec, task_spec,
};
use brig_store::State;
use brig_types::secret::SecretBytes;

use super::BackupError;
use crate::manager::keys;

/// The cluster of a state in which nothing is missing.
///
/// # Errors
/// [`BackupError::Unfit`] with the first thing that is wrong.
pub(super) fn cluster(state: &State) -> Result<Arc<Cluster>, BackupError> {
    let mut clusters = state.all::<Cluster>();
    let cluster = match (clusters.next(), clusters.next()) {
        (Some(cluster), None) => Arc::clone(cluster),
        (None, _) => return Err(unfit("there is no cluster in it")),
        (Some(_), Some(_)) => return Err(unfit("there is more than one cluster in it")),
    };
    authority(&cluster)?;
    keys::unlock_key(&cluster).map_err(|_| unfit("its unlock key is damaged"))?;
    for service in state.all::<Service>() {
        let spec = service.spec.as_ref();
        let Some(task) = spec.and_then(|spec| spec.task.as_ref()) else { continue };
        let name = crate::task::service_name(service);
        references(state, task, name)?;
    }
    Ok(cluster)
}

/// The authority can sign, or somebody else does, and its join tokens let nodes in.
fn authority(cluster: &Cluster) -> Result<(), BackupError> {
    let root = cluster.root_ca.as_ref().ok_or_else(|| unfit("the cluster has no root"))?;
    let key = |key: &[u8]| (!key.is_empty()).then(|| SecretBytes::new(key.to_vec()));
    let fits = |cert: &[u8], secret: &[u8]| RootCa::from_pem(cert, key(secret).as_ref()).is_ok();
    if !fits(&root.ca_cert, &root.ca_key) {
        return Err(unfit("the root's certificate and key do not belong together"));
    }
    if let Some(next) = &root.root_rotation
        && !fits(&next.ca_cert, &next.ca_key)
    {
        return Err(unfit("the next root's certificate and key do not belong together"));
    }
    let settings = cluster.spec.as_ref().and_then(|spec| spec.ca_config.as_ref());
    let has_external = settings.is_some_and(|settings| !settings.external_cas.is_empty());
    if root.ca_key.is_empty() && root.root_rotation.is_none() && !has_external {
        return Err(unfit("nobody could sign certificates: the root's key is missing"));
    }
    let tokens = root.join_tokens.clone().unwrap_or_default();
    for token in [&tokens.worker, &tokens.manager] {
        JoinToken::parse(token).map_err(|_| unfit("a join token is damaged"))?;
    }
    Ok(())
}

/// Everything that a service refers to is there.
fn references(state: &State, spec: &TaskSpec, service: &str) -> Result<(), BackupError> {
    let missing = |kind: &str, id: &str| {
        BackupError::Unfit(format!("service {service} uses {kind} {id}, which is missing"))
    };
    let container = match &spec.runtime {
        Some(task_spec::Runtime::Container(container)) => container,
        _ => &ContainerSpec::default(),
    };
    for reference in &container.secrets {
        if state.get::<Secret>(&reference.secret_id).is_none() {
            return Err(missing("secret", &reference.secret_id));
        }
    }
    for reference in &container.configs {
        if state.get::<Config>(&reference.config_id).is_none() {
            return Err(missing("config", &reference.config_id));
        }
    }
    for attachment in &spec.networks {
        let named = &attachment.target;
        if state.get::<Network>(named).is_none() && state.by_name::<Network>(named).is_none() {
            return Err(missing("network", named));
        }
    }
    Ok(())
}

fn unfit(what: &str) -> BackupError {
    BackupError::Unfit(what.to_owned())
}
