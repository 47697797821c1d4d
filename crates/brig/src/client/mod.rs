//! The Engine API's client: one endpoint, a negotiated version, plain calls, streams and hijacked
//! connections.

mod address;
mod call;
mod connect;
mod connection;
mod hijack;
mod ssh;

pub(crate) mod registry_auth;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use brig_api::error::ErrorResponse;
use brig_api::version::{self, ApiVersion};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

pub(crate) use address::Address;
pub(crate) use call::{Body, Call};
pub(crate) use connect::Endpoint;
pub(crate) use connection::Connection;
pub(crate) use hijack::Hijacked;

use crate::error::{Error, Result};

/// The longest answer that is held in memory, in bytes.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// The longest error answer that is read, in bytes.
const MAX_ERROR: usize = 1024 * 1024;

/// A client of one daemon. It is used from one thread.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    /// Headers that the user's configuration adds to each request.
    extra_headers: HeaderMap,
    version: Cell<Option<ApiVersion>>,
    /// Whether it was told that answers may be out of date.
    stale_told: Cell<bool>,
    /// A connection that has answered and may be used again.
    idle: RefCell<Option<SendRequest<Body>>>,
    /// The tasks that drive connections; they end with the client.
    drivers: RefCell<JoinSet<()>>,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    client: &'a Client,
    path: String,
    response: Response<Incoming>,
    sender: SendRequest<Body>,
}

impl Client {
    /// A client; nothing is opened yet.
    pub(crate) fn new(endpoint: Endpoint, extra_headers: &BTreeMap<String, String>) -> Self {
        let extra_headers = extra_headers
            .iter()
            .filter_map(|(name, value)| {
                let name = http::HeaderName::try_from(name).ok()?;
                Some((name, http::HeaderValue::try_from(value).ok()?))
            })
            .collect();
        Self {
            endpoint,
            extra_headers,
            version: Cell::new(None),
            stale_told: Cell::new(false),
            idle: RefCell::new(None),
            drivers: RefCell::new(JoinSet::new()),
        }
    }

    /// Where the daemon is.
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The version that both sides speak, asked for once.
    pub(crate) async fn version(&self) -> Result<ApiVersion> {
        if let Some(version) = self.version.get() {
            return Ok(version);
        }
        let version = self.negotiate().await?;
        self.version.set(Some(version));
        Ok(version)
    }

    /// Docker's rule: the user's choice, else the lower of both sides' newest, else 1.24.
    async fn negotiate(&self) -> Result<ApiVersion> {
        if let Some(text) = std::env::var_os("DOCKER_API_VERSION")
            && let Some(text) = text.to_str().filter(|text| !text.is_empty())
        {
            return ApiVersion::parse(text.trim_start_matches('v'))
                .map_err(|e| crate::error::message(e.to_string()));
        }
        let request = self.request(Call::head("/_ping"), None)?;
        let mut answer = self.exchange("/_ping".to_owned(), request).await?;
        if !matches!(answer.response.status(), StatusCode::OK | StatusCode::INTERNAL_SERVER_ERROR) {
            let request = self.request(Call::get("/_ping"), None)?;
            answer = self.exchange("/_ping".to_owned(), request).await?;
        }
        let theirs = answer
            .header("Api-Version")
            .and_then(|text| ApiVersion::parse(text).ok())
            .unwrap_or(version::MIN);
        answer.bytes(MAX_ERROR).await?;
        Ok(theirs.min(version::MAX))
    }

    /// Sends a call; error answers become errors.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer<'_>> {
        let version = self.version().await?;
        let path = call.path().to_owned();
        let request = self.request(call, Some(version))?;
        let is_of_swarm = is_of_swarm(&path);
        let answer = self.exchange(path, request).await?;
        if is_of_swarm
            && answer.header("Brig-Stale") == Some("true")
            && !self.stale_told.replace(true)
        {
            crate::output::warn(
                "WARNING: this manager has lost the other managers: what it shows of the swarm may be out of date, and changes are refused",
            );
        }
        if answer.response.status().is_client_error() || answer.response.status().is_server_error()
        {
            return Err(answer.into_error().await);
        }
        Ok(answer)
    }

    /// Sends a call and reads its JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        self.send(call).await?.json().await
    }

    /// Sends a call and reads its answer as it is.
    pub(crate) async fn bytes(&self, call: Call) -> Result<Bytes> {
        self.send(call).await?.bytes(MAX_ANSWER).await
    }

    /// Sends a call and drops its answer.
    pub(crate) async fn none(&self, call: Call) -> Result<()> {
        self.send(call).await?.bytes(MAX_ANSWER).await.map(drop)
    }

    fn request(&self, call: Call, version: Option<ApiVersion>) -> Result<Request<Body>> {
        let mut request = call.into_request(version)?;
        let headers = request.headers_mut();
        headers.extend(self.extra_headers.clone());
        headers.insert(http::header::HOST, self.endpoint.host_header());
        headers.insert(
            http::header::USER_AGENT,
            http::HeaderValue::from_static(concat!(
                "Brig-Client/",
                env!("CARGO_PKG_VERSION"),
                " (linux)"
            )),
        );
        Ok(request)
    }

    async fn exchange(&self, path: String, request: Request<Body>) -> Result<Answer<'_>> {
        let idle = self.idle.take();
        let mut sender = match idle {
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                // The daemon has closed it meanwhile.
                Err(_) => self.open().await?,
            },
            None => self.open().await?,
        };
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(source) => {
                let error = Error::Http { what: "sending a request", source };
                return Err(self.endpoint.explain(error).await);
            }
        };
        Ok(Answer { client: self, path, response, sender })
    }

    async fn open(&self) -> Result<SendRequest<Body>> {
        let io = self.endpoint.connect().await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(io))
                .await
                .map_err(|source| Error::Http { what: "opening a connection", source })?;
        self.drivers.borrow_mut().spawn(async move {
            // What breaks a connection is reported to whoever waits for an answer on it.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// Whether what is asked for is the swarm's, not the node's.
fn is_of_swarm(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    matches!(first, Some("nodes" | "services" | "tasks" | "secrets" | "configs" | "swarm"))
}

impl Answer<'_> {
    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body, `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => {
                    return Err(Error::Http { what: "reading an answer", source });
                }
            }
        }
    }

    /// The whole body; the connection can be used again.
    pub(crate) async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(crate::error::message(format!(
                    "the daemon's answer to {} is too long",
                    self.path
                )));
            }
            body.extend_from_slice(&chunk);
        }
        self.client.idle.replace(Some(self.sender));
        Ok(body.into())
    }

    /// The body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let path = self.path.clone();
        let body = self.bytes(MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Answer { path, source })
    }

    /// An error answer as an error: docker's JSON, or the text as it is.
    async fn into_error(self) -> Error {
        let status = self.response.status();
        let is_json =
            self.header("Content-Type").is_some_and(|t| t.starts_with("application/json"));
        let body = match self.bytes(MAX_ERROR).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        let message = if is_json {
            serde_json::from_slice::<ErrorResponse>(&body).map(|e| e.message).unwrap_or(text)
        } else {
            text
        };
        let message = if message.is_empty() {
            format!("API returned a {status} but provided no error-message")
        } else {
            message
        };
        Error::Api { status: status.as_u16(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_swarms_is_known() {
        for path in ["/nodes", "/nodes/self", "/services/x/logs", "/swarm", "/swarm/unlockkey"] {
            assert!(is_of_swarm(path), "{path}");
        }
        for path in ["/containers/json", "/info", "/_ping", "/nodesx", ""] {
            assert!(!is_of_swarm(path), "{path}");
        }
    }
}
