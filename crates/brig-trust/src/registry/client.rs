//! Requests to one registry: how it is reached, credentials, redirects.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use brig_pki::hash::sha256;
use brig_pki::web::{ClientIdentity, WebConnector, WebTrust};
use brig_types::digest::Digest;
use brig_types::reference::DEFAULT_DOMAIN;
use brig_types::secret::SecretBytes;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;

use super::{MAX_SMALL, RegistryError, RegistrySettings};
use crate::files;
use crate::remote::connection::{Answer, Connection, ServerAddress};
use crate::remote::{Action, Credentials, Proxies, RemoteError, login};

/// The host behind `docker.io`.
const HUB: &str = "registry-1.docker.io";
const AGENT: &str = concat!("brig/", env!("CARGO_PKG_VERSION"));
/// Largest certificate or key file, and how many are looked at.
const MAX_PEM: usize = 1 << 20;
const MAX_FILES: usize = 100;
const MAX_REDIRECTS: usize = 5;
/// How much of what a registry says about a refusal is kept.
const MAX_DETAIL: usize = 300;

/// Headers and body.
pub(super) type Content = (HeaderMap, Bytes);

#[derive(Debug)]
pub(super) struct Client {
    connection: Connection,
    /// For token servers, and for where blobs are when they are not here.
    tls: WebConnector,
    is_plain: bool,
    credentials: Credentials,
    /// What the registry accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    /// Tries TLS, and plain HTTP where that may be.
    pub(super) async fn open(
        domain: &str,
        credentials: Credentials,
        settings: &RegistrySettings,
    ) -> Result<Self, RegistryError> {
        let authority = if domain == DEFAULT_DOMAIN { HUB } else { domain };
        let name = |_| RegistryError::Name(domain.to_owned());
        let address = ServerAddress::parse(&format!("https://{authority}")).map_err(name)?;
        let is_insecure = settings.is_insecure(domain, address.host());
        let tls = connector(settings, domain, is_insecure)?;
        let client = Self {
            connection: Connection::new(address, tls.clone()),
            tls,
            is_plain: false,
            credentials,
            authorization: Mutex::default(),
        };
        if !is_insecure {
            return Ok(client);
        }
        let Err(failed) = client.probe().await else {
            return Ok(client);
        };
        let address = ServerAddress::parse_plain(&format!("http://{authority}")).map_err(name)?;
        let plain = Self { connection: Connection::plain(address), is_plain: true, ..client };
        // Where nothing answers either way, the first reason is the one that helps.
        match plain.probe().await {
            Ok(()) => Ok(plain),
            Err(_) => Err(failed),
        }
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        self.exchange(
            &self.connection,
            request(&Method::GET, "/v2/", &Content::default())?,
            MAX_SMALL,
        )
        .await
        .map(drop)
    }

    fn host(&self) -> &str {
        self.connection.address().authority()
    }

