//! Files in and out of containers: `/containers/{id}/archive`, `export`, `changes`.

use brig_api::archive::{HEADER, PathStat};
use brig_engine::{ArchiveWrite, ByteStream};
use futures_util::StreamExt as _;
use http::{HeaderValue, StatusCode};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::SyncIoBridge;

use crate::server::{ApiError, Call, Response, body};

const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

fn path(call: &Call) -> Result<&str, ApiError> {
    call.query
        .non_empty("path")
        .ok_or_else(|| ApiError::invalid("bad parameter: 'path' cannot be empty"))
}

fn with_stat(mut response: Response, stat: &PathStat) -> Result<Response, ApiError> {
    let value = HeaderValue::try_from(stat.to_header())
        .map_err(|error| ApiError::system(format!("cannot encode the answer: {error}")))?;
    response.headers_mut().insert(HEADER, value);
    Ok(response)
}

fn stream(call: &Call, content_type: HeaderValue, bytes: ByteStream) -> Response {
    let bytes = ReceiverStream::new(bytes).map(|piece| piece.map_err(Into::into));
    body::stream(Some(content_type), bytes, call.state.stop.clone())
}

/// `HEAD /containers/{id}/archive`.
///
/// # Errors
/// No such container or path.
pub async fn stat(call: Call) -> Result<Response, ApiError> {
    let stat = call.state.engine.archive_stat(call.param("id"), path(&call)?).await?;
    with_stat(body::empty(StatusCode::OK), &stat)
}

/// `GET /containers/{id}/archive`.
///
/// # Errors
/// No such container or path, secrets.
pub async fn read(call: Call) -> Result<Response, ApiError> {
    let (stat, bytes) = call.state.engine.archive_read(call.param("id"), path(&call)?).await?;
    with_stat(stream(&call, TAR, bytes), &stat)
}

/// `PUT /containers/{id}/archive`.
///
/// # Errors
/// No such container or directory, read-only places, a bad archive.
pub async fn write(mut call: Call) -> Result<Response, ApiError> {
    let path = path(&call)?.to_owned();
    let options = ArchiveWrite {
        keep_kinds: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let archive = SyncIoBridge::new(call.reader());
    call.state.engine.archive_write(call.param("id"), &path, options, archive).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `GET /containers/{id}/export`.
///
/// # Errors
/// No such container.
pub async fn export(call: Call) -> Result<Response, ApiError> {
    let bytes = call.state.engine.export(call.param("id")).await?;
    Ok(stream(&call, BYTES, bytes))
}

/// `GET /containers/{id}/changes`.
///
/// # Errors
/// No such container.
pub async fn changes(call: Call) -> Result<Response, ApiError> {
    let changes = call.state.engine.changes(call.param("id")).await?;
    // COMPAT: docker has `null` for no changes.
    if changes.is_empty() { body::ok(&serde_json::Value::Null) } else { body::ok(&changes) }
}
