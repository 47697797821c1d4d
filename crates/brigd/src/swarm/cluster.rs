//! `/swarm`: the cluster itself, and this node's membership.

use std::time::Duration;

use brig_api::cluster::{ClusterKeys, KeyUsage};
use brig_api::swarm::{SwarmInitRequest, SwarmJoinRequest, SwarmSpec, UnlockKey};
use brig_proto::swarm::ClusterSpec;
use brig_proto::swarm::node_spec::Availability;
use brig_swarm::{InitRequest, JoinRequest, TokenLimit, TokenRotation};
use brig_types::secret::SecretString;
use http::StatusCode;

use super::{Answer, convert, events, local, places, versions};
use crate::server::{Call, body};

/// `GET /swarm`.
pub(super) async fn inspect(call: Call) -> Answer {
    let control = local::control(&call.state)?;
    body::ok(&convert::cluster::json(&*control.cluster()?, &control.nodes_behind()))
}

/// `POST /swarm/init`: makes a cluster with this node as its first manager.
pub(super) async fn init(mut call: Call) -> Answer {
    let request: SwarmInitRequest = call.required_json().await?;
    let mut spec = ClusterSpec::default();
    convert::cluster::merge(&mut spec, &request.spec)?;
    if request.auto_lock_managers {
        spec.encryption_config.get_or_insert_default().auto_lock_managers = true;
    }
    let availability =
        convert::node::availability(&request.availability)?.unwrap_or(Availability::Active);
    let node = call
        .state
        .swarm
        .init(InitRequest {
            listen_addr: places::resolve(request.listen_addr).await?,
            advertise_addr: places::resolve(request.advertise_addr).await?,
            data_path_addr: places::resolve(request.data_path_addr).await?,
            data_path_port: request.data_path_port,
            default_addr_pool: request.default_addr_pool,
            subnet_size: request.subnet_size,
            force_new_cluster: request.force_new_cluster,
            spec,
            availability,
        })
        .await?;
    events::follow(&call.state);
    body::ok(&node)
}

/// `POST /swarm/join`: makes this node a worker of an existing cluster.
pub(super) async fn join(mut call: Call) -> Answer {
    let request: SwarmJoinRequest = call.required_json().await?;
    let availability =
        convert::node::availability(&request.availability)?.unwrap_or(Availability::Active);
    call.state
        .swarm
        .join(JoinRequest {
            listen_addr: places::resolve(request.listen_addr).await?,
            advertise_addr: places::resolve(request.advertise_addr).await?,
            data_path_addr: places::resolve(request.data_path_addr).await?,
            remote_addrs: request.remote_addrs,
            join_token: SecretString::new(request.join_token.expose_secret().to_owned()),
            availability,
        })
        .await?;
    Ok(body::empty(StatusCode::OK))
}

/// `POST /swarm/leave`.
pub(super) async fn leave(call: Call) -> Answer {
    call.state.swarm.leave(call.query.flag("force")).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `POST /swarm/update`: settings, and new tokens.
///
/// Besides docker's parameters it has `joinTokenTTL` (nanoseconds) and `joinTokenUses`, the limits
/// of the tokens that are rotated.
pub(super) async fn update(mut call: Call) -> Answer {
    let version = versions::required(&call.query, "swarm")?;
    let rotation = TokenRotation {
        worker: call.query.flag("rotateWorkerToken"),
        manager: call.query.flag("rotateManagerToken"),
        unlock_key: call.query.flag("rotateManagerUnlockKey"),
        limit: TokenLimit {
            lifetime: call.query.number("joinTokenTTL")?.map(Duration::from_nanos),
            uses: call.query.number("joinTokenUses")?,
        },
    };
    let request: SwarmSpec = call.required_json().await?;
    let control = local::control(&call.state)?;
    let mut spec = control.cluster()?.spec.clone().unwrap_or_default();
    convert::cluster::merge(&mut spec, &request)?;
    control.update_cluster(version, spec, rotation).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `GET /swarm/unlockkey`; an empty key means that managers are not locked.
pub(super) async fn unlock_key(call: Call) -> Answer {
    let key = local::control(&call.state)?.show_unlock_key().await?;
    let unlock_key = key.map(brig_api::data::SecretText).unwrap_or_default();
    body::ok(&UnlockKey { unlock_key })
}

/// `POST /swarm/unlock`: takes a locked manager's membership up.
pub(super) async fn unlock(mut call: Call) -> Answer {
    let request: UnlockKey = call.required_json().await?;
    call.state.swarm.unlock(request.unlock_key.expose_secret()).await?;
    events::follow(&call.state);
    Ok(body::empty(StatusCode::OK))
}

/// `GET /brig/cluster/keys`: which data keys seal the cluster's objects.
pub(super) async fn data_keys(call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let keys = control.data_keys().await?;
    body::ok(&ClusterKeys {
        current: keys.current,
        generation: keys.generation,
        wanted: keys.wanted,
        rotating: keys.rotating,
        reason: keys.reason,
        requested_at: keys
            .requested_at
            .map(|at| brig_api::time::rfc3339nano(at.into()))
            .unwrap_or_default(),
        autolock: control.unlock_key()?.is_some(),
        records: keys
            .records
            .into_iter()
            .map(|(key, records)| KeyUsage { key, records: records as u64 })
            .collect(),
    })
}

/// `POST /brig/cluster/keys/rotate`: has everything sealed with a new data key. Answered when that
/// is sure to happen; `GET /brig/cluster/keys` says how far it is.
pub(super) async fn rotate_data_key(call: Call) -> Answer {
    local::control(&call.state)?.rotate_data_key("an operator asked for it").await?;
    Ok(body::empty(StatusCode::OK))
}
