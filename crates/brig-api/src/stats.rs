//! `GET /containers/{id}/stats`: what a container uses, as docker names it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Declares structs with the snake_case names that this route alone has.
macro_rules! stats {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty ),* $(,)?
        }
    )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs)]
        pub struct $name {
            $(
                $(#[$fmeta])*
                #[serde(deserialize_with = "crate::nullable::or_default")]
                pub $field: $ty,
            )*
        }
    )+ };
}

stats! {
    /// One look at a container. The zero time in `read` says that it doesn't run.
    pub struct ContainerStats {
        read: String,
        /// The time of `precpu_stats`.
        preread: String,
        pids_stats: PidsStats,
        blkio_stats: BlkioStats,
        num_procs: u32,
        storage_stats: crate::Empty,
        cpu_stats: CpuStats,
        /// The look before this one, for the difference.
        precpu_stats: CpuStats,
        memory_stats: MemoryStats,
        name: String,
        id: String,
        /// By interface; missing where there are none.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")] networks: BTreeMap<String, InterfaceStats>,
    }

    /// Processes and threads.
    pub struct PidsStats {
        #[serde(skip_serializing_if = "crate::nullable::is_default")] current: u64,
        #[serde(skip_serializing_if = "crate::nullable::is_default")] limit: u64,
    }

    /// Block devices.
    pub struct BlkioStats {
        io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        io_serviced_recursive: Option<Vec<BlkioEntry>>,
        io_queue_recursive: Option<Vec<BlkioEntry>>,
        io_service_time_recursive: Option<Vec<BlkioEntry>>,
        io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        io_merged_recursive: Option<Vec<BlkioEntry>>,
        io_time_recursive: Option<Vec<BlkioEntry>>,
        sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    /// A counter of one device.
    pub struct BlkioEntry {
        major: u64,
        minor: u64,
        /// `read`, `write`, …
        op: String,
        value: u64,
    }

    /// Processors.
    pub struct CpuStats {
        cpu_usage: CpuUsage,
        /// Nanoseconds of all processors of the host.
        #[serde(skip_serializing_if = "crate::nullable::is_default")] system_cpu_usage: u64,
        #[serde(skip_serializing_if = "crate::nullable::is_default")] online_cpus: u32,
        throttling_data: ThrottlingData,
    }

    /// Nanoseconds on processors.
    pub struct CpuUsage {
        total_usage: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")] percpu_usage: Vec<u64>,
        usage_in_kernelmode: u64,
        usage_in_usermode: u64,
    }

    /// How often a limit of processors was reached.
    pub struct ThrottlingData {
        periods: u64,
        throttled_periods: u64,
        throttled_time: u64,
    }

    /// Memory in bytes.
    pub struct MemoryStats {
        #[serde(skip_serializing_if = "crate::nullable::is_default")] usage: u64,
        #[serde(skip_serializing_if = "crate::nullable::is_default")] max_usage: u64,
        /// The kernel's `memory.stat`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")] stats: BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "crate::nullable::is_default")] failcnt: u64,
        #[serde(skip_serializing_if = "crate::nullable::is_default")] limit: u64,
    }

    /// A network interface.
    pub struct InterfaceStats {
        rx_bytes: u64,
        rx_packets: u64,
        rx_errors: u64,
        rx_dropped: u64,
        tx_bytes: u64,
        tx_packets: u64,
        tx_errors: u64,
        tx_dropped: u64,
    }
}

impl MemoryStats {
    /// Bytes in use without what the kernel would give back first, as docker's clients count it.
    #[must_use]
    pub fn without_cache(&self) -> u64 {
        // Version 1 of control groups has the first one, version 2 the second one.
        let inactive = ["total_inactive_file", "inactive_file"]
            .into_iter()
            .find_map(|name| self.stats.get(name).copied())
            .filter(|inactive| *inactive < self.usage);
        self.usage - inactive.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_does_not_count() {
        let mut memory = MemoryStats { usage: 100, ..MemoryStats::default() };
        assert_eq!(memory.without_cache(), 100);
        memory.stats.insert("inactive_file".into(), 30);
        assert_eq!(memory.without_cache(), 70);
        memory.stats.insert("total_inactive_file".into(), 40);
        assert_eq!(memory.without_cache(), 60);
    }

    #[test]
    fn a_stopped_container_has_the_shape_that_clients_read() {
        let stats = ContainerStats { name: "/x".into(), ..ContainerStats::default() };
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["pids_stats"], serde_json::json!({}));
        assert_eq!(json["cpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert_eq!(json["blkio_stats"]["io_service_bytes_recursive"], serde_json::Value::Null);
        assert!(json.get("networks").is_none());
    }
}
