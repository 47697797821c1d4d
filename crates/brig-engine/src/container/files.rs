//! The generated files of a container: resolv.conf, hostname, hosts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use brig_network::{DnsOptions, ExtraHost};

use super::record::{ContainerPaths, Record};
use crate::disk::{self, Durability};
use crate::error::EngineError;

const HOST_HOSTS: &str = "/etc/hosts";
const MAX_HOSTS_BYTES: u64 = 1 << 20;

/// The three files on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GeneratedFiles {
    resolv_conf: PathBuf,
    hostname: PathBuf,
    hosts: PathBuf,
}

impl GeneratedFiles {
    pub(crate) fn of(paths: &ContainerPaths) -> Self {
        Self { resolv_conf: paths.resolv_conf(), hostname: paths.hostname(), hosts: paths.hosts() }
    }

    /// Each with the place where it is seen in the container.
    pub(crate) fn targets(&self) -> [(&Path, &'static str); 3] {
        [
            (&self.resolv_conf, "/etc/resolv.conf"),
            (&self.hostname, "/etc/hostname"),
            (&self.hosts, "/etc/hosts"),
        ]
    }
}

/// What request and engine say about name resolution.
pub(crate) fn dns_options(record: &Record, engine: &[String]) -> Result<DnsOptions, EngineError> {
    let host = &record.host_config;
    let servers = if host.dns.is_empty() { engine } else { &host.dns };
    let servers = servers
        .iter()
        .map(|text| {
            text.parse::<IpAddr>()
                .map_err(|_| EngineError::Invalid(format!("invalid IP address: {text}")))
        })
        .collect::<Result<_, _>>()?;
    Ok(DnsOptions { servers, search: host.dns_search.clone(), options: host.dns_options.clone() })
}

/// Writes the files for a start; `addresses` are the container's own. Blocking.
pub(crate) fn write(
    record: &Record,
    paths: &ContainerPaths,
    resolv_conf: &str,
    extra: &[ExtraHost],
    addresses: &[IpAddr],
) -> Result<(), EngineError> {
    let config = &record.config;
    let hosts = if record.host_config.network_mode == "host" {
        let own = disk::read_limited(Path::new(HOST_HOSTS), MAX_HOSTS_BYTES).unwrap_or_default();
        brig_network::hosts_of_host(&String::from_utf8_lossy(&own), extra)
    } else {
        brig_network::hosts(&config.hostname, &config.domainname, addresses, extra)
    };
    for (path, text) in [
        (paths.resolv_conf(), resolv_conf),
        (paths.hostname(), brig_network::hostname(&config.hostname).as_str()),
        (paths.hosts(), hosts.as_str()),
    ] {
        disk::write_file(&path, text.as_bytes(), 0o644, Durability::Cached)
            .map_err(|source| EngineError::disk("write", &path, source))?;
    }
    Ok(())
}
