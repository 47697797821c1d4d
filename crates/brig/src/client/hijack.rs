//! Connections that stop being HTTP: attach and exec.

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Call, Client};
use crate::error::{Error, Result, message};

/// The raw stream of an attach or exec.
#[derive(Debug)]
pub(crate) struct Hijacked {
    /// What came with the answer's head.
    pub(crate) first: Bytes,
    /// Output.
    pub(crate) reader: OwnedReadHalf,
    /// Input. Dropping it closes this direction, which the daemon takes as the end of stdin.
    pub(crate) writer: OwnedWriteHalf,
}

impl Client {
    /// Sends a call that asks for `Upgrade: tcp` and gives the connection out.
    pub(crate) async fn hijack(&self, call: Call) -> Result<Hijacked> {
        let version = self.version().await?;
        let path = call.path().to_owned();
        let mut request = self.request(call, Some(version))?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));

        let io = self.endpoint.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, super::Body>(TokioIo::new(io))
                .await
                .map_err(|source| Error::Http { what: "opening a connection", source })?;
        self.drivers.borrow_mut().spawn(async move {
            // What breaks a connection is reported to whoever waits for an answer on it.
            let _ = connection.with_upgrades().await;
        });
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| Error::Http { what: "attaching", source })?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let answer = super::Answer { client: self, path, response, sender };
            let status = answer.status();
            if status.is_success() {
                return Err(message(format!(
                    "unable to upgrade to tcp, received {}",
                    status.as_u16()
                )));
            }
            return Err(answer.into_error().await);
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|source| Error::Http { what: "attaching", source })?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| message("the attached connection is not the socket that was opened"))?;
        let (reader, writer) = parts.io.into_inner().into_split();
        Ok(Hijacked { first: parts.read_buf, reader, writer })
    }
}
