//! Where a registry is and how it may be talked to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use brig_types::reference::DEFAULT_DOMAIN;
use reqwest::Url;

use super::RegistrySettings;
use crate::error::RegistryError;

/// The host behind `docker.io`.
const HUB: &str = "registry-1.docker.io";

/// Docker Hub's index.
const INDEX: &str = "index.docker.io";

/// How much a connection proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// TLS with a verified certificate.
    Tls,
    /// TLS with any certificate.
    UnverifiedTls,
    /// No TLS.
    Plain,
}

/// One server that speaks the registry protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Ends with `/v2/`.
    base: Url,
    /// How it is reached.
    pub reach: Reach,
    /// It only caches what another one has, so it gets no credentials.
    pub mirror: bool,
}

impl Endpoint {
    fn new(base: &str, reach: Reach, mirror: bool) -> Result<Self, RegistryError> {
        let invalid = || RegistryError::Invalid(format!("{base:?} is not a registry's URL"));
        let mut base = Url::parse(base).map_err(|_| invalid())?;
        if base.host_str().is_none() || !base.username().is_empty() || base.password().is_some() {
            return Err(invalid());
        }
        base.set_query(None);
        base.set_fragment(None);
        let path = format!("{}/v2/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        Ok(Self { base, reach, mirror })
    }

    /// A URL below `/v2/`.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] when `path` would leave the registry.
    pub fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let url = self
            .base
            .join(path)
            .map_err(|_| RegistryError::Invalid(format!("{path:?} is not a path")))?;
        if same_origin(&url, &self.base) && url.path().starts_with(self.base.path()) {
            Ok(url)
        } else {
            Err(RegistryError::Invalid(format!("{path:?} leads out of the registry")))
        }
    }
}

impl Endpoint {
    /// Whether a URL is of this server: what it asks for may be sent there.
    pub(super) fn is_origin_of(&self, url: &Url) -> bool {
        same_origin(url, &self.base)
    }

    /// Whether a URL is of this registry.
    pub(super) fn is_below(&self, url: &Url) -> bool {
        self.is_origin_of(url) && url.path().starts_with(self.base.path())
    }
}

/// A configured mirror of Docker Hub.
pub(super) fn mirror(url: &str, settings: &RegistrySettings) -> Result<Endpoint, RegistryError> {
    let parsed = Url::parse(url)
        .map_err(|_| RegistryError::Invalid(format!("registry mirror {url:?} is not a URL")))?;
    let reach = match (parsed.scheme(), is_insecure(&parsed, settings)) {
        ("https", false) => Reach::Tls,
        ("https", true) => Reach::UnverifiedTls,
        ("http", true) => Reach::Plain,
        _ => {
            return Err(RegistryError::Invalid(format!(
                "registry mirror {url:?} must use https, or be listed in insecure-registries"
            )));
        }
    };
    Endpoint::new(url, reach, true)
}

/// Where an index of images is searched, best way first.
pub(super) fn index_candidates(
    domain: &str,
    settings: &RegistrySettings,
) -> Result<Vec<(Url, Reach)>, RegistryError> {
    let host = if domain == DEFAULT_DOMAIN { INDEX } else { domain };
    let url = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/v1/search"))
            .ok()
            .filter(|url| url.host_str().is_some() && url.username().is_empty())
            .ok_or_else(|| RegistryError::Invalid(format!("{host:?} is not a registry's name")))
    };
    let secure = url("https")?;
    if is_insecure(&secure, settings) || is_listed(domain, settings) {
        Ok(vec![(secure, Reach::UnverifiedTls), (url("http")?, Reach::Plain)])
    } else {
        Ok(vec![(secure, Reach::Tls)])
    }
}

