//! The keys of the configuration file and the same keys given as flags.
//!
//! The names are those of docker's `daemon.json`, so that an existing file can be moved over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::trust_server::TrustServerDirectives;

/// Everything that can be configured, as written by the operator; nothing is checked yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Directives {
    /// Where images, containers, volumes and the cluster's state are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_root: Option<PathBuf>,
    /// Where sockets and the state of running containers are kept; emptied by a reboot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_root: Option<PathBuf>,
    /// File with the daemon's process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pidfile: Option<PathBuf>,
    /// Addresses to listen on: `unix://PATH`, `fd://`, `tcp://ADDRESS:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Group that may open the socket, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Log at level debug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    /// `debug`, `info`, `warn`, `error` or `fatal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Cgroup below which containers are put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Address and prefix of the default bridge, `172.17.0.1/16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bip: Option<String>,
    /// IPv6 on the default bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// IPv6 subnet of the default bridge, `2001:db8:1::/64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_cidr_v6: Option<String>,
    /// Pools from which networks without a subnet of their own get one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_address_pools: Option<Vec<AddressPoolDirective>>,
    /// Name servers for containers instead of the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<String>>,
    /// Resolver options for containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_opts: Option<Vec<String>>,
    /// Search domains for containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_search: Option<Vec<String>>,
    /// Registries that may be spoken to without verified TLS: `host[:port]` or a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_registries: Option<Vec<String>>,
    /// Mirrors asked before the default registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_mirrors: Option<Vec<String>>,
    /// Resource limits of containers that ask for none, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ulimits: Option<BTreeMap<String, UlimitDirective>>,
    /// Log driver of containers that ask for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<String>,
    /// Options of the default log driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_opts: Option<BTreeMap<String, String>>,
    /// Put an init process into containers that don't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// The init program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_path: Option<PathBuf>,
    /// Name of the OCI runtime: `crun`, `runc` or a key of `runtimes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_runtime: Option<String>,
    /// Further OCI runtimes by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtimes: Option<BTreeMap<String, RuntimeDirective>>,
    /// Layers fetched at a time for each pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_downloads: Option<u32>,
    /// Layers sent at a time for each push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_uploads: Option<u32>,
    /// Labels of this engine, `key=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Containers go on while the daemon is stopped. They always do; `false` is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_restore: Option<bool>,
    /// Seconds given to requests and streams when the daemon stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<u64>,
    /// Directory of the access rules: `*.cedar` and `bindings.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<PathBuf>,
    /// What happens to changes while the audit log can't be written: `refuse` or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_failure: Option<String>,
    /// Whether containers may mount the engine's own sockets and state: `refuse` or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_socket_mounts: Option<String>,
    /// What containers are lent that bind the engine's socket, `ROLE[:service=NAME,…]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lend_for_socket_binds: Option<String>,
    /// Use TLS on `tcp://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Use TLS on `tcp://` and verify the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlsverify: Option<bool>,
    /// Authority of the clients' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlscacert: Option<PathBuf>,
    /// The daemon's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlscert: Option<PathBuf>,
    /// The daemon's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlskey: Option<PathBuf>,
    /// Clients' certificates that count no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlsrevoked: Option<PathBuf>,
    /// Whether the daemon makes its own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlsauto: Option<bool>,
    /// Names and addresses in that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlsnames: Option<Vec<String>>,
    /// An etcd that keeps the swarm's store: `etcd://HOST:PORT,HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Authority of that etcd's certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_cacert: Option<PathBuf>,
    /// The certificate that opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_cert: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_key: Option<PathBuf>,
    /// Where the vulnerability database is fetched from, `https://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_database_url: Option<String>,
    /// How often, `24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_database_interval: Option<String>,
    /// A trust server in the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_server: Option<TrustServerDirectives>,
}

/// One pool: networks of `/size` are cut from `base`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AddressPoolDirective {
    /// The network to cut from, `10.10.0.0/16`.
    pub base: String,
    /// Prefix length of each network.
    pub size: u8,
}

/// A resource limit; field names as docker writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UlimitDirective {
    /// Name of the limit; the map's key counts when it is missing.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// Soft limit, -1 for none.
    #[serde(rename = "Soft")]
    pub soft: i64,
    /// Hard limit, -1 for none.
    #[serde(rename = "Hard")]
    pub hard: i64,
}

/// An OCI runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeDirective {
    /// The program.
    pub path: PathBuf,
}
