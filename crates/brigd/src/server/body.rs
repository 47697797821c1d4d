//! Answers: JSON, empty, and streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;

/// What ends a streamed body early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// An answer.
pub type Response = http::Response<Body>;

/// The media type of JSON. The docker CLI shows errors as raw text when anything is added to it.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of a terminal's bytes.
pub const RAW_STREAM: HeaderValue = HeaderValue::from_static("application/vnd.docker.raw-stream");
/// The media type of output in frames that name their stream.
pub const MULTIPLEXED_STREAM: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.multiplexed-stream");

fn never(impossible: Infallible) -> BodyError {
    match impossible {}
}

/// A body of these bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// A body that keeps something until it has been sent or dropped.
pub(super) fn held(body: Body, what: impl Send + 'static) -> Body {
    Held { body, _what: what }.boxed_unsync()
}

struct Held<T> {
    body: Body,
    _what: T,
}

impl<T> Unpin for Held<T> {}

impl<T> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = http::Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A body of JSON with a newline at its end, as docker writes it.
///
/// # Errors
/// When the value can't be written as JSON; the shapes of the API all can.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, ApiError> {
    let mut text = serde_json::to_vec(value)
        .map_err(|error| ApiError::system(format!("cannot encode the answer: {error}")))?;
    text.push(b'\n');
    let mut response = http::Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    Ok(response)
}

/// `200 OK` with JSON.
///
/// # Errors
/// As [`json`].
pub fn ok(value: &impl Serialize) -> Result<Response, ApiError> {
    json(StatusCode::OK, value)
}

/// Answers `200 OK` at once and sends each item as soon as it is there. The stream ends early
/// when the daemon stops.
#[must_use]
pub fn stream<S>(content_type: Option<HeaderValue>, items: S, stop: CancellationToken) -> Response
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
{
    let frames = items.take_until(stop.cancelled_owned()).map(|item| item.map(Frame::data));
    let mut response = http::Response::new(StreamBody::new(frames).boxed_unsync());
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}