/// The ways to reach a registry, best first: one for verified TLS, two for insecure hosts.
pub(super) fn candidates(
    domain: &str,
    settings: &RegistrySettings,
) -> Result<Vec<Endpoint>, RegistryError> {
    let host = if domain == DEFAULT_DOMAIN { HUB } else { domain };
    let secure = Endpoint::new(&format!("https://{host}"), Reach::Tls, false)?;
    if is_insecure(&secure.base, settings) || is_listed(domain, settings) {
        Ok(vec![
            Endpoint { reach: Reach::UnverifiedTls, ..secure },
            Endpoint::new(&format!("http://{host}"), Reach::Plain, false)?,
        ])
    } else {
        Ok(vec![secure])
    }
}

/// `host` or `host:port` as in references and certificate directories.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// 127.0.0.0/8, ::1 and `localhost`.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|ip| ip.is_loopback())
}

/// Whether TLS need not be verified, or used at all.
pub(super) fn is_insecure(url: &Url, settings: &RegistrySettings) -> bool {
    let host = url.host_str().unwrap_or_default();
    is_loopback(host)
        || is_listed(host, settings)
        || is_listed(&authority(url), settings)
        || address(host).is_some_and(|ip| {
            settings.insecure.iter().any(|entry| in_network(entry, ip).unwrap_or(false))
        })
}

fn is_listed(host: &str, settings: &RegistrySettings) -> bool {
    settings.insecure.iter().any(|entry| entry == host)
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn in_network(cidr: &str, ip: IpAddr) -> Option<bool> {
    let (network, length) = cidr.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match (network.parse().ok()?, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(length)?).unwrap_or(0);
            Some(u32::from(network) & mask == u32::from(ip) & mask)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(length)?).unwrap_or(0);
            Some(u128::from(network) & mask == u128::from(ip) & mask)
        }
        _ => Some(false),
    }
}

/// The directory with a host's certificates, if there is one.
pub(super) fn certificate_dir(root: &Path, host: &str) -> Option<PathBuf> {
    let plain = !host.is_empty()
        && !host.starts_with('.')
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    let dir = root.join(host);
    (plain && dir.is_dir()).then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(domain: &str, insecure: &[&str]) -> Vec<Reach> {
        let insecure = insecure.iter().map(|s| (*s).to_owned()).collect();
        let settings = RegistrySettings { insecure, ..RegistrySettings::default() };
        candidates(domain, &settings).unwrap().into_iter().map(|e| e.reach).collect()
    }

    #[test]
    fn plain_http_is_for_loopback_and_listed_hosts_only() {
        let both = [Reach::UnverifiedTls, Reach::Plain];
        for domain in ["localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000"] {
            assert_eq!(reaches(domain, &[]), both, "{domain}");
        }
        for domain in ["docker.io", "example.com", "10.0.0.1:5000", "localhost.example.com"] {
            assert_eq!(reaches(domain, &[]), [Reach::Tls], "{domain}");
        }
        assert_eq!(reaches("r.example:5000", &["r.example:5000"]), both);
        assert_eq!(reaches("r.example:5001", &["r.example:5000"]), [Reach::Tls]);
        assert_eq!(reaches("10.1.2.3:5000", &["10.0.0.0/8"]), both);
        assert_eq!(reaches("11.1.2.3:5000", &["10.0.0.0/8"]), [Reach::Tls]);
        assert_eq!(reaches("11.1.2.3", &["0.0.0.0/0"]), both);
    }

    #[test]
    fn mirrors_need_tls_and_urls_stay_inside() {
        let settings = RegistrySettings::default();
        assert!(mirror("http://mirror.example", &settings).is_err());
        assert!(mirror("https://user:pw@mirror.example", &settings).is_err());
        let endpoint = mirror("https://mirror.example/hub", &settings).unwrap();
        assert_eq!(
            endpoint.url("library/a/manifests/1").unwrap().as_str(),
            "https://mirror.example/hub/v2/library/a/manifests/1"
        );
        assert!(endpoint.url("../../x").is_err());
        assert!(endpoint.url("//evil.example/x").is_err());
        assert!(endpoint.url("https://evil.example/x").is_err());
    }
}
