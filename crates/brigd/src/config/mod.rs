//! The daemon's configuration: flags and file, checked and completed once at the start.

mod directives;
mod file;
mod host;
mod scan;
mod trust_server;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use directives::{AddressPoolDirective, Directives, RuntimeDirective, UlimitDirective};
pub use file::{DEFAULT_CONFIG_FILE, FileError};
pub use host::{Host, HostError};
pub use scan::DatabaseSource;
pub use trust_server::{TrustServerConfig, TrustServerDirectives};

use brig_pki::engine::EngineFiles;
use brig_store::etcd::EtcdTls;
use brig_swarm::ExternalStore;

use brig_api::engine_access::EngineAccess;

use crate::access::AuditFailure;
use crate::access::enrol::{Authority, is_host};
use crate::access::lend::SocketBinds;
use crate::cli::Flags;

/// Root of persistent state.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/brig";
/// Root of what a reboot may forget.
pub const DEFAULT_EXEC_ROOT: &str = "/run/brig";
/// Where the TLS files are looked for unless the configuration names them.
pub const TLS_DIR: &str = "/etc/brig";
const SOCKET_NAME: &str = "brig.sock";
const PIDFILE_NAME: &str = "brigd.pid";
/// Where the access rules are unless the configuration says otherwise.
const DEFAULT_ACCESS: &str = "/etc/brig/access";
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time that a stop may take before systemd loses patience.
const MAX_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(600);
const DEFAULT_CONCURRENT_DOWNLOADS: usize = 3;
const DEFAULT_CONCURRENT_UPLOADS: usize = 5;
const MAX_CONCURRENT_TRANSFERS: u32 = 64;

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Root of persistent state.
    pub data_root: PathBuf,
    /// Root of execution state.
    pub exec_root: PathBuf,
    /// File with the process id.
    pub pidfile: PathBuf,
    /// Where to listen.
    pub hosts: Vec<Host>,
    /// Files of the TLS on ports; `None` while there is no verified TLS.
    pub tls: Option<EngineFiles>,
    /// Whether the ports' certificate is of the engine's own access authority.
    pub tls_auto: bool,
    /// Names and addresses that stand in it besides those of the host.
    pub tls_names: Vec<String>,
    /// Group of the socket; `None` looks for `docker` and `brig`.
    pub group: Option<String>,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Parent cgroup of containers.
    pub cgroup_parent: Option<String>,
    /// Networks.
    pub network: NetworkConfig,
    /// Registries.
    pub registries: RegistryConfig,
    /// What containers get that ask for nothing.
    pub containers: ContainerDefaults,
    /// Labels of this engine.
    pub labels: Vec<String>,
    /// Time for requests and streams to end at a stop.
    pub shutdown_timeout: Duration,
    /// Directory of the access rules.
    pub access: PathBuf,
    /// What happens to changes while the audit log can't be written.
    pub audit_failure: AuditFailure,
    /// What becomes of binds of the engine's own sockets.
    pub socket_binds: SocketBinds,
    /// Whether containers may mount the engine's own sockets and state.
    pub socket_mounts_allowed: bool,
    /// The etcd of somebody else that keeps the swarm's store.
    pub store: Option<ExternalStore>,
    /// The trust server in the daemon.
    pub trust_server: Option<TrustServerConfig>,
    /// Where the vulnerability database is fetched from.
    pub scan_database: Option<DatabaseSource>,
}

/// Networks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Address and prefix length of the default bridge.
    pub bip: Option<Cidr>,
    /// Whether the default bridge has IPv6.
    pub ipv6: bool,
    /// Its IPv6 subnet.
    pub fixed_cidr_v6: Option<Cidr>,
    /// Pools for networks without a subnet of their own; empty for the built-in ones.
    pub pools: Vec<AddressPool>,
    /// Name servers of containers; empty for the host's.
    pub dns: Vec<IpAddr>,
    /// Resolver options of containers.
    pub dns_opts: Vec<String>,
    /// Search domains of containers.
    pub dns_search: Vec<String>,
}

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

/// Networks of prefix length `size` are cut from `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// What to cut from.
    pub base: Cidr,
    /// Prefix length of each network.
    pub size: u8,
}

/// Registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Those spoken to without verified TLS.
    pub insecure: Vec<String>,
    /// Mirrors of the default registry.
    pub mirrors: Vec<String>,
    /// Layers fetched at a time.
    pub max_concurrent_downloads: usize,
    /// Layers sent at a time.
    pub max_concurrent_uploads: usize,
}

/// What containers get that ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerDefaults {
    /// Resource limits.
    pub ulimits: Vec<UlimitDirective>,
    /// Log driver.
    pub log_driver: Option<String>,
    /// Options of the log driver.
    pub log_opts: BTreeMap<String, String>,
    /// Whether an init process is put in.
    pub init: bool,
    /// The init program; `None` looks for one.
    pub init_path: Option<PathBuf>,
    /// The OCI runtime; `None` looks for crun, then runc.
    pub runtime: Option<PathBuf>,
}

/// Least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything for finding faults.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What will be a problem.
    Warn,
    /// What is a problem.
    Error,
}

impl LogLevel {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "debug" | "trace" => Self::Debug,
            "info" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "fatal" | "panic" => Self::Error,
            _ => return None,
        })
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file, or the file together with the flags.
    #[error("unable to configure the daemon")]
    File(#[source] FileError),
    /// An address to listen on.
    #[error("unable to configure the listeners")]
    Host(#[source] HostError),
    /// A value that makes no sense.
    #[error("invalid value for {key}: {reason}")]
    Value {
        /// The key, as in the file.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Config {
    /// Reads the configuration file and lays the flags over it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let default = PathBuf::from(DEFAULT_CONFIG_FILE);
        let (path, must_exist) = match &flags.config_file {
            Some(path) => (path, true),
            None => (&default, false),
        };
        let directives =
            file::merged(&flags.directives(), path, must_exist).map_err(ConfigError::File)?;
        Self::resolve(directives)
    }

    /// Checks and completes what was written.
    ///
    /// # Errors
    /// [`ConfigError`], without [`ConfigError::File`].
    pub fn resolve(d: Directives) -> Result<Self, ConfigError> {
        let data_root = absolute("data-root", d.data_root, DEFAULT_DATA_ROOT.into())?;
        let exec_root = absolute("exec-root", d.exec_root, DEFAULT_EXEC_ROOT.into())?;
        let pidfile = absolute("pidfile", d.pidfile, exec_root.join(PIDFILE_NAME))?;
        let default_socket = exec_root.join(SOCKET_NAME);
        let tls_auto = d.tlsauto.unwrap_or_default();
        let verifies = d.tlsverify.unwrap_or_default() || tls_auto;
        let tls_names = d.tlsnames.unwrap_or_default();
        if let Some(name) = tls_names.iter().find(|name| !is_host(name)) {
            return Err(value(
                "tlsnames",
                format!("{name:?} is neither a host's name nor an address"),
            ));
        }
        if tls_auto && (d.tlscert.is_some() || d.tlskey.is_some()) {
            return Err(value(
                "tlsauto",
                "the daemon makes its own certificate: leave tlscert and tlskey out, or tlsauto",
            ));
        }
        let revoked = placed("tlsrevoked", d.tlsrevoked)?;
        let ca = placed("tlscacert", d.tlscacert)?;
        let tls = if tls_auto {
            let (cert, key) = Authority::port_files(&data_root.join("access"));
            EngineFiles { ca, cert, key, revoked }
        } else {
            let or_default = |path: Option<PathBuf>, name: &str| {
                path.unwrap_or_else(|| Path::new(TLS_DIR).join(name))
            };
            EngineFiles {
                ca: Some(or_default(ca, "ca.pem")),
                cert: or_default(placed("tlscert", d.tlscert)?, "cert.pem"),
                key: or_default(placed("tlskey", d.tlskey)?, "key.pem"),
                revoked,
            }
        };
        let mut hosts = Vec::new();
        for text in d.hosts.unwrap_or_default() {
            let host = Host::parse(&text, &default_socket, verifies).map_err(ConfigError::Host)?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            hosts.push(Host::Unix(default_socket));
        }
        let named_level = match d.log_level {
            None => LogLevel::Info,
            Some(text) => LogLevel::parse(&text).ok_or_else(|| {
                value("log-level", format!("{text:?} is none of debug, info, warn, error, fatal"))
            })?,
        };
        let log_level = if d.debug == Some(true) { LogLevel::Debug } else { named_level };
        if d.live_restore == Some(false) {
            return Err(value("live-restore", "containers always go on without the daemon"));
        }
        let shutdown_timeout =
            d.shutdown_timeout.map_or(DEFAULT_SHUTDOWN_TIMEOUT, Duration::from_secs);
        if shutdown_timeout > MAX_SHUTDOWN_TIMEOUT {
            return Err(value("shutdown-timeout", "more than 600 seconds"));
        }
        let labels = d.labels.unwrap_or_default();
        if let Some(label) = labels.iter().find(|label| !label.contains('=')) {
            return Err(value("labels", format!("{label:?} is not KEY=VALUE")));
        }
        let sockets = hosts.iter().filter_map(Host::path).collect();
        let lend = d.lend_for_socket_binds.map(|text| {
            let access = EngineAccess::parse(&text);
            access.map_err(|error| value("lend-for-socket-binds", error.to_string()))
        });
        let trust_server = d.trust_server.map(|server| server.resolve(&data_root)).transpose()?;
        Ok(Self {
            scan_database: scan::source(d.scan_database_url, d.scan_database_interval.as_deref())?,
            trust_server,
            socket_binds: SocketBinds { lend: lend.transpose()?, sockets },
            socket_mounts_allowed: socket_mounts(d.engine_socket_mounts.as_deref())?,
            data_root,
            exec_root,
            pidfile,
            hosts,
            tls: verifies.then_some(tls),
            tls_auto,
            tls_names,
            group: d.group.filter(|group| !group.is_empty()),
            log_level,
            cgroup_parent: d.cgroup_parent.filter(|parent| !parent.is_empty()),
            network: NetworkConfig {
                bip: d.bip.map(|text| cidr("bip", &text)).transpose()?,
                ipv6: d.ipv6.unwrap_or_default(),
                fixed_cidr_v6: d
                    .fixed_cidr_v6
                    .map(|text| cidr6("fixed-cidr-v6", &text))
                    .transpose()?,
                pools: pools(d.default_address_pools.unwrap_or_default())?,
                dns: addresses(&d.dns.unwrap_or_default())?,
                dns_opts: d.dns_opts.unwrap_or_default(),
                dns_search: d.dns_search.unwrap_or_default(),
            },
            registries: RegistryConfig {
                insecure: d.insecure_registries.unwrap_or_default(),
                mirrors: mirrors(d.registry_mirrors.unwrap_or_default())?,
                max_concurrent_downloads: at_once(
                    "max-concurrent-downloads",
                    d.max_concurrent_downloads,
                    DEFAULT_CONCURRENT_DOWNLOADS,
                )?,
                max_concurrent_uploads: at_once(
                    "max-concurrent-uploads",
                    d.max_concurrent_uploads,
                    DEFAULT_CONCURRENT_UPLOADS,
                )?,
            },
            containers: ContainerDefaults {
                ulimits: ulimits(d.default_ulimits.unwrap_or_default())?,
                log_driver: d.log_driver,
                log_opts: d.log_opts.unwrap_or_default(),
                init: d.init.unwrap_or_default(),
                init_path: d.init_path,
                runtime: runtime(d.default_runtime, &d.runtimes.unwrap_or_default())?,
            },
            labels,
            shutdown_timeout,
            access: absolute("access", d.access, DEFAULT_ACCESS.into())?,
            audit_failure: audit_failure(d.audit_failure.as_deref())?,
            store: store(d.store, (d.store_cacert, d.store_cert, d.store_key))?,
        })
    }
}

impl Config {
    /// The keys in which this configuration differs from another.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("data-root", self.data_root != other.data_root),
            ("exec-root", self.exec_root != other.exec_root),
            ("pidfile", self.pidfile != other.pidfile),
            ("hosts", self.hosts != other.hosts),
            ("tlsverify, tlscacert, tlscert, tlskey, tlsrevoked", self.tls != other.tls),
            ("tlsauto", self.tls_auto != other.tls_auto),
            ("tlsnames", self.tls_names != other.tls_names),
            ("group", self.group != other.group),
            ("log-level", self.log_level != other.log_level),
            ("cgroup-parent", self.cgroup_parent != other.cgroup_parent),
            ("bip, ipv6, fixed-cidr-v6, default-address-pools, dns", self.network != other.network),
            ("insecure-registries, registry-mirrors", self.registries != other.registries),
            ("defaults of containers", self.containers != other.containers),
            ("labels", self.labels != other.labels),
            ("shutdown-timeout", self.shutdown_timeout != other.shutdown_timeout),
            ("access", self.access != other.access),
            ("audit-failure", self.audit_failure != other.audit_failure),
            ("lend-for-socket-binds", self.socket_binds.lend != other.socket_binds.lend),
            ("engine-socket-mounts", self.socket_mounts_allowed != other.socket_mounts_allowed),
            ("store, store-cacert, store-cert, store-key", self.store != other.store),
            ("trust-server", self.trust_server != other.trust_server),
            (
                "scan-database-url, scan-database-interval",
                self.scan_database != other.scan_database,
            ),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// An etcd that somebody else runs. It holds everything, so it is opened over verified TLS only.
fn store(
    address: Option<String>,
    (ca, cert, key): (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
) -> Result<Option<ExternalStore>, ConfigError> {
    const PORT: &str = "2379";
    let (ca, cert) = (placed("store-cacert", ca)?, placed("store-cert", cert)?);
    let key = placed("store-key", key)?;
    let Some(address) = address else {
        return match [ca, cert, key].iter().any(Option::is_some) {
            true => Err(value("store", "its TLS files are given, but no etcd://HOST")),
            false => Ok(None),
        };
    };
    let hosts = address
        .strip_prefix("etcd://")
        .ok_or_else(|| value("store", format!("{address:?} is not etcd://HOST:PORT,HOST:PORT")))?;
    let endpoints: Vec<String> = hosts
        .split(',')
        .map(|host| host.trim_end_matches('/'))
        .filter(|host| !host.is_empty())
        .map(|host| match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
            _ => format!("{host}:{PORT}"),
        })
        .collect();
    if endpoints.is_empty() {
        return Err(value("store", "no host is named"));
    }
    let (Some(ca), Some(cert), Some(key)) = (ca, cert, key) else {
        return Err(value(
            "store",
            "etcd is opened over mutual TLS only: give --store-cacert, --store-cert and --store-key",
        ));
    };
    Ok(Some(ExternalStore { endpoints, tls: EtcdTls { ca, cert, key } }))
}

fn value(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, reason: reason.into() }
}

fn absolute(
    key: &'static str,
    given: Option<PathBuf>,
    default: PathBuf,
) -> Result<PathBuf, ConfigError> {
    match given {
        None => Ok(default),
        Some(path) if path.is_absolute() => Ok(path),
        Some(path) => Err(value(key, format!("{} is not an absolute path", path.display()))),
    }
}

/// Makes a path independent of where the daemon will be; the files are read again later.
fn placed(key: &'static str, given: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    given
        .map(std::path::absolute)
        .transpose()
        .map_err(|error| value(key, format!("cannot tell where it is: {error}")))
}

fn cidr(key: &'static str, text: &str) -> Result<Cidr, ConfigError> {
    let invalid = || value(key, format!("{text:?} is not ADDRESS/PREFIX"));
    let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if prefix == 0 || prefix > most {
        return Err(invalid());
    }
    Ok(Cidr { address, prefix })
}

fn socket_mounts(text: Option<&str>) -> Result<bool, ConfigError> {
    match text {
        None | Some("refuse") => Ok(false),
        Some("allow") => Ok(true),
        Some(other) => {
            Err(value("engine-socket-mounts", format!("{other:?} is neither refuse nor allow")))
        }
    }
}

fn audit_failure(word: Option<&str>) -> Result<AuditFailure, ConfigError> {
    match word {
        None | Some("refuse") => Ok(AuditFailure::Refuse),
        Some("allow") => Ok(AuditFailure::Allow),
        Some(word) => Err(value("audit-failure", format!("{word:?} is neither refuse nor allow"))),
    }
}

fn cidr6(key: &'static str, text: &str) -> Result<Cidr, ConfigError> {
    let cidr = cidr(key, text)?;
    if cidr.address.is_ipv4() || cidr.prefix > 126 {
        return Err(value(key, format!("{text:?} is no IPv6 subnet for containers")));
    }
    Ok(cidr)
}

fn pools(list: Vec<AddressPoolDirective>) -> Result<Vec<AddressPool>, ConfigError> {
    const KEY: &str = "default-address-pools";
    list.into_iter()
        .map(|pool| {
            let base = cidr(KEY, &pool.base)?;
            let most = if base.address.is_ipv4() { 30 } else { 126 };
            if pool.size < base.prefix || pool.size > most {
                return Err(value(KEY, format!("{} has no networks of /{}", pool.base, pool.size)));
            }
            Ok(AddressPool { base, size: pool.size })
        })
        .collect()
}

fn addresses(list: &[String]) -> Result<Vec<IpAddr>, ConfigError> {
    list.iter()
        .map(|text| text.parse().map_err(|_| value("dns", format!("{text:?} is no IP address"))))
        .collect()
}

fn mirrors(list: Vec<String>) -> Result<Vec<String>, ConfigError> {
    for mirror in &list {
        if !mirror.starts_with("https://") && !mirror.starts_with("http://") {
            let reason = format!("{mirror:?} is not a URL of scheme https or http");
            return Err(value("registry-mirrors", reason));
        }
    }
    Ok(list)
}

fn at_once(key: &'static str, given: Option<u32>, default: usize) -> Result<usize, ConfigError> {
    match given {
        None | Some(0) => Ok(default),
        Some(n) if n <= MAX_CONCURRENT_TRANSFERS => Ok(usize::try_from(n).unwrap_or(default)),
        Some(n) => Err(value(key, format!("{n} is more than {MAX_CONCURRENT_TRANSFERS}"))),
    }
}

fn ulimits(map: BTreeMap<String, UlimitDirective>) -> Result<Vec<UlimitDirective>, ConfigError> {
    map.into_iter()
        .map(|(key, limit)| {
            if !limit.name.is_empty() && limit.name != key {
                let reason = format!("{key:?} holds a limit named {:?}", limit.name);
                return Err(value("default-ulimits", reason));
            }
            if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
                let reason = format!("{key}: the soft limit is above the hard one");
                return Err(value("default-ulimits", reason));
            }
            Ok(UlimitDirective { name: key, ..limit })
        })
        .collect()
}

