//! The port's certificate where the operator gave none: of the access authority, for the names
//! and addresses that this host has now, renewed past half of its life.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_pki::access_ca::{AccessCa, names_of};
use brig_pki::csr::NodeKey;
use brig_pki::identity::CertInfo;
use brig_swarm::Swarm;
use time::OffsetDateTime;

use super::authority::Authority;
use super::{EnrolError, files};
use crate::config::{Config, Host};
use crate::state::State;

/// Lifetime of the certificate.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most addresses of this host that stand in it.
const MAX_ADDRESSES: usize = 64;
/// Largest table of addresses that is read.
const MAX_TABLE: u64 = 1 << 20;

impl Authority {
    /// The port's certificate and key, as files.
    #[must_use]
    pub fn port_files(dir: &Path) -> (PathBuf, PathBuf) {
        (dir.join("port-cert.pem"), dir.join("port-key.pem"))
    }

    /// Sees to it that the port's certificate is good, on a running daemon.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn own_certificate(&self, state: &State) -> Result<(), EnrolError> {
        // A bridge of containers is nowhere that clients come from.
        let mut inside = BTreeSet::new();
        for info in state.engine.networks().list() {
            let Some(ipam) = info.record.ipam else { continue };
            inside.insert(IpAddr::V4(ipam.gateway));
            inside.extend(ipam.v6.map(|v6| IpAddr::V6(v6.gateway)));
        }
        let names = names(&state.config, &state.host.hostname, &inside);
        self.certify(&state.swarm, &state.host.hostname, names).await
    }

    /// Sees to it that the port's certificate is good: for what this host is called now, of the
    /// authority that counts now, and with more than half of its life left.
    ///
    /// # Errors
    /// [`EnrolError`]. A certificate that is past its half but good goes on without one.
    async fn certify(
        &self,
        swarm: &Swarm,
        hostname: &str,
        wanted: Vec<String>,
    ) -> Result<(), EnrolError> {
        let (cert, key) = Self::port_files(self.dir());
        let authority = self.with(|access| access.ca_certificate.clone());
        let (cert_path, key_path) = (cert.clone(), key.clone());
        let names = wanted.clone();
        let known = blocking(move || Ok(look(&cert_path, &key_path, &authority, &names))).await?;
        if known == Known::Good {
            self.port_is_up_to_date();
            return Ok(());
        }
        let ca = match self.signer(swarm).await {
            Ok(ca) => ca,
            Err(error) if known == Known::Usable => {
                let error = brig_types::error::chain(&error);
                tracing::debug!(%error, "the port keeps its certificate for now");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let hostname = hostname.to_owned();
        blocking(move || make(&ca, &hostname, &wanted, &cert, &key)).await?;
        self.port_is_up_to_date();
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnrolError> + Send + 'static,
) -> Result<T, EnrolError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(EnrolError::Interrupted))
}

fn make(
    ca: &AccessCa,
    hostname: &str,
    names: &[String],
    cert: &Path,
    key: &Path,
) -> Result<(), EnrolError> {
    let (issued, key_pem) = ca
        .issue_server(hostname, names, LIFETIME)
        .map_err(|source| EnrolError::Pki { action: "issue the port's certificate", source })?;
    files::replace(key, key_pem.expose_secret(), 0o600)?;
    files::replace(cert, &issued.chain_pem, 0o644)?;
    tracing::info!(not_after = %issued.not_after, ?names, "the port has a new certificate");
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Good,
    /// It works, but another one would be better.
    Usable,
    Useless,
}

fn look(cert: &Path, key: &Path, authority: &[u8], wanted: &[String]) -> Known {
    let read = |path: &Path| files::read(path).ok().flatten();
    let (Some(cert), Some(key)) = (read(cert), read(key)) else { return Known::Useless };
    let key = brig_types::secret::SecretBytes::new(key);
    let (Ok(info), Ok(key)) = (CertInfo::from_pem(&cert), NodeKey::from_pem(key.expose_secret()))
    else {
        return Known::Useless;
    };
    let now = OffsetDateTime::now_utc();
    let is_ours = CertInfo::of_issuer(&cert, authority).is_ok();
    if !is_ours || !info.is_for(&key) || !info.is_valid_at(now) {
        return Known::Useless;
    }
    let names = names_of(&cert).unwrap_or_default();
    let half = info.not_before + (info.not_after - info.not_before) / 2;
    if now < half && wanted.iter().all(|name| names.contains(name)) {
        Known::Good
    } else {
        Known::Usable
    }
}

/// What this host is called: as configured, by its own name, and by its addresses.
fn names(config: &Config, hostname: &str, inside: &BTreeSet<IpAddr>) -> Vec<String> {
    let mut names: Vec<String> = config.tls_names.clone();
    let mut add = |name: String| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    add("localhost".to_owned());
    if is_dns_name(hostname) {
        add(hostname.to_owned());
    }
    for host in &config.hosts {
        let Host::Tls(address) = host else { continue };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let unspecified = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        if !unspecified && (is_dns_name(host) || host.parse::<IpAddr>().is_ok()) {
            add(host.to_owned());
        }
    }
    for address in ["127.0.0.1", "::1"] {
        add(address.to_owned());
    }
    for address in addresses().difference(inside).take(MAX_ADDRESSES) {
        add(address.to_string());
    }
    names
}

/// Whether a certificate can carry the name.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(fits)
}

fn addresses() -> BTreeSet<IpAddr> {
    let table = |path: &str| {
        let mut text = String::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(MAX_TABLE).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let mut found = table("/proc/net/fib_trie").map(|text| local4(&text)).unwrap_or_default();
    found.extend(table("/proc/net/if_inet6").map(|text| local6(&text)).unwrap_or_default());
    found
}

/// Addresses of this host in the kernel's routing trie.
fn local4(text: &str) -> BTreeSet<IpAddr> {
    let mut last = None;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<IpAddr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|address| !address.is_loopback())
        {
            found.insert(address);
        }
    }
    found
}

/// Addresses of this host that others can use, of the kernel's list.
fn local6(text: &str) -> BTreeSet<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let address = u128::from_str_radix(fields.next()?, 16).ok()?;
            let scope = fields.nth(2)?;
            // Global only: others mean nothing elsewhere.
            (scope == "00").then(|| IpAddr::V6(Ipv6Addr::from(address)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(local4(trie), ["10.0.0.5".parse().unwrap()].into());
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000005 02 40 00 80     eth0\nfe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(local6(table), ["fd00::5".parse().unwrap()].into());
    }

    #[test]
    fn a_good_certificate_stays_and_a_foreign_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = Authority::port_files(dir.path());
        let ca = AccessCa::generate().unwrap();
        let names = ["localhost".to_owned(), "10.0.0.5".to_owned()];
        let known = |names: &[String], ca: &AccessCa| look(&cert, &key, ca.cert_pem(), names);
        assert_eq!(known(&names, &ca), Known::Useless);
        make(&ca, "host", &names, &cert, &key).unwrap();
        assert_eq!(known(&names, &ca), Known::Good);
        assert_eq!(known(&["other".to_owned()], &ca), Known::Usable);
        let other = AccessCa::generate().unwrap();
        assert_eq!(known(&names, &other), Known::Useless);
        let one = std::fs::read(&key).unwrap();
        make(&ca, "host", &names, &cert, &key).unwrap();
        std::fs::write(&key, one).unwrap();
        assert_eq!(known(&names, &ca), Known::Useless, "a crash between the two files");
    }
}
