//! Networks and a container's place in them.

use std::collections::BTreeMap;

model! {
    /// The networks that a new container joins.
    pub struct NetworkingConfig {
        endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
    }

    /// A container's attachment to a network: what was asked for, and what it got.
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")] ipam_config: Option<EndpointIpamConfig>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] links: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] aliases: Vec<String>,
        mac_address: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] driver_opts: BTreeMap<String, String>,
        /// From API 1.48.
        gw_priority: Option<i64> = omitempty,
        #[serde(rename = "NetworkID")] network_id: String,
        #[serde(rename = "EndpointID")] endpoint_id: String,
        gateway: String,
        #[serde(rename = "IPAddress")] ip_address: String,
        #[serde(rename = "IPPrefixLen")] ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")] ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")] global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")] global_ipv6_prefix_len: i64,
        /// From API 1.44.
        #[serde(rename = "DNSNames")] dns_names: Option<Vec<String>> = omitempty,
    }

    /// Addresses that were asked for.
    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address")] ipv4_address: String = omitempty,
        #[serde(rename = "IPv6Address")] ipv6_address: String = omitempty,
        #[serde(rename = "LinkLocalIPs")] link_local_ips: Vec<String> = omitempty,
    }

    /// `POST /networks/create`.
    pub struct NetworkCreateRequest {
        name: String,
        check_duplicate: bool = omitempty,
        driver: String,
        scope: String,
        /// From API 1.46; `None` is yes.
        #[serde(rename = "EnableIPv4")] enable_ipv4: Option<bool> = omitempty,
        #[serde(rename = "EnableIPv6")] enable_ipv6: Option<bool> = omitempty,
        #[serde(rename = "IPAM")] ipam: Option<Ipam>,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_only: bool,
        config_from: Option<ConfigReference>,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    }

    /// The answer to create.
    pub struct NetworkCreateResponse {
        id: String,
        warning: String,
    }

    /// The network whose configuration another one uses.
    pub struct ConfigReference {
        network: String,
    }

    /// Address management of a network.
    pub struct Ipam {
        driver: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] options: BTreeMap<String, String>,
        config: Vec<IpamConfig>,
    }

    /// One subnet.
    pub struct IpamConfig {
        subnet: String = omitempty,
        #[serde(rename = "IPRange")] ip_range: String = omitempty,
        gateway: String = omitempty,
        /// Addresses kept for others, by a free name.
        #[serde(alias = "AuxAddress")] auxiliary_addresses: BTreeMap<String, String> = omitempty,
    }

    /// `GET /networks/{id}`, and one element of `GET /networks`.
    pub struct NetworkInspect {
        name: String,
        id: String,
        created: String,
        /// `local`, `swarm`, `global`.
        scope: String,
        driver: String,
        /// From API 1.48.
        #[serde(rename = "EnableIPv4")] enable_ipv4: Option<bool> = omitempty,
        #[serde(rename = "EnableIPv6")] enable_ipv6: bool,
        #[serde(rename = "IPAM")] ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_from: ConfigReference,
        config_only: bool,
        containers: BTreeMap<String, NetworkContainer>,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        peers: Vec<PeerInfo> = omitempty,
        /// Only with `verbose=true`.
        services: BTreeMap<String, serde_json::Value> = omitempty,
    }

    /// A container in a network.
    pub struct NetworkContainer {
        name: String,
        #[serde(rename = "EndpointID")] endpoint_id: String,
        mac_address: String,
        /// With prefix length.
        #[serde(rename = "IPv4Address")] ipv4_address: String,
        /// With prefix length.
        #[serde(rename = "IPv6Address")] ipv6_address: String,
    }

    /// A node that takes part in a network of the cluster.
    pub struct PeerInfo {
        name: String,
        #[serde(rename = "IP")] ip: String,
    }

    /// `POST /networks/{id}/connect`.
    pub struct ConnectRequest {
        container: String,
        endpoint_config: Option<EndpointSettings> = omitempty,
    }

    /// `POST /networks/{id}/disconnect`.
    pub struct DisconnectRequest {
        container: String,
        force: bool,
    }

    /// `POST /networks/prune`.
    pub struct NetworksPruneReport {
        #[serde(serialize_with = "crate::nullable::null_when_empty")] networks_deleted: Vec<String>,
    }
}
