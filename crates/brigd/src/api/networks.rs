//! Networks of this node.

use std::collections::BTreeMap;

use brig_api::filters::Filters;
use brig_api::network::{
    ConnectRequest, DisconnectRequest, Ipam, IpamConfig, NetworkContainer, NetworkCreateRequest,
    NetworkCreateResponse, NetworkInspect,
};
use brig_api::time::rfc3339nano;
use brig_engine::events::kind;
use brig_network::{Driver, NetworkInfo, NetworkRecord, NetworkSpec, SubnetSpec};
use brig_types::error::{Categorized as _, ErrorKind};
use http::StatusCode;
use time::OffsetDateTime;

use crate::server::body;
use crate::server::{ApiError, Call, Response};
use crate::state::AppState;
use crate::swarm;

type Answer = Result<Response, ApiError>;

const LIST_FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// `GET /networks`.
///
/// # Errors
/// Bad filters.
pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&LIST_FILTERS)?;
    filters.check_values("type", &["builtin", "custom"])?;
    filters.check_values("scope", &["global", "local", "swarm"])?;
    let dangling = filters.boolean("dangling")?;
    let list: Vec<NetworkInspect> = call
        .state
        .engine
        .networks()
        .list()
        .iter()
        .filter(|info| matches(&filters, dangling, info))
        .map(|info| NetworkInspect { containers: BTreeMap::new(), ..inspected(info) })
        .collect();
    body::ok(&list)
}

fn matches(filters: &Filters, dangling: Option<bool>, info: &NetworkInfo) -> bool {
    let record = &info.record;
    let origin = if record.predefined() { "builtin" } else { "custom" };
    let unused = info.containers.is_empty() && !record.predefined();
    dangling.is_none_or(|wanted| wanted == unused)
        && filters.matches_exactly("driver", record.driver.as_str())
        && filters.matches_prefix("id", record.id.as_str())
        && filters.matches_labels("label", &record.labels)
        && filters.matches_part("name", &record.name)
        && filters.matches_exactly("scope", "local")
        && filters.matches_exactly("type", origin)
}

/// A network as clients see it.
fn inspected(info: &NetworkInfo) -> NetworkInspect {
    let record = &info.record;
    let containers = info
        .containers
        .iter()
        .map(|(id, endpoint)| {
            let container = NetworkContainer {
                name: endpoint.container_name.clone(),
                endpoint_id: endpoint.endpoint_id.to_string(),
                mac_address: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                ipv4_address: endpoint
                    .ip
                    .map(|ip| format!("{ip}/{}", endpoint.prefix_len))
                    .unwrap_or_default(),
                ipv6_address: endpoint
                    .v6
                    .map(|v6| format!("{}/{}", v6.ip, v6.prefix_len))
                    .unwrap_or_default(),
            };
            (id.to_string(), container)
        })
        .collect();
    NetworkInspect {
        name: record.name.clone(),
        id: record.id.to_string(),
        created: rfc3339nano(OffsetDateTime::from(record.created())),
        scope: "local".to_owned(),
        driver: record.driver.as_str().to_owned(),
        enable_ipv4: Some(true),
        enable_ipv6: record.ipam.as_ref().is_some_and(|ipam| ipam.v6.is_some()),
        ipam: ipam(record),
        internal: record.internal,
        attachable: record.attachable,
        containers,
        options: record.options.clone(),
        labels: record.labels.clone(),
        ..NetworkInspect::default()
    }
}

fn ipam(record: &NetworkRecord) -> Ipam {
    let Some(ipam) = &record.ipam else {
        return Ipam { driver: "default".to_owned(), ..Ipam::default() };
    };
    let config = IpamConfig {
        subnet: ipam.subnet.to_string(),
        ip_range: ipam.ip_range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: ipam.gateway.to_string(),
        auxiliary_addresses: ipam
            .aux_addresses
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    };
    let v6 = ipam.v6.as_ref().map(|v6| IpamConfig {
        subnet: v6.subnet.to_string(),
        ip_range: v6.ip_range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: v6.gateway.to_string(),
        auxiliary_addresses: v6
            .aux_addresses
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    });
    let config = std::iter::once(config).chain(v6).collect();
    Ipam { driver: "default".to_owned(), options: ipam.options.clone(), config }
}

