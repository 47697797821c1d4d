//! What an engine is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use brig_network::NetworkConfig;
use brig_runtime::RuntimeConfig;

use crate::admission::Admission;

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What survives a restart of the machine: containers, volumes.
    pub data_root: PathBuf,
    /// What doesn't: mounts, bundles, sockets. Best on a memory file system.
    pub exec_root: PathBuf,
    /// Where the runtime is and how it is called.
    pub runtime: RuntimeConfig,
    /// Bridges, address pools, DNS.
    pub network: NetworkConfig,
    /// Log options for containers that set none: `max-size`, `max-file`.
    pub log_options: BTreeMap<String, String>,
    /// Name servers for containers that set none; empty: the host's.
    pub dns: Vec<String>,
    /// Where the daemon listens: sockets that no container may have.
    pub sockets: Vec<PathBuf>,
    /// Whether containers may have them all the same, and the roots as well.
    pub socket_mounts_allowed: bool,
    /// Who says which images may be run; without it all may.
    pub admission: Option<Arc<dyn Admission>>,
}
