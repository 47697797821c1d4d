//! The command line: dockerd's flags where they exist.

use std::collections::BTreeMap;
use std::path::PathBuf;

mod trust_server;

use crate::config::{AddressPoolDirective, Directives, RuntimeDirective, UlimitDirective};
use trust_server::TrustServerFlags;

/// The container engine and swarm daemon.
#[derive(Debug, Default, clap::Parser)]
#[command(name = "brigd", version, disable_version_flag = true, arg_required_else_help = false)]
pub struct Flags {
    /// Configuration file [default: /etc/brig/brigd.json]
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    pub validate: bool,
    /// Remove every container, network, mount and the state of these roots, and exit
    #[arg(long)]
    pub purge: bool,
    /// Print the version and exit
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// Root directory of persistent state [default: /var/lib/brig]
    #[arg(long, short = 'g', value_name = "DIR", alias = "graph")]
    data_root: Option<PathBuf>,
    /// Root directory of execution state [default: /run/brig]
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// File for the daemon's process id [default: EXEC_ROOT/brigd.pid]
    #[arg(long, short = 'p', value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Address to listen on, unix://PATH, fd:// or tcp://ADDRESS:PORT with --tlsauto or --tlsverify [default: unix://EXEC_ROOT/brig.sock]
    #[arg(long = "host", short = 'H', value_name = "ADDRESS")]
    hosts: Vec<String>,
    /// Group that may open the socket [default: docker or brig, if there is one]
    #[arg(long, short = 'G')]
    group: Option<String>,
    /// Log debug messages
    #[arg(long, short = 'D')]
    debug: bool,
    /// Log level: debug, info, warn, error, fatal [default: info]
    #[arg(long, short = 'l', value_name = "LEVEL")]
    log_level: Option<String>,
    /// Parent cgroup of all containers
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Address of the default bridge, IP/PREFIX
    #[arg(long, value_name = "CIDR")]
    bip: Option<String>,
    /// Give the default bridge IPv6
    #[arg(long)]
    ipv6: bool,
    /// IPv6 subnet of the default bridge
    #[arg(long, value_name = "CIDR")]
    fixed_cidr_v6: Option<String>,
    /// Pool for networks without a subnet, base=CIDR,size=PREFIX
    #[arg(long = "default-address-pool", value_name = "POOL", value_parser = address_pool)]
    default_address_pools: Vec<AddressPoolDirective>,
    /// Name server of containers
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
    /// Resolver option of containers
    #[arg(long = "dns-opt", value_name = "OPTION")]
    dns_opts: Vec<String>,
    /// Search domain of containers
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Registry that may be spoken to without verified TLS
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    insecure_registries: Vec<String>,
    /// Mirror of the default registry
    #[arg(long = "registry-mirror", value_name = "URL")]
    registry_mirrors: Vec<String>,
    /// Default resource limit of containers, NAME=SOFT[:HARD]
    #[arg(long = "default-ulimit", value_name = "LIMIT", value_parser = ulimit)]
    default_ulimits: Vec<(String, UlimitDirective)>,
    /// Default log driver of containers
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Option of the default log driver, KEY=VALUE
    #[arg(long = "log-opt", value_name = "OPTION", value_parser = key_value)]
    log_opts: Vec<(String, String)>,
    /// Put an init process into containers
    #[arg(long)]
    init: bool,
    /// The init program
    #[arg(long, value_name = "FILE")]
    init_path: Option<PathBuf>,
    /// Default OCI runtime
    #[arg(long, value_name = "NAME")]
    default_runtime: Option<String>,
    /// OCI runtime, NAME=PATH
    #[arg(long = "add-runtime", value_name = "RUNTIME", value_parser = key_value)]
    runtimes: Vec<(String, String)>,
    /// Layers fetched at a time for each pull
    #[arg(long, value_name = "N")]
    max_concurrent_downloads: Option<u32>,
    /// Layers sent at a time for each push
    #[arg(long, value_name = "NUMBER")]
    max_concurrent_uploads: Option<u32>,
    /// Label of this engine, KEY=VALUE
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Accepted: containers always go on while the daemon is stopped
    #[arg(long)]
    live_restore: bool,
    /// Seconds given to requests when the daemon stops
    #[arg(long, value_name = "SECONDS")]
    shutdown_timeout: Option<u64>,
    /// Directory of the access rules [default: /etc/brig/access]
    #[arg(long, value_name = "DIR")]
    access: Option<PathBuf>,
    /// What happens to changes while the audit log can't be written: refuse, allow
    #[arg(long, value_name = "WORD")]
    audit_failure: Option<String>,
    /// Whether containers may mount the engine's own sockets and state: refuse, allow
    #[arg(long, value_name = "WORD")]
    engine_socket_mounts: Option<String>,
    /// What containers are lent that bind the engine's socket, ROLE[:service=NAME,...]
    #[arg(long, value_name = "ACCESS")]
    lend_for_socket_binds: Option<String>,
    /// Use TLS on tcp://; refused without --tlsverify
    #[arg(long)]
    tls: bool,
    /// Use TLS on tcp:// and verify clients
    #[arg(long)]
    tlsverify: bool,
    /// Authority that signed the clients' certificates [default: /etc/brig/ca.pem]
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Certificate of the daemon [default: /etc/brig/cert.pem]
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Private key of the daemon [default: /etc/brig/key.pem]
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// Clients' certificates that count no more: sha256:FINGERPRINT or serial:NUMBER a line, or PEM revocation lists
    #[arg(long, value_name = "FILE")]
    tlsrevoked: Option<PathBuf>,
    /// Use TLS on tcp:// with a certificate of the engine's own authority; clients get theirs with brig access
    #[arg(long)]
    tlsauto: bool,
    /// Name or address in that certificate, besides those of this host
    #[arg(long = "tlsname", value_name = "NAME")]
    tlsnames: Vec<String>,
    /// Keep the swarm's store in this etcd, etcd://HOST:PORT,HOST:PORT [default: a file, and etcd on every manager once there are several]
    #[arg(long, value_name = "ADDRESS")]
    store: Option<String>,
    /// Authority of the certificates of that etcd
    #[arg(long, value_name = "FILE")]
    store_cacert: Option<PathBuf>,
    /// Certificate that opens that etcd
    #[arg(long, value_name = "FILE")]
    store_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE")]
    store_key: Option<PathBuf>,
    /// Where the vulnerability database is fetched from (https://…)
    #[arg(long, value_name = "URL")]
    scan_database_url: Option<String>,
    /// How often it is fetched [default: 24h]
    #[arg(long, value_name = "TIME")]
    scan_database_interval: Option<String>,
    #[command(flatten)]
    trust_server: TrustServerFlags,
}