/// `POST /networks/create`.
///
/// # Errors
/// A bad request, a taken name or subnet, a driver that isn't there.
pub async fn create(mut call: Call) -> Answer {
    let request: NetworkCreateRequest = call.required_json().await?;
    if request.config_only || request.config_from.as_ref().is_some_and(|c| !c.network.is_empty()) {
        return Err(ApiError::not_implemented("config-only networks are not available"));
    }
    if request.ingress {
        return Err(ApiError::not_implemented(
            "ingress networks are not available in this version",
        ));
    }
    if swarm::networks::is_for_cluster(&request) {
        let id = swarm::networks::create(&call.state, &request)?;
        let response = NetworkCreateResponse { id, warning: String::new() };
        return body::json(StatusCode::CREATED, &response);
    }
    let ipam = request.ipam.unwrap_or_default();
    let spec = NetworkSpec {
        name: request.name,
        driver: request.driver,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options,
        subnets: ipam.config.into_iter().map(subnet).collect(),
        internal: request.internal,
        attachable: request.attachable,
        ipv6: request.enable_ipv6.unwrap_or_default(),
        labels: request.labels,
        options: request.options,
    };
    let networks = call.state.engine.networks();
    let id = networks.create(spec).await?;
    if let Ok(info) = networks.get(id.as_str()) {
        emit(&call.state, "create", &info.record);
    }
    let response = NetworkCreateResponse { id: id.to_string(), warning: String::new() };
    body::json(StatusCode::CREATED, &response)
}

fn subnet(config: IpamConfig) -> SubnetSpec {
    SubnetSpec {
        subnet: config.subnet,
        ip_range: config.ip_range,
        gateway: config.gateway,
        aux_addresses: config.auxiliary_addresses,
    }
}

/// Tells what happened to a network.
pub(super) fn emit(state: &AppState, action: &str, record: &NetworkRecord) {
    let attributes = BTreeMap::from([
        ("name".to_owned(), record.name.clone()),
        ("type".to_owned(), record.driver.as_str().to_owned()),
    ]);
    state.engine.events().emit(kind::NETWORK, action, record.id.as_str(), attributes);
}

/// `GET /networks/{name}`.
///
/// # Errors
/// No such network.
pub async fn inspect(call: Call) -> Answer {
    let name = call.param("name");
    let found = match call.query.non_empty("scope") {
        Some("swarm") => return body::ok(&swarm::networks::inspect(&call.state, name)?),
        None | Some("local") => call.state.engine.networks().get(name),
        Some(_) => return Err(ApiError::not_found(format!("network {name} not found"))),
    };
    match found {
        Err(error)
            if error.kind() == ErrorKind::NotFound && call.query.non_empty("scope").is_none() =>
        {
            body::ok(&swarm::networks::inspect(&call.state, name)?)
        }
        found => body::ok(&inspected(&found?)),
    }
}

/// `DELETE /networks/{name}`.
///
/// # Errors
/// No such network, a predefined one, or containers are on it.
pub async fn remove(call: Call) -> Answer {
    let name = call.param("name");
    match call.state.engine.networks().get(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            swarm::networks::remove(&call.state, name).await?;
        }
        _ => remove_network(&call.state, name).await?,
    }
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// Removes a network and tells so.
pub(super) async fn remove_network(state: &AppState, name: &str) -> Result<(), ApiError> {
    let networks = state.engine.networks();
    let record = networks.get(name)?.record;
    networks.remove(record.id.as_str()).await?;
    emit(state, "destroy", &record);
    Ok(())
}

/// Whether a prune may take a network.
pub(super) fn is_unused(info: &NetworkInfo) -> bool {
    info.record.driver == Driver::Bridge && !info.record.predefined() && info.containers.is_empty()
}

/// `POST /networks/{name}/connect`.
///
/// # Errors
/// No such network or container, connected already, an address that can't be had.
pub async fn connect(mut call: Call) -> Answer {
    let request: ConnectRequest = call.required_json().await?;
    let engine = &call.state.engine;
    engine.connect_network(call.param("name"), &request.container, request.endpoint_config).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `POST /networks/{name}/disconnect`.
///
/// # Errors
/// No such network or container, not connected.
pub async fn disconnect(mut call: Call) -> Answer {
    let request: DisconnectRequest = call.required_json().await?;
    let engine = &call.state.engine;
    engine.disconnect_network(call.param("name"), &request.container, request.force).await?;
    Ok(body::empty(StatusCode::OK))
}
