//! `GET /info`.

use std::collections::BTreeMap;

use crate::swarm::SwarmInfo;

model! {
    /// What the engine is, has and can do.
    pub struct SystemInfo {
        #[serde(rename = "ID")] id: String,
        containers: i64,
        containers_running: i64,
        containers_paused: i64,
        containers_stopped: i64,
        images: i64,
        driver: String,
        driver_status: Vec<[String; 2]>,
        system_status: Option<Vec<[String; 2]>> = omitempty,
        plugins: PluginsInfo,
        memory_limit: bool,
        swap_limit: bool,
        /// Until API 1.41.
        kernel_memory: Option<bool> = omitempty,
        /// Until API 1.41.
        #[serde(rename = "KernelMemoryTCP")] kernel_memory_tcp: Option<bool> = omitempty,
        cpu_cfs_period: bool,
        cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")] cpu_shares: bool,
        #[serde(rename = "CPUSet")] cpu_set: bool,
        pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")] ipv4_forwarding: bool,
        bridge_nf_iptables: bool,
        bridge_nf_ip6tables: bool,
        debug: bool,
        #[serde(rename = "NFd")] nfd: i64,
        oom_kill_disable: bool,
        #[serde(rename = "NGoroutines")] ngoroutines: i64,
        system_time: String,
        logging_driver: String,
        cgroup_driver: String,
        cgroup_version: String,
        #[serde(rename = "NEventsListener")] nevents_listener: i64,
        kernel_version: String,
        operating_system: String,
        #[serde(rename = "OSVersion")] os_version: String,
        #[serde(rename = "OSType")] os_type: String,
        architecture: String,
        index_server_address: String,
        registry_config: RegistryConfig,
        #[serde(rename = "NCPU")] ncpu: i64,
        mem_total: i64,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] generic_resources: Vec<serde_json::Value>,
        docker_root_dir: String,
        http_proxy: String,
        https_proxy: String,
        no_proxy: String,
        name: String,
        labels: Vec<String>,
        experimental_build: bool,
        server_version: String,
        runtimes: BTreeMap<String, RuntimeInfo>,
        default_runtime: String,
        swarm: SwarmInfo,
        live_restore_enabled: bool,
        isolation: String,
        init_binary: String,
        containerd_commit: Commit,
        runc_commit: Commit,
        init_commit: Commit,
        security_options: Vec<String>,
        product_license: String = omitempty,
        default_address_pools: Vec<AddressPool> = omitempty,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] warnings: Vec<String>,
        /// From API 1.44.
        #[serde(rename = "CDISpecDirs")] cdi_spec_dirs: Option<Vec<String>> = omitempty,
    }

    /// Built-in drivers by kind.
    pub struct PluginsInfo {
        volume: Vec<String>,
        network: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] authorization: Vec<String>,
        log: Vec<String>,
    }

    /// How registries are spoken to.
    pub struct RegistryConfig {
        #[serde(rename = "AllowNondistributableArtifactsCIDRs")]
        allow_nondistributable_artifacts_cidrs: Vec<String>,
        allow_nondistributable_artifacts_hostnames: Vec<String>,
        #[serde(rename = "InsecureRegistryCIDRs")] insecure_registry_cidrs: Vec<String>,
        index_configs: BTreeMap<String, IndexConfig>,
        mirrors: Vec<String>,
    }

    /// One registry.
    pub struct IndexConfig {
        name: String,
        mirrors: Vec<String>,
        secure: bool,
        official: bool,
    }

    /// An OCI runtime.
    pub struct RuntimeInfo {
        #[serde(rename = "path")] path: String = omitempty,
        #[serde(rename = "runtimeArgs")] runtime_args: Vec<String> = omitempty,
    }

    /// The version of a part, found and expected.
    pub struct Commit {
        #[serde(rename = "ID")] id: String,
        expected: String,
    }

    /// A pool that networks get their subnets from.
    pub struct AddressPool {
        base: String,
        size: i64,
    }
}
