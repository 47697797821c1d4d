//! The generated files of a container: resolv.conf, hostname, hosts.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use brig_network::{DnsOptions, ExtraHost};

use super::record::{ContainerPaths, Record};
use crate::disk::{self, Durability};
use crate::error::EngineError;

const HOST_HOSTS: &str = "/etc/hosts";
const MAX_HOSTS_BYTES: u64 = 1 << 20;
/// Far above what is ever written; a longer file is somebody else's.
const MAX_RESOLV_CONF_BYTES: u64 = 1 << 20;

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
        (paths.resolv_conf_written(), resolv_conf),
        (paths.hostname(), brig_network::hostname(&config.hostname).as_str()),
        (paths.hosts(), hosts.as_str()),
    ] {
        disk::write_file(&path, text.as_bytes(), 0o644, Durability::Cached)
            .map_err(|source| EngineError::disk("write", &path, source))?;
    }
    Ok(())
}

/// Gives a running container another resolv.conf, unless somebody has changed the one that it was
/// given; says whether it did. Blocking.
///
/// The container has the file itself mounted, so it is written in place: one that is renamed over it
/// would not be seen inside.
pub(crate) fn rewrite_resolv_conf(paths: &ContainerPaths, text: &str) -> Result<bool, EngineError> {
    let (path, written) = (paths.resolv_conf(), paths.resolv_conf_written());
    let found = match disk::read_limited(&path, MAX_RESOLV_CONF_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(false),
        found => found.map_err(|source| EngineError::disk("read", &path, source))?,
    };
    match disk::read_limited(&written, MAX_RESOLV_CONF_BYTES) {
        Ok(given) if given != found => return Ok(false),
        // Started by a version that kept none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        given => {
            given.map_err(|source| EngineError::disk("read", &written, source))?;
        }
    }
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|file| {
            // Never empty in between: that would mean a server at 127.0.0.1.
            file.write_all_at(text.as_bytes(), 0)?;
            file.set_len(length)
        })
        .map_err(|source| EngineError::disk("write", &path, source))?;
    disk::write_file(&written, text.as_bytes(), 0o644, Durability::Cached)
        .map_err(|source| EngineError::disk("write", &written, source))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn paths(dir: &Path) -> ContainerPaths {
        let at = |name: &str| dir.join(name);
        ContainerPaths {
            dir: dir.to_owned(),
            bundle: at("bundle"),
            rootfs: at("rootfs"),
            subpaths: at("subpaths"),
        }
    }

    #[test]
    fn a_resolv_conf_is_rewritten_in_place_until_somebody_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let file = paths.resolv_conf();
        let given = "search a.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        for path in [&file, &paths.resolv_conf_written()] {
            std::fs::write(path, given).unwrap();
        }
        let inode = std::fs::metadata(&file).unwrap().ino();
        for text in ["nameserver 127.0.0.11\n", given, "nameserver 127.0.0.11\noptions ndots:0\n"] {
            assert!(rewrite_resolv_conf(&paths, text).unwrap());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(
            std::fs::metadata(&file).unwrap().ino(),
            inode,
            "what the container has mounted"
        );

        let changed = "nameserver 192.0.2.77\n";
        std::fs::write(&file, changed).unwrap();
        assert!(!rewrite_resolv_conf(&paths, given).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), changed);
        let longer = vec![b'#'; usize::try_from(MAX_RESOLV_CONF_BYTES).unwrap() + 1];
        std::fs::write(&file, &longer).unwrap();
        assert!(!rewrite_resolv_conf(&paths, given).unwrap());

        // A version that kept no copy started it.
        std::fs::write(&file, changed).unwrap();
        std::fs::remove_file(paths.resolv_conf_written()).unwrap();
        assert!(rewrite_resolv_conf(&paths, given).unwrap());
    }
}