    async fn exchange(
        &self,
        connection: &Connection,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, RegistryError> {
        // An error's text may be longer than what was asked for.
        connection.exchange(request, limit.max(MAX_SMALL)).await.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: RemoteError) -> RegistryError {
        let host = self.host().to_owned();
        match error {
            RemoteError::TooLarge { name, limit } => RegistryError::TooLarge { name, limit },
            RemoteError::Unauthorized => RegistryError::Unauthorized { host },
            RemoteError::Credentials => RegistryError::Credentials { host },
            RemoteError::Realm(realm) => RegistryError::Realm(realm),
            RemoteError::Answer(what) => RegistryError::Answer(what),
            source => RegistryError::Unreachable { host, source },
        }
    }

    /// A request to the registry, with credentials where it asks for them.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        content: Content,
        limit: usize,
    ) -> Result<Answer, RegistryError> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut first = request(method, path, &content)?;
        if let Some(known) = known {
            first.headers_mut().insert(AUTHORIZATION, known);
        }
        let answer = self.exchange(&self.connection, first, limit).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // The scope of a token is the one that the registry names.
        let header = login::answer(
            &answer.headers,
            &self.credentials,
            (&self.tls, &Proxies::default()),
            None,
            Action::Pull,
        )
        .await
        .map_err(|e| self.failed(e))?;
        let mut second = request(method, path, &content)?;
        second.headers_mut().insert(AUTHORIZATION, header.clone());
        let answer = self.exchange(&self.connection, second, limit).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(RegistryError::Unauthorized { host: self.host().to_owned() });
        }
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(answer)
    }

    /// What is at a path, of at most `limit` bytes; `None` if nothing is.
    pub(super) async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        limit: usize,
    ) -> Result<Option<Answer>, RegistryError> {
        let mut answer = self.send(&Method::GET, path, (headers, Bytes::new()), limit).await?;
        for _ in 0..MAX_REDIRECTS {
            if !answer.status.is_redirection() {
                break;
            }
            answer = self.follow(&answer, limit).await?;
        }
        match answer.status {
            StatusCode::OK if answer.body.len() > limit => {
                Err(RegistryError::TooLarge { name: path.to_owned(), limit })
            }
            StatusCode::OK => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused("GET", path, &answer)),
        }
    }

    /// Blobs may lie elsewhere. Nobody is told there who asks.
    async fn follow(&self, answer: &Answer, limit: usize) -> Result<Answer, RegistryError> {
        let location = answer.headers.get(LOCATION).and_then(|l| l.to_str().ok());
        let location = location.ok_or(RegistryError::Answer("redirect"))?;
        if let Ok(path) = self.own(location) {
            return self.send(&Method::GET, &path, Content::default(), limit).await;
        }
        let refused = || RegistryError::Redirect(location.chars().take(MAX_DETAIL).collect());
        let (connection, address, query) = match ServerAddress::parse_uri(location) {
            Ok((address, query)) => {
                (Connection::new(address.clone(), self.tls.clone()), address, query)
            }
            Err(_) => return Err(refused()),
        };
        let path = if query.is_empty() {
            address.path().to_owned()
        } else {
            format!("{}?{query}", address.path())
        };
        let request = request(&Method::GET, &path, &Content::default())?;
        self.exchange(&connection, request, limit).await
    }

    /// The path of a URL of this registry's own; anybody else's is refused.
    pub(super) fn own(&self, location: &str) -> Result<String, RegistryError> {
        let refused = || RegistryError::Redirect(location.chars().take(MAX_DETAIL).collect());
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(location.to_owned());
        }
        let scheme = if self.is_plain { "http://" } else { "https://" };
        let rest = location.strip_prefix(scheme).ok_or_else(refused)?;
        let path = rest.strip_prefix(self.host()).ok_or_else(refused)?;
        if path.starts_with('/') { Ok(path.to_owned()) } else { Err(refused()) }
    }

    pub(super) fn refused(
        &self,
        method: &'static str,
        path: &str,
        answer: &Answer,
    ) -> RegistryError {
        let host = self.host().to_owned();
        if answer.status == StatusCode::FORBIDDEN {
            return RegistryError::Unauthorized { host };
        }
        let said: Option<Errors> = serde_json::from_slice(&answer.body).ok();
        let detail = said.and_then(|said| said.errors.into_iter().next()).map(|item| {
            let text = format!("{}: {}", item.code.to_lowercase(), item.message);
            text.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect()
        });
        RegistryError::Status {
            host,
            method,
            path: path.to_owned(),
            status: answer.status.as_u16(),
            detail: detail.unwrap_or_default(),
        }
    }
}

/// That these are the bytes with this digest.
pub(super) fn check(wanted: &Digest, body: &[u8]) -> Result<(), RegistryError> {
    let found = Digest::from_sha256(sha256(body));
    if found == *wanted {
        return Ok(());
    }
    Err(RegistryError::Digest { found, wanted: wanted.clone() })
}

fn request(
    method: &Method,
    path: &str,
    (headers, body): &Content,
) -> Result<Request<Bytes>, RegistryError> {
    let mut request = Request::new(body.clone());
    *request.method_mut() = method.clone();
    *request.uri_mut() = path.parse().map_err(|_| RegistryError::Answer("address"))?;
    *request.headers_mut() = headers.clone();
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    Ok(request)
}

/// Whom the registry is believed to be. Blocks for as long as it takes to read a few small files.
fn connector(
    settings: &RegistrySettings,
    domain: &str,
    is_insecure: bool,
) -> Result<WebConnector, RegistryError> {
    let is_plain_name = !domain.starts_with('.')
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    let folder = settings
        .certificates
        .iter()
        .map(|folder| folder.join(domain))
        .find(|folder| is_plain_name && folder.is_dir());
    let mut extra_roots = Vec::new();
    let mut identity = None;
    let entries = folder.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    for entry in entries.filter_map(Result::ok).take(MAX_FILES) {
        let path = entry.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => extra_roots.extend(read(&path)?),
            Some("cert") if identity.is_none() => {
                if let (Some(chain_pem), Some(key)) =
                    (read(&path)?, read(&path.with_extension("key"))?)
                {
                    identity = Some(ClientIdentity { chain_pem, key_pem: SecretBytes::new(key) });
                }
            }
            _ => {}
        }
    }
    let trust = if is_insecure {
        WebTrust::DangerouslyAcceptAnyone
    } else {
        WebTrust::Verified { extra_roots }
    };
    WebConnector::new(&trust, identity.as_ref()).map_err(|source| RegistryError::Setup {
        folder: folder.unwrap_or_default().display().to_string(),
        source,
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    files::read(path, MAX_PEM)
        .map_err(|source| RegistryError::File { path: path.display().to_string(), source })
}