impl Flags {
    /// The flags as directives; what wasn't given is absent.
    #[must_use]
    pub fn directives(&self) -> Directives {
        Directives {
            data_root: self.data_root.clone(),
            exec_root: self.exec_root.clone(),
            pidfile: self.pidfile.clone(),
            hosts: some(&self.hosts),
            group: self.group.clone(),
            debug: self.debug.then_some(true),
            log_level: self.log_level.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            bip: self.bip.clone(),
            ipv6: self.ipv6.then_some(true),
            fixed_cidr_v6: self.fixed_cidr_v6.clone(),
            default_address_pools: some(&self.default_address_pools),
            dns: some(&self.dns),
            dns_opts: some(&self.dns_opts),
            dns_search: some(&self.dns_search),
            insecure_registries: some(&self.insecure_registries),
            registry_mirrors: some(&self.registry_mirrors),
            default_ulimits: some(&self.default_ulimits).map(BTreeMap::from_iter),
            log_driver: self.log_driver.clone(),
            log_opts: some(&self.log_opts).map(BTreeMap::from_iter),
            init: self.init.then_some(true),
            init_path: self.init_path.clone(),
            default_runtime: self.default_runtime.clone(),
            runtimes: some(&self.runtimes).map(|list| {
                list.into_iter()
                    .map(|(name, path)| (name, RuntimeDirective { path: path.into() }))
                    .collect()
            }),
            max_concurrent_downloads: self.max_concurrent_downloads,
            max_concurrent_uploads: self.max_concurrent_uploads,
            labels: some(&self.labels),
            live_restore: self.live_restore.then_some(true),
            shutdown_timeout: self.shutdown_timeout,
            access: self.access.clone(),
            audit_failure: self.audit_failure.clone(),
            engine_socket_mounts: self.engine_socket_mounts.clone(),
            lend_for_socket_binds: self.lend_for_socket_binds.clone(),
            tls: self.tls.then_some(true),
            tlsverify: self.tlsverify.then_some(true),
            tlscacert: self.tlscacert.clone(),
            tlscert: self.tlscert.clone(),
            tlskey: self.tlskey.clone(),
            tlsrevoked: self.tlsrevoked.clone(),
            tlsauto: self.tlsauto.then_some(true),
            tlsnames: some(&self.tlsnames),
            store: self.store.clone(),
            store_cacert: self.store_cacert.clone(),
            store_cert: self.store_cert.clone(),
            store_key: self.store_key.clone(),
            scan_database_url: self.scan_database_url.clone(),
            scan_database_interval: self.scan_database_interval.clone(),
            trust_server: self.trust_server.directives(),
        }
    }
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn ulimit(text: &str) -> Result<(String, UlimitDirective), String> {
    let (name, limits) = key_value(text)?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{text:?} is no number"));
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(&limits)?, number(&limits)?),
    };
    Ok((name.clone(), UlimitDirective { name, soft, hard }))
}

