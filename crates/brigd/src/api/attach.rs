//! `POST /containers/{id}/attach`, and the same over a websocket.

use brig_engine::{AttachRequest, AttachedStreams, OutputChunk, StdinWriter, Written};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::server::hijack::{self, Input, Taken};
use crate::server::websocket;
use crate::server::{ApiError, Call, Response};

/// Connects the client with a container's input and output.
///
/// # Errors
/// No such container, or one that can't be attached to.
pub async fn container(call: Call) -> Result<Response, ApiError> {
    let query = &call.query;
    let request = AttachRequest {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys").unwrap_or_default().to_owned(),
    };
    let streams = call.state.engine.attach(call.param("id"), request).await?;
    connect(call, streams.tty, std::future::ready(streams)).await
}

/// `GET /containers/{id}/attach/ws`.
///
/// # Errors
/// No such container, one that can't be attached to, or no websocket handshake.
pub async fn websocket(call: Call) -> Result<Response, ApiError> {
    let query = &call.query;
    // COMPAT: before 1.42 it was always all three.
    let all = !call.speaks(1, 42);
    let request = AttachRequest {
        stdin: all || query.flag("stdin"),
        stdout: all || query.flag("stdout"),
        stderr: all || query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys").unwrap_or_default().to_owned(),
    };
    let streams = call.state.engine.attach(call.param("id"), request).await?;
    let output =
        ReceiverStream::new(streams.output).map(|chunk: OutputChunk| (chunk.stream, chunk.bytes));
    websocket::connect(call, streams.input, output).await
}

/// Connects the client with a process of the engine, which may have to be started first.
pub(super) async fn connect(
    call: Call,
    tty: bool,
    streams: impl Future<Output = AttachedStreams> + Send + 'static,
) -> Result<Response, ApiError> {
    let process = async move {
        let streams = streams.await;
        let output = ReceiverStream::new(streams.output);
        (streams.input, output.map(|chunk: OutputChunk| (chunk.stream, chunk.bytes)))
    };
    hijack::connect(call, tty, process).await
}

impl Input for StdinWriter {
    async fn write(&mut self, bytes: Bytes) -> Taken {
        match Self::write(self, bytes).await {
            Written::Forwarded => Taken::Forwarded,
            Written::Closed => Taken::Closed,
            Written::Detached => Taken::Detached,
        }
    }

    async fn end(self) {
        self.finish().await;
    }
}
