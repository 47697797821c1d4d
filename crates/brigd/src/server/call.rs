//! One request, as its handler sees it.

use std::time::Duration;

use brig_api::version::ApiVersion;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{HeaderMap, header};
use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::error::ApiError;
use super::peer::PeerWatch;
use super::query::Query;
use super::route::{BodyRule, Params, Route};
use super::unread::RequestBody;
use crate::access::Authorized;
use crate::state::AppState;

/// Longest time between the parts of a JSON body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time for a whole JSON body, however steadily it trickles.
const WHOLE_BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// The body of a request.
#[derive(Default)]
pub(super) enum Payload {
    /// As it comes in.
    Incoming(RequestBody),
    /// Read already, for the access rules: the handler gets the bytes that were judged.
    Read(Bytes),
    /// Taken.
    #[default]
    Gone,
}

impl Payload {
    /// Reads the whole body.
    ///
    /// # Errors
    /// 413 when it is longer than `limit`; 400 when it can't be read.
    pub(super) async fn read(self, limit: usize) -> Result<Bytes, ApiError> {
        match self {
            Self::Incoming(body) => read(body, limit).await,
            Self::Read(bytes) => Ok(bytes),
            Self::Gone => Ok(Bytes::new()),
        }
    }
}

/// A request that was allowed.
pub struct Call {
    /// The daemon.
    pub state: AppState,
    /// Who may do what here.
    pub authorized: Authorized,
    /// The row of the table.
    pub route: &'static Route,
    /// The version that the client speaks.
    pub version: ApiVersion,
    /// What the path says.
    pub params: Params,
    /// What the query says.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    pub(super) body: Payload,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) peer: PeerWatch,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The headers may hold credentials.
        f.debug_struct("Call").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Call {
    /// The value of a segment of the path.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.params.text(name)
    }

    /// Whether the client speaks this version or a newer one.
    #[must_use]
    pub fn speaks(&self, major: u16, minor: u16) -> bool {
        self.version >= ApiVersion::new(major, minor)
    }

    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The JSON body; `None` when the body is empty or `null`.
    ///
    /// # Errors
    /// 400 for another media type or broken JSON, 413 when it is too long.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ApiError> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let media_type = self.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let bare = media_type.split(';').next().unwrap_or_default().trim();
        if bare.eq_ignore_ascii_case("application/json") {
            serde_json::from_slice(&bytes)
                .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))
        } else if bytes.as_ref() == b"null" || bytes.iter().all(u8::is_ascii_whitespace) {
            Ok(None)
        } else {
            Err(ApiError::invalid(format!(
                "Content-Type specified ({media_type}) must be 'application/json'"
            )))
        }
    }

    /// The JSON body, which must be there.
    ///
    /// # Errors
    /// As [`Call::json`], and 400 when there is none.
    pub async fn required_json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        self.json()
            .await?
            .ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))
    }

    /// Reads the rest of the body away, as must be before the connection is upgraded.
    ///
    /// # Errors
    /// As [`Call::json`].
    pub async fn drain_body(&mut self) -> Result<(), ApiError> {
        self.bytes().await.map(drop)
    }

    /// The body as it comes, for routes that stream it.
    #[must_use]
    pub fn reader(&mut self) -> Box<dyn AsyncRead + Send + Unpin> {
        match std::mem::take(&mut self.body) {
            Payload::Incoming(body) => {
                let frames =
                    BodyDataStream::new(body).map(|item| item.map_err(std::io::Error::other));
                Box::new(StreamReader::new(frames))
            }
            Payload::Read(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Payload::Gone => Box::new(tokio::io::empty()),
        }
    }

    async fn bytes(&mut self) -> Result<Bytes, ApiError> {
        tokio::time::timeout(WHOLE_BODY_TIMEOUT, self.collect())
            .await
            .unwrap_or_else(|_| Err(ApiError::invalid("the request body did not arrive in time")))
    }

    async fn collect(&mut self) -> Result<Bytes, ApiError> {
        let BodyRule::Json(limit) = self.route.body else {
            return Err(ApiError::system("this route streams its body"));
        };
        std::mem::take(&mut self.body).read(limit).await
    }
}

async fn read(mut body: RequestBody, limit: usize) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    loop {
        let next = tokio::time::timeout(BODY_TIMEOUT, body.frame())
            .await
            .map_err(|_| ApiError::invalid("the request body did not arrive in time"))?;
        let Some(frame) = next else { return Ok(bytes.freeze()) };
        let frame =
            frame.map_err(|error| ApiError::invalid(format!("cannot read the body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(ApiError::too_large(limit));
            }
            bytes.extend_from_slice(&data);
        }
    }
}
