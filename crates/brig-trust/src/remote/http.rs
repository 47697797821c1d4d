//! Notary's HTTP interface, the client's side.
//!
//! One connection serves all requests of a session; docker's clients open one for each, and spend
//! most of their time on that.

use std::sync::{Mutex, PoisonError};

use brig_pki::web::WebConnector;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;

use super::connection::{Answer, Connection, ServerAddress};
use super::login::{self, Action, Credentials};
use super::{Proxies, Remote, RemoteError, RemoteFile, ServerRole, upload};
use crate::key::Key;
use crate::name::{Gun, Role};

/// Largest error answer, and largest key.
const MAX_SMALL: usize = 256 << 10;
const AGENT: &str = concat!("Brig-Client/", env!("CARGO_PKG_VERSION"), " (linux)");
/// How much of what a server says about a refusal is kept.
const MAX_DETAIL: usize = 1000;

/// A trust server over HTTPS.
#[derive(Debug)]
pub struct HttpRemote {
    connection: Connection,
    tls: WebConnector,
    proxies: Proxies,
    credentials: Credentials,
    action: Action,
    /// What the server accepted last, and for what.
    authorization: Mutex<Option<(Gun, Action, HeaderValue)>>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

impl HttpRemote {
    /// A server. Tokens are asked for `action`, or for more where a request needs more.
    #[must_use]
    pub fn new(
        address: ServerAddress,
        tls: WebConnector,
        credentials: Credentials,
        action: Action,
    ) -> Self {
        Self {
            connection: Connection::new(address, tls.clone()),
            tls,
            proxies: Proxies::default(),
            credentials,
            action,
            authorization: Mutex::default(),
        }
    }

    /// The same, reached through these proxies; its token server too.
    #[must_use]
    pub fn through(self, proxies: Proxies) -> Self {
        let address = self.connection.address().clone();
        let connection = Connection::new(address, self.tls.clone()).through(proxies.clone());
        Self { connection, proxies, ..self }
    }

    async fn send(
        &self,
        gun: &Gun,
        method: &Method,
        path: &str,
        body: Option<(String, Vec<u8>)>,
        action: Action,
        limit: usize,
    ) -> Result<Answer, RemoteError> {
        let path = format!("{}/v2/{gun}/_trust/{path}", self.connection.address().path());
        let (content_type, body) = match body {
            Some((content_type, body)) => {
                let value = HeaderValue::try_from(content_type)
                    .map_err(|_| RemoteError::Request(path.clone()))?;
                (Some(value), Bytes::from(body))
            }
            None => (None, Bytes::new()),
        };
        let request = |authorization: Option<HeaderValue>| -> Result<_, RemoteError> {
            let mut request = Request::new(body.clone());
            *request.method_mut() = method.clone();
            *request.uri_mut() = path.parse().map_err(|_| RemoteError::Request(path.clone()))?;
            let headers = request.headers_mut();
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            if let Some(content_type) = &content_type {
                headers.insert(CONTENT_TYPE, content_type.clone());
            }
            if let Some(authorization) = authorization {
                headers.insert(AUTHORIZATION, authorization);
            }
            Ok(request)
        };
        let known = self.known(gun, action);
        let first = self.connection.exchange(request(known)?, limit.max(MAX_SMALL)).await?;
        if first.status != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        let header = login::answer(
            &first.headers,
            &self.credentials,
            (&self.tls, &self.proxies),
            Some(gun),
            action,
        )
        .await?;
        let second = request(Some(header.clone()))?;
        let second = self.connection.exchange(second, limit.max(MAX_SMALL)).await?;
        if second.status == StatusCode::UNAUTHORIZED {
            return Err(RemoteError::Unauthorized);
        }
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((gun.clone(), action, header));
        Ok(second)
    }

    fn known(&self, gun: &Gun, action: Action) -> Option<HeaderValue> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .as_ref()
            .filter(|(known, granted, _)| known == gun && *granted == action)
            .map(|(_, _, header)| header.clone())
    }

    async fn key(
        &self,
        gun: &Gun,
        role: ServerRole,
        method: Method,
        action: Action,
    ) -> Result<Key, RemoteError> {
        let path = format!("tuf/{role}.key");
        let answer = self.send(gun, &method, &path, None, action, MAX_SMALL).await?;
        match answer.status {
            StatusCode::OK => {
                serde_json::from_slice(&answer.body).map_err(|_| RemoteError::Answer("key"))
            }
            StatusCode::NOT_FOUND => {
                Err(RemoteError::NotFound(self.host().to_owned(), gun.clone()))
            }
            _ => Err(refusal(&answer)),
        }
    }
}

impl Remote for HttpRemote {
    async fn fetch(
        &self,
        gun: &Gun,
        file: &RemoteFile,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let path = format!("tuf/{}", file.name());
        let answer = self.send(gun, &Method::GET, &path, None, self.action, limit).await?;
        match answer.status {
            StatusCode::OK if answer.body.len() > limit => {
                Err(RemoteError::TooLarge { name: file.name(), limit })
            }
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(&answer)),
        }
    }

    async fn publish(&self, gun: &Gun, files: &[(Role, Vec<u8>)]) -> Result<(), RemoteError> {
        let body = upload::encode(files).map_err(RemoteError::Tls)?;
        let answer =
            self.send(gun, &Method::POST, "tuf/", Some(body), Action::Push, MAX_SMALL).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => {
                Err(RemoteError::NotFound(self.host().to_owned(), gun.clone()))
            }
            _ => Err(refusal(&answer)),
        }
    }

    async fn server_key(&self, gun: &Gun, role: ServerRole) -> Result<Key, RemoteError> {
        self.key(gun, role, Method::GET, Action::Push).await
    }

    async fn rotate_server_key(&self, gun: &Gun, role: ServerRole) -> Result<Key, RemoteError> {
        self.key(gun, role, Method::POST, Action::All).await
    }

    async fn delete(&self, gun: &Gun) -> Result<(), RemoteError> {
        let answer = self.send(gun, &Method::DELETE, "tuf/", None, Action::All, MAX_SMALL).await?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(refusal(&answer)) }
    }

    fn host(&self) -> &str {
        self.connection.address().authority()
    }
}

/// What an error answer means, in the real client's words.
fn refusal(answer: &Answer) -> RemoteError {
    match answer.status {
        StatusCode::UNAUTHORIZED => RemoteError::Unauthorized,
        StatusCode::BAD_REQUEST => {
            let errors: Option<Errors> = serde_json::from_slice(&answer.body).ok();
            let detail = errors.and_then(|e| e.errors.into_iter().next()).map(|item| {
                let said = item.detail.pointer("/Error/Msg").and_then(|m| m.as_str());
                match said {
                    Some(said) => format!("{}: {said}", item.code),
                    None => format!("{}: {}", item.code, item.message),
                }
            });
            let plain = |text: String| {
                text.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect::<String>()
            };
            RemoteError::Rejected { detail: detail.map(plain).unwrap_or_default() }
        }
        status => RemoteError::Status(status.as_u16()),
    }
}
