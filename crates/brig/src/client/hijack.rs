//! Connections that stop being HTTP: attach and exec.

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf};

use super::{Call, Client, Connection};
use crate::error::{Error, Result, message};

/// The raw stream of an attach or exec.
#[derive(Debug)]
pub(crate) struct Hijacked {
    /// What came with the answer's head.
    pub(crate) first: Bytes,
    /// Output.
    pub(crate) reader: ReadHalf<Connection>,
    /// Input. Shutting it down closes this direction, which the daemon takes as the end of stdin.
    pub(crate) writer: WriteHalf<Connection>,
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
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(source) => {
                let error = Error::Http { what: "attaching", source };
                return Err(self.endpoint.explain(error).await);
            }
        };
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
            .downcast::<TokioIo<Connection>>()
            .map_err(|_| message("the attached connection is not the one that was opened"))?;
        let (reader, writer) = tokio::io::split(parts.io.into_inner());
        Ok(Hijacked { first: parts.read_buf, reader, writer })
    }
}
