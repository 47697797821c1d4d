//! A client of the registry protocol (OCI distribution spec 1.1, Docker's token authentication).
//!
//! SECURITY: TLS with verified certificates, except on loopback and for hosts that the operator
//! listed; credentials go to the registry and the token server it names over TLS, never along a
//! redirect to another origin; every answer is bounded; `urls` in descriptors are ignored.

pub mod endpoint;

mod answer;
mod search;
mod session;
mod token;
mod transfer;
mod upload;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brig_types::secret::{SecretBytes, SecretString};

pub use endpoint::Endpoint;
pub use search::SearchResult;
pub(crate) use session::{Found, Session};
pub(crate) use transfer::Transfer;
pub(crate) use upload::{BlobFile, Upload};

use crate::error::RegistryError;
use endpoint::{Reach, authority, certificate_dir};

/// Time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest certificate or key file.
const MAX_PEM: u64 = 1 << 20;

/// How registries are reached; the names of the first three are daemon.json's.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// `insecure-registries`: `host`, `host:port` or CIDR that may be reached without verified TLS.
    pub insecure: Vec<String>,
    /// `registry-mirrors`: URLs that are asked before Docker Hub.
    pub mirrors: Vec<String>,
    /// `max-concurrent-downloads`: layers of one pull that are fetched at a time.
    pub concurrent_downloads: usize,
    /// `max-concurrent-uploads`: layers of one push that are sent at a time.
    pub concurrent_uploads: usize,
    /// `max-download-attempts`: for each layer.
    pub download_attempts: u32,
    /// Pause before the second attempt; doubled for each one after it.
    pub retry_pause: Duration,
    /// Directories `<host[:port]>/` with `*.crt` (authorities) and `*.cert`, `*.key` (client), the
    /// first one that has the host counts.
    pub certificates: Vec<PathBuf>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            concurrent_downloads: 3,
            concurrent_uploads: 5,
            download_attempts: 5,
            retry_pause: Duration::from_secs(1),
            certificates: vec![PathBuf::from("/etc/docker/certs.d")],
        }
    }
}

/// Who asks. Cheap to clone; `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// User name, for password or token authentication.
    pub username: String,
    /// Password or personal access token.
    pub password: SecretString,
    /// OAuth refresh token that `docker login` got instead of keeping the password.
    pub identity_token: Option<SecretString>,
    /// Token to send as it is.
    pub registry_token: Option<SecretString>,
}

impl Credentials {
    /// Whether there is anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.username.is_empty()
            && self.identity_token.as_ref().is_none_or(SecretString::is_empty)
            && self.registry_token.as_ref().is_none_or(SecretString::is_empty)
    }
}

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// Requests that are answered soon.
    Ask,
    /// Requests with a body, which are answered when all of it is there: whoever sends one watches
    /// over its progress.
    Send,
}

impl Use {
    const fn of(has_body: bool) -> Self {
        if has_body { Self::Send } else { Self::Ask }
    }
}

/// HTTP clients, one for each host and way to reach it, made when first needed.
#[derive(Debug)]
pub(crate) struct RegistryClient {
    settings: RegistrySettings,
    clients: Mutex<HashMap<(String, Reach, Use), reqwest::Client>>,
    /// Which of two ways worked for a host without verified TLS.
    reaches: Mutex<HashMap<String, Reach>>,
}

