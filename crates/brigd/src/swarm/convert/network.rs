//! Networks of the cluster: as `/networks` shows them, and as tasks do.

use brig_api::network::{ConfigReference, Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use brig_api::swarm as api;
use brig_proto::swarm as proto;
use brig_proto::swarm::network_spec::ConfigFrom;

use super::{annotations, driver_json, meta, name_and_labels, time};

/// The scope of everything here.
pub const SCOPE: &str = "swarm";

/// A new network's spec.
#[must_use]
pub fn spec(request: &NetworkCreateRequest) -> proto::NetworkSpec {
    proto::NetworkSpec {
        annotations: Some(annotations(&request.name, &request.labels)),
        driver_config: Some(proto::Driver {
            name: request.driver.clone(),
            options: request.options.clone(),
        }),
        ipv6_enabled: request.enable_ipv6.unwrap_or(false),
        internal: request.internal,
        ipam: request.ipam.as_ref().map(ipam),
        attachable: request.attachable,
        ingress: request.ingress,
        config_from: request
            .config_from
            .as_ref()
            .filter(|from| !from.network.is_empty())
            .map(|from| ConfigFrom::Network(from.network.clone())),
    }
}

fn ipam(ipam: &Ipam) -> proto::IpamOptions {
    let name = if ipam.driver.is_empty() { "default" } else { &ipam.driver };
    proto::IpamOptions {
        driver: Some(proto::Driver { name: name.to_owned(), options: ipam.options.clone() }),
        configs: ipam
            .config
            .iter()
            .map(|config| proto::IpamConfig {
                family: 0,
                subnet: config.subnet.clone(),
                range: config.ip_range.clone(),
                gateway: config.gateway.clone(),
                reserved: config.auxiliary_addresses.clone(),
            })
            .collect(),
    }
}

/// Whether this is the routing mesh's network.
#[must_use]
pub fn is_ingress(network: &proto::Network) -> bool {
    network.spec.as_ref().is_some_and(|spec| spec.ingress)
}

/// As `/networks` shows it.
#[must_use]
pub fn inspect(network: &proto::Network) -> NetworkInspect {
    let spec = network.spec.clone().unwrap_or_default();
    let (name, labels) = name_and_labels(spec.annotations.as_ref());
    let driver = network.driver_state.clone().or(spec.driver_config).unwrap_or_default();
    let addresses = network.ipam.clone().or(spec.ipam).unwrap_or_default();
    let ipam_driver = addresses.driver.unwrap_or_default();
    NetworkInspect {
        name,
        id: network.id.clone(),
        created: time(network.meta.as_ref().and_then(|meta| meta.created_at.as_ref())),
        scope: SCOPE.to_owned(),
        driver: driver.name,
        enable_ipv4: None,
        enable_ipv6: spec.ipv6_enabled,
        ipam: Ipam {
            driver: if ipam_driver.name.is_empty() { "default".into() } else { ipam_driver.name },
            options: ipam_driver.options,
            config: addresses
                .configs
                .into_iter()
                .map(|config| IpamConfig {
                    subnet: config.subnet,
                    ip_range: config.range,
                    gateway: config.gateway,
                    auxiliary_addresses: config.reserved,
                })
                .collect(),
        },
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: spec.ingress,
        config_from: ConfigReference {
            network: spec.config_from.map(|ConfigFrom::Network(name)| name).unwrap_or_default(),
        },
        config_only: false,
        containers: Default::default(),
        options: driver.options,
        labels,
        peers: Vec::new(),
        services: Default::default(),
    }
}

/// As tasks show it.
#[must_use]
pub fn json(network: &proto::Network) -> api::SwarmNetwork {
    let meta = meta(network.meta.as_ref());
    let spec = network.spec.clone().unwrap_or_default();
    let (name, labels) = name_and_labels(spec.annotations.as_ref());
    api::SwarmNetwork {
        id: network.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: api::SwarmNetworkSpec {
            name,
            labels,
            driver_configuration: spec.driver_config.as_ref().map(driver_json),
            ipv6_enabled: spec.ipv6_enabled,
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            ipam_options: spec.ipam.as_ref().map(ipam_json),
            scope: SCOPE.to_owned(),
        },
        driver_state: network.driver_state.as_ref().map(driver_json).unwrap_or_default(),
        ipam_options: network.ipam.as_ref().map(ipam_json),
    }
}

fn ipam_json(ipam: &proto::IpamOptions) -> api::IpamOptions {
    api::IpamOptions {
        driver: ipam.driver.as_ref().map(driver_json).unwrap_or_default(),
        configs: ipam
            .configs
            .iter()
            .map(|config| api::IpamConfig {
                subnet: config.subnet.clone(),
                range: config.range.clone(),
                gateway: config.gateway.clone(),
            })
            .collect(),
    }
}
