//! What the engine says about containers: inspect and list.

use std::collections::BTreeMap;

use crate::container::ContainerConfig;
use crate::host_config::{HostConfig, PortMap};
use crate::network::EndpointSettings;

model! {
    /// `GET /containers/{id}/json`.
    pub struct ContainerInspect {
        id: String,
        created: String,
        path: String,
        args: Vec<String>,
        state: ContainerState,
        /// The image's id.
        image: String,
        resolv_conf_path: String,
        hostname_path: String,
        hosts_path: String,
        log_path: String,
        /// With a leading slash.
        name: String,
        restart_count: i64,
        driver: String,
        platform: String,
        mount_label: String,
        process_label: String,
        app_armor_profile: String,
        #[serde(rename = "ExecIDs", serialize_with = "crate::nullable::null_when_empty")] exec_ids: Vec<String>,
        host_config: HostConfig,
        graph_driver: GraphDriver,
        /// Bytes written; only with `size=1`.
        size_rw: Option<i64> = omitempty,
        /// Bytes in all; only with `size=1`.
        size_root_fs: Option<i64> = omitempty,
        mounts: Vec<MountPoint>,
        config: ContainerConfig,
        network_settings: NetworkSettings,
        /// The image's manifest, from API 1.48.
        image_manifest_descriptor: Option<serde_json::Value> = omitempty,
    }

    /// Where a container is in its life.
    pub struct ContainerState {
        /// created, running, paused, restarting, removing, exited, dead.
        status: String,
        running: bool,
        paused: bool,
        restarting: bool,
        #[serde(rename = "OOMKilled")] oom_killed: bool,
        dead: bool,
        pid: i64,
        exit_code: i64,
        error: String,
        started_at: String,
        finished_at: String,
        health: Option<Health> = omitempty,
    }

    /// The health check's state.
    pub struct Health {
        /// starting, healthy, unhealthy.
        status: String,
        failing_streak: i64,
        /// The last five probes.
        log: Vec<HealthLog>,
    }

    /// One probe.
    pub struct HealthLog {
        start: String,
        end: String,
        exit_code: i64,
        output: String,
    }

    /// The storage below a container or image.
    pub struct GraphDriver {
        data: BTreeMap<String, String>,
        name: String,
    }

    /// A mount of a container.
    pub struct MountPoint {
        #[serde(rename = "Type")] kind: String,
        name: String = omitempty,
        source: String,
        destination: String,
        driver: String = omitempty,
        mode: String,
        #[serde(rename = "RW")] rw: bool,
        propagation: String,
    }

    /// The network side of a container. The flat address fields are those of the default bridge.
    pub struct NetworkSettings {
        bridge: String,
        #[serde(rename = "SandboxID")] sandbox_id: String,
        sandbox_key: String,
        ports: PortMap,
        hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")] link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")] link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses", serialize_with = "crate::nullable::null_when_empty")]
        secondary_ip_addresses: Vec<serde_json::Value>,
        #[serde(rename = "SecondaryIPv6Addresses", serialize_with = "crate::nullable::null_when_empty")]
        secondary_ipv6_addresses: Vec<serde_json::Value>,
        #[serde(rename = "EndpointID")] endpoint_id: String,
        gateway: String,
        #[serde(rename = "GlobalIPv6Address")] global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")] global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")] ip_address: String,
        #[serde(rename = "IPPrefixLen")] ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")] ipv6_gateway: String,
        mac_address: String,
        networks: BTreeMap<String, EndpointSettings>,
    }

    /// One element of `GET /containers/json`.
    pub struct ContainerSummary {
        id: String,
        /// With leading slashes.
        names: Vec<String>,
        image: String,
        #[serde(rename = "ImageID")] image_id: String,
        image_manifest_descriptor: Option<serde_json::Value> = omitempty,
        command: String,
        /// Unix seconds.
        created: i64,
        ports: Vec<PortSummary>,
        /// Only with `size=1`.
        size_rw: Option<i64> = omitempty,
        /// Only with `size=1`.
        size_root_fs: Option<i64> = omitempty,
        labels: BTreeMap<String, String>,
        state: String,
        /// `Up 2 seconds`, `Exited (0) 3 minutes ago`.
        status: String,
        host_config: HostConfigSummary,
        network_settings: NetworkSettingsSummary,
        mounts: Vec<MountPoint>,
    }

    /// A port in a listing.
    pub struct PortSummary {
        #[serde(rename = "IP")] ip: String = omitempty,
        private_port: u16,
        public_port: u16 = omitempty,
        #[serde(rename = "Type")] kind: String,
    }

    /// The part of `HostConfig` that listings show.
    pub struct HostConfigSummary {
        network_mode: String = omitempty,
        annotations: BTreeMap<String, String> = omitempty,
    }

    /// The part of `NetworkSettings` that listings show.
    pub struct NetworkSettingsSummary {
        networks: BTreeMap<String, EndpointSettings>,
    }
}