fn runtime(
    name: Option<String>,
    known: &BTreeMap<String, RuntimeDirective>,
) -> Result<Option<PathBuf>, ConfigError> {
    let Some(name) = name else { return Ok(None) };
    match known.get(&name) {
        Some(runtime) => Ok(Some(runtime.path.clone())),
        None if matches!(name.as_str(), "crun" | "runc") => Ok(Some(PathBuf::from(name))),
        None => Err(value("default-runtime", format!("{name:?} is not among runtimes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<Config, ConfigError> {
        Config::resolve(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn another_etcd_is_named_with_its_tls_files() {
        let all = r#"{"store":"etcd://a,b:1,[::1]:2","store-cacert":"/c","store-cert":"/d","store-key":"/e"}"#;
        let resolve = |text: &str| Config::resolve(serde_json::from_str(text).unwrap());
        let store = resolve(all).unwrap().store.unwrap();
        assert_eq!(store.endpoints, ["a:2379", "b:1", "[::1]:2"]);
        assert_eq!(store.tls.ca, Path::new("/c"));
        for refused in [
            r#"{"store":"etcd://a"}"#,
            r#"{"store-cacert":"/c"}"#,
            r#"{"store":"http://a","store-cacert":"/c","store-cert":"/d","store-key":"/e"}"#,
            r#"{"store":"etcd://","store-cacert":"/c","store-cert":"/d","store-key":"/e"}"#,
        ] {
            let told = resolve(refused).unwrap_err().to_string();
            assert!(told.contains("store"), "{told}");
        }
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let config = resolve("{}").unwrap();
        assert_eq!(config.data_root, PathBuf::from("/var/lib/brig"));
        assert_eq!(config.pidfile, PathBuf::from("/run/brig/brigd.pid"));
        assert_eq!(config.hosts, [Host::Unix("/run/brig/brig.sock".into())]);
        assert_eq!(config.log_level, LogLevel::Info);
        assert_eq!(config.shutdown_timeout, Duration::from_secs(15));
    }

    #[test]
    fn another_exec_root_moves_socket_and_pidfile() {
        let config = resolve(r#"{"exec-root":"/run/b2"}"#).unwrap();
        assert_eq!(config.hosts, [Host::Unix("/run/b2/brig.sock".into())]);
        assert_eq!(config.pidfile, PathBuf::from("/run/b2/brigd.pid"));
    }

    #[test]
    fn values_without_sense_are_refused_by_key() {
        for (json, key) in [
            (r#"{"data-root":"x"}"#, "data-root"),
            (r#"{"log-level":"loud"}"#, "log-level"),
            (r#"{"bip":"172.17.0.1"}"#, "bip"),
            (r#"{"bip":"172.17.0.1/33"}"#, "bip"),
            (r#"{"fixed-cidr-v6":"10.0.0.0/8"}"#, "fixed-cidr-v6"),
            (r#"{"fixed-cidr-v6":"fd00::/127"}"#, "fixed-cidr-v6"),
            (r#"{"dns":["localhost"]}"#, "dns"),
            (
                r#"{"default-address-pools":[{"base":"10.0.0.0/24","size":16}]}"#,
                "default-address-pools",
            ),
            (r#"{"default-runtime":"kata"}"#, "default-runtime"),
            (r#"{"registry-mirrors":["mirror"]}"#, "registry-mirrors"),
            (r#"{"live-restore":false}"#, "live-restore"),
            (r#"{"labels":["x"]}"#, "labels"),
            (r#"{"default-ulimits":{"nofile":{"Soft":3,"Hard":2}}}"#, "default-ulimits"),
            (r#"{"shutdown-timeout":601}"#, "shutdown-timeout"),
            (r#"{"max-concurrent-downloads":1000}"#, "max-concurrent-downloads"),
        ] {
            match resolve(json) {
                Err(ConfigError::Value { key: named, .. }) => assert_eq!(named, key, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }

    #[test]
    fn debug_beats_the_level_and_hosts_are_listed_once() {
        let config =
            resolve(r#"{"debug":true,"log-level":"error","hosts":["unix:///a","unix:///a"]}"#)
                .unwrap();
        assert_eq!(config.log_level, LogLevel::Debug);
        assert_eq!(config.hosts.len(), 1);
    }

    #[test]
    fn tls_files_have_places() {
        let config = resolve(r#"{"tlsverify":true,"hosts":["tcp://:2376"],"tlskey":"/k.pem"}"#);
        let tls = config.unwrap().tls.unwrap();
        assert_eq!(tls.ca, Some(PathBuf::from("/etc/brig/ca.pem")));
        assert_eq!((tls.key, tls.revoked), (PathBuf::from("/k.pem"), None));
        assert_eq!(resolve(r#"{"tlscacert":"/c.pem"}"#).unwrap().tls, None);
        let refused = resolve(r#"{"tls":true,"hosts":["tcp://:2376"]}"#);
        assert!(matches!(refused, Err(ConfigError::Host(HostError::PlainTcp(_)))));
    }

    #[test]
    fn a_port_may_make_its_own_certificate() {
        let own =
            r#"{"tlsauto":true,"hosts":["tcp://:2376"],"data-root":"/d","tlsnames":["a.b","::1"]}"#;
        let config = resolve(own).unwrap();
        let tls = config.tls.unwrap();
        assert_eq!((tls.ca, tls.cert), (None, PathBuf::from("/d/access/port-cert.pem")));
        assert!(config.tls_auto && config.tls_names.len() == 2);
        let both = resolve(r#"{"tlsauto":true,"tlscacert":"/ca.pem"}"#).unwrap().tls.unwrap();
        assert_eq!(both.ca, Some(PathBuf::from("/ca.pem")));
        for (json, key) in [
            (r#"{"tlsauto":true,"tlscert":"/c.pem"}"#, "tlsauto"),
            (r#"{"tlsauto":true,"tlskey":"/k.pem"}"#, "tlsauto"),
            (r#"{"tlsauto":true,"tlsnames":["a b"]}"#, "tlsnames"),
        ] {
            let refused = resolve(json);
            assert!(
                matches!(&refused, Err(ConfigError::Value { key: k, .. }) if *k == key),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn differences_are_named() {
        let old = resolve("{}").unwrap();
        let new = resolve(r#"{"debug":true,"labels":["a=b"]}"#).unwrap();
        assert_eq!(new.differences(&old), ["log-level", "labels"]);
        assert!(old.differences(&old.clone()).is_empty());
    }

    #[test]
    fn a_named_runtime_is_found() {
        let config =
            resolve(r#"{"default-runtime":"mine","runtimes":{"mine":{"path":"/bin/m"}}}"#).unwrap();
        assert_eq!(config.containers.runtime, Some("/bin/m".into()));
    }
}