fn address_pool(text: &str) -> Result<AddressPoolDirective, String> {
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match key_value(part)? {
            (key, value) if key == "base" => base = Some(value),
            (key, value) if key == "size" => {
                size = Some(value.parse().map_err(|_| format!("{value:?} is no prefix length"))?);
            }
            (key, _) => return Err(format!("unknown key {key:?}, expected base and size")),
        }
    }
    match (base, size) {
        (Some(base), Some(size)) => Ok(AddressPoolDirective { base, size }),
        _ => Err("expected base=CIDR,size=PREFIX".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn flags_become_directives() {
        let flags = Flags::try_parse_from([
            "brigd",
            "-D",
            "-H",
            "unix:///a",
            "-H",
            "fd://",
            "--default-ulimit",
            "nofile=1:2",
            "--default-address-pool",
            "base=10.0.0.0/8,size=24",
            "--log-opt",
            "a=b",
            "--add-runtime",
            "mine=/bin/mine",
            "--tlsverify",
        ])
        .unwrap();
        let directives = flags.directives();
        assert_eq!(directives.hosts.unwrap(), ["unix:///a", "fd://"]);
        assert_eq!(directives.debug, Some(true));
        assert_eq!(directives.tls, None);
        assert_eq!(directives.default_ulimits.unwrap()["nofile"].hard, 2);
        assert_eq!(directives.default_address_pools.unwrap()[0].base, "10.0.0.0/8");
        assert_eq!(directives.runtimes.unwrap()["mine"].path, PathBuf::from("/bin/mine"));
    }

    #[test]
    fn no_flag_is_no_directive() {
        let flags = Flags::try_parse_from(["brigd"]).unwrap();
        assert_eq!(flags.directives(), Directives::default());
    }

    #[test]
    fn malformed_values_are_refused() {
        for arguments in [
            ["--default-ulimit", "nofile"],
            ["--default-ulimit", "nofile=a"],
            ["--default-address-pool", "base=10.0.0.0/8"],
            ["--default-address-pool", "base=10.0.0.0/8,size=x"],
            ["--log-opt", "=b"],
        ] {
            let line = ["brigd"].into_iter().chain(arguments);
            assert!(Flags::try_parse_from(line).is_err(), "{arguments:?}");
        }
    }
}