impl RegistryClient {
    pub(crate) fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        for mirror in &settings.mirrors {
            endpoint::mirror(mirror, &settings)?;
        }
        Ok(Self { settings, clients: Mutex::default(), reaches: Mutex::default() })
    }

    pub(crate) const fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    /// Where to ask for a repository of a registry, in order.
    pub(crate) async fn endpoints(&self, domain: &str) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = Vec::new();
        if domain == brig_types::reference::DEFAULT_DOMAIN {
            for mirror in &self.settings.mirrors {
                endpoints.push(endpoint::mirror(mirror, &self.settings)?);
            }
        }
        endpoints.push(self.origin(domain).await?);
        Ok(endpoints)
    }

    async fn origin(&self, domain: &str) -> Result<Endpoint, RegistryError> {
        let candidates = endpoint::candidates(domain, &self.settings)?;
        let [only] = candidates.as_slice() else {
            return self.probe(domain, candidates).await;
        };
        Ok(only.clone())
    }

    /// Tries TLS first, then plain HTTP, and remembers.
    async fn probe(
        &self,
        domain: &str,
        candidates: Vec<Endpoint>,
    ) -> Result<Endpoint, RegistryError> {
        let known = {
            let reaches = self.reaches.lock().unwrap_or_else(PoisonError::into_inner);
            reaches.get(domain).copied()
        };
        if let Some(endpoint) = candidates.iter().find(|e| Some(e.reach) == known) {
            return Ok(endpoint.clone());
        }
        let mut last = RegistryError::Invalid("no endpoint".to_owned());
        for endpoint in candidates {
            let url = endpoint.url("")?;
            match self.client(&url, endpoint.reach, Use::Ask).await?.get(url.clone()).send().await {
                Ok(_) => {
                    let mut reaches = self.reaches.lock().unwrap_or_else(PoisonError::into_inner);
                    reaches.insert(domain.to_owned(), endpoint.reach);
                    return Ok(endpoint);
                }
                Err(source) => {
                    last = RegistryError::Request {
                        method: "Get",
                        url: url.to_string(),
                        source: source.without_url(),
                    };
                }
            }
        }
        Err(last)
    }

    /// Forgets how a registry was reached: it did not answer, and what answers there next may
    /// speak something else.
    pub(crate) fn forget(&self, domain: &str) {
        self.reaches.lock().unwrap_or_else(PoisonError::into_inner).remove(domain);
    }

    /// The client for a URL's host.
    pub(crate) async fn client(
        &self,
        url: &reqwest::Url,
        reach: Reach,
        purpose: Use,
    ) -> Result<reqwest::Client, RegistryError> {
        let key = (authority(url), reach, purpose);
        {
            let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(client) = clients.get(&key) {
                return Ok(client.clone());
            }
        }
        let (dirs, host) = (self.settings.certificates.clone(), key.0.clone());
        let loopback = endpoint::is_loopback(url.host_str().unwrap_or_default());
        let client =
            tokio::task::spawn_blocking(move || build(&dirs, &host, loopback, reach, purpose))
                .await
                .map_err(|error| RegistryError::Setup(error.to_string()))??;
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(key, client.clone());
        Ok(client)
    }

    /// How a redirect's or token server's URL may be reached, if at all.
    pub(crate) fn reach_of(&self, url: &reqwest::Url) -> Option<Reach> {
        let insecure = endpoint::is_insecure(url, &self.settings);
        match url.scheme() {
            "https" if insecure => Some(Reach::UnverifiedTls),
            "https" => Some(Reach::Tls),
            "http" if insecure => Some(Reach::Plain),
            _ => None,
        }
    }
}

/// Makes a client for one host. Blocks: it reads certificates.
fn build(
    certificates: &[PathBuf],
    host: &str,
    loopback: bool,
    reach: Reach,
    purpose: Use,
) -> Result<reqwest::Client, RegistryError> {
    use brig_pki::web::{ClientIdentity, WebTrust, client_config};
    let setup =
        |error: &dyn std::error::Error| RegistryError::Setup(brig_types::error::chain(error));
    let files = HostFiles::read(certificates, host).map_err(|error| setup(&error))?;
    let trust = match reach {
        Reach::Tls => WebTrust::Verified { extra_roots: files.roots },
        Reach::UnverifiedTls | Reach::Plain => WebTrust::DangerouslyAcceptAnyone,
    };
    let identity = files.client.map(|(chain_pem, key_pem)| ClientIdentity { chain_pem, key_pem });
    let tls = client_config(&trust, identity.as_ref()).map_err(|error| setup(&error))?;
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("brig/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed by the session, which knows what may go along.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    if purpose == Use::Ask {
        builder = builder.read_timeout(READ_TIMEOUT);
    }
    if loopback {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| setup(&error))
}

/// What a certificate directory has for a host.
#[derive(Default)]
struct HostFiles {
    roots: Vec<Vec<u8>>,
    client: Option<(Vec<u8>, SecretBytes)>,
}

impl HostFiles {
    fn read(dirs: &[PathBuf], host: &str) -> Result<Self, crate::error::ImageError> {
        use crate::store::files;
        let mut found = Self::default();
        let Some(dir) = dirs.iter().filter_map(|dir| certificate_dir(dir, host)).next() else {
            return Ok(found);
        };
        let mut names = files::names(&dir)?;
        names.sort();
        for name in names {
            let path = dir.join(&name);
            if name.ends_with(".crt") {
                found.roots.extend(files::read(&path, MAX_PEM)?);
            } else if let Some(stem) = name.strip_suffix(".cert")
                && found.client.is_none()
                && let Some(chain) = files::read(&path, MAX_PEM)?
                && let Some(key) = files::read(&dir.join(format!("{stem}.key")), MAX_PEM)?
            {
                found.client = Some((chain, SecretBytes::new(key)));
            }
        }
        Ok(found)
    }
}
