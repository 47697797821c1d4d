//! What a container asks of its host: `HostConfig` and the resources in it.

use std::collections::BTreeMap;

use crate::engine_access::EngineAccess;
use crate::mount::Mount;

/// Published ports: `80/tcp` to its bindings, `None` where docker has `null`.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

model! {
    /// Where a container port is published.
    pub struct PortBinding {
        host_ip: String,
        /// A port, a range (`8000-8010`), or empty for any free port.
        host_port: String,
    }

    /// What happens when a container exits.
    pub struct RestartPolicy {
        /// `no`, `always`, `on-failure`, `unless-stopped`; empty is `no`.
        name: String,
        maximum_retry_count: i64,
    }

    /// Where a container's output goes.
    pub struct LogConfig {
        #[serde(rename = "Type")] kind: String,
        config: BTreeMap<String, String>,
    }

    /// A resource limit of a process, as `setrlimit` takes it.
    pub struct Ulimit {
        name: String,
        hard: i64,
        soft: i64,
    }

    /// A host device in the container.
    pub struct DeviceMapping {
        path_on_host: String,
        path_in_container: String,
        /// Of `r`, `w`, `m`.
        cgroup_permissions: String,
    }

    /// A request to a device driver (`--gpus`).
    pub struct DeviceRequest {
        driver: String,
        count: i64,
        #[serde(rename = "DeviceIDs", serialize_with = "crate::nullable::null_when_empty")] device_ids: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] capabilities: Vec<Vec<String>>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] options: BTreeMap<String, String>,
    }

    /// The block I/O weight of a device.
    pub struct WeightDevice {
        path: String,
        weight: u16,
    }

    /// A block I/O limit of a device, in bytes or operations a second.
    pub struct ThrottleDevice {
        path: String,
        rate: u64,
    }

    /// A container's settings that depend on the host, resources included.
    ///
    /// Kept as it came, so that inspect gives back what was sent.
    pub struct HostConfig {
        /// `/host:/container[:options]` or `volume:/container[:options]`.
        #[serde(serialize_with = "crate::nullable::null_when_empty")] binds: Vec<String>,
        #[serde(rename = "ContainerIDFile")] container_id_file: String,
        log_config: LogConfig,
        /// `default`, `bridge`, `host`, `none`, `container:ID` or a network's name.
        network_mode: String,
        port_bindings: PortMap,
        restart_policy: RestartPolicy,
        auto_remove: bool,
        volume_driver: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] volumes_from: Vec<String>,
        /// Height, width.
        console_size: [u32; 2],
        annotations: BTreeMap<String, String> = omitempty,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] cap_add: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] cap_drop: Vec<String>,
        /// `host`, `private` or empty.
        cgroupns_mode: String,
        dns: Vec<String>,
        dns_options: Vec<String>,
        dns_search: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] extra_hosts: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] group_add: Vec<String>,
        ipc_mode: String,
        cgroup: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] links: Vec<String>,
        oom_score_adj: i64,
        pid_mode: String,
        privileged: bool,
        publish_all_ports: bool,
        readonly_rootfs: bool,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] security_opt: Vec<String>,
        storage_opt: BTreeMap<String, String> = omitempty,
        /// Path to mount options.
        tmpfs: BTreeMap<String, String> = omitempty,
        #[serde(rename = "UTSMode")] uts_mode: String,
        userns_mode: String,
        /// Bytes of `/dev/shm`; 0 is the default.
        shm_size: i64,
        sysctls: BTreeMap<String, String> = omitempty,
        runtime: String = omitempty,
        isolation: String,
        cpu_shares: i64,
        /// Bytes; 0 is no limit.
        memory: i64,
        /// Billionths of a CPU.
        nano_cpus: i64,
        cgroup_parent: String,
        blkio_weight: u16,
        blkio_weight_device: Vec<WeightDevice>,
        blkio_device_read_bps: Vec<ThrottleDevice>,
        blkio_device_write_bps: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceReadIOps")] blkio_device_read_iops: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceWriteIOps")] blkio_device_write_iops: Vec<ThrottleDevice>,
        /// Microseconds.
        cpu_period: i64,
        /// Microseconds.
        cpu_quota: i64,
        cpu_realtime_period: i64,
        cpu_realtime_runtime: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        devices: Vec<DeviceMapping>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] device_cgroup_rules: Vec<String>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] device_requests: Vec<DeviceRequest>,
        /// Bytes; only from clients older than API 1.42.
        kernel_memory: i64 = omitempty,
        #[serde(rename = "KernelMemoryTCP")] kernel_memory_tcp: i64 = omitempty,
        memory_reservation: i64,
        /// Bytes of memory and swap together; -1 is unlimited, 0 is not set.
        memory_swap: i64,
        /// `None` and -1 are "not set".
        memory_swappiness: Option<i64>,
        oom_kill_disable: Option<bool>,
        /// `None`, 0 and -1 are "no limit".
        pids_limit: Option<i64>,
        ulimits: Vec<Ulimit>,
        cpu_count: i64,
        cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")] io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")] io_maximum_bandwidth: u64,
        mounts: Vec<Mount> = omitempty,
        /// `None` is the default list, an empty list is "none masked".
        masked_paths: Option<Vec<String>>,
        /// `None` is the default list, an empty list is "none read-only".
        readonly_paths: Option<Vec<String>>,
        init: Option<bool> = omitempty,
        /// A socket of the engine, in a role; not docker's.
        engine_access: Option<EngineAccess> = omitempty,
    }
}
