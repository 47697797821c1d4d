//! The cluster's part of the Engine API: routes and handlers.
//!
//! A handler turns JSON into calls of the cluster's control side and back ([`convert`]), and
//! decides nothing itself. What this node is in the cluster is asked in [`local`].

pub mod convert;
pub mod events;
pub mod expiring;
pub mod local;
pub mod networks;

mod backup;
mod cluster;
mod configs;
mod logs;
mod nodes;
mod places;
mod secrets;
mod service_status;
mod services;
mod tasks;
mod versions;

pub use local::{info, ping_status};
pub use versions::required as required_version;

use crate::route;
use crate::server::{ApiError, Response, Route};

type Answer = Result<Response, ApiError>;

/// Service specs may carry a seccomp profile and many references.
const SERVICE_BODY: usize = 4 << 20;
/// Content of up to one megabyte travels as base64.
const CONFIG_BODY: usize = 2 << 20;

static ROUTES: &[Route] = &[
    route!(GET "/swarm", SwarmInspect, cluster::inspect),
    route!(POST "/swarm/init", SwarmInit, cluster::init),
    route!(POST "/swarm/join", SwarmJoin, cluster::join),
    route!(POST "/swarm/leave", SwarmLeave, cluster::leave),
    route!(POST "/swarm/update", SwarmUpdate, cluster::update),
    route!(GET "/swarm/unlockkey", SwarmUnlockKey, cluster::unlock_key),
    route!(POST "/swarm/unlock", SwarmUnlock, cluster::unlock),
    route!(POST "/brig/cluster/backup", ClusterBackup, backup::backup, attended()),
    route!(POST "/brig/cluster/backup/verify", ClusterVerify, backup::verify, streamed(), attended()),
    route!(POST "/brig/cluster/restore", ClusterRestore, backup::restore, streamed()),
    route!(GET "/brig/cluster/keys", ClusterKeys, cluster::data_keys),
    route!(POST "/brig/cluster/keys/rotate", ClusterRotateKeys, cluster::rotate_data_key),
    route!(GET "/system/expiring", SystemExpiring, expiring::list),
    route!(GET "/nodes", NodeList, nodes::list),
    route!(GET "/nodes/{id}", NodeInspect, nodes::inspect),
    route!(POST "/nodes/{id}/update", NodeUpdate, nodes::update),
    route!(DELETE "/nodes/{id}", NodeRemove, nodes::remove),
    route!(GET "/services", ServiceList, services::list),
    route!(POST "/services/create", ServiceCreate, services::create, json(SERVICE_BODY)),
    route!(GET "/services/{id}", ServiceInspect, services::inspect),
    route!(POST "/services/{id}/update", ServiceUpdate, services::update, json(SERVICE_BODY)),
    route!(DELETE "/services/{id}", ServiceRemove, services::remove),
    route!(GET "/services/{id}/logs", ServiceLogs, logs::service),
    route!(GET "/tasks", TaskList, tasks::list),
    route!(GET "/tasks/{id}", TaskInspect, tasks::inspect),
    route!(GET "/tasks/{id}/logs", TaskLogs, logs::task),
    route!(GET "/secrets", SecretList, secrets::list),
    route!(POST "/secrets/create", SecretCreate, secrets::create),
    route!(GET "/secrets/{id}", SecretInspect, secrets::inspect),
    route!(POST "/secrets/{id}/update", SecretUpdate, secrets::update),
    route!(DELETE "/secrets/{id}", SecretRemove, secrets::remove),
    route!(GET "/configs", ConfigList, configs::list),
    route!(POST "/configs/create", ConfigCreate, configs::create, json(CONFIG_BODY)),
    route!(GET "/configs/{id}", ConfigInspect, configs::inspect),
    route!(POST "/configs/{id}/update", ConfigUpdate, configs::update, json(CONFIG_BODY)),
    route!(DELETE "/configs/{id}", ConfigRemove, configs::remove),
];

/// Routes of the cluster.
#[must_use]
pub const fn routes() -> &'static [Route] {
    ROUTES
}
