//! The client's end: docker's three files, or a part of them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::identity::CertInfo;
use crate::tls::ClientStream;
use crate::web::{self, ClientIdentity, WebTrust};
use crate::{PkiError, tls};

/// Which server is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineTrust {
    /// One with a certificate of this authority, PEM, and no other.
    Authority(Vec<u8>),
    /// One with a certificate of the system's authorities.
    System,
    /// Any: `--tls` without `--tlsverify`, or a context that skips the check.
    DangerouslyAcceptAnyone,
}

/// Connects to engines.
#[derive(Clone)]
pub struct EngineClient {
    config: Arc<ClientConfig>,
}

impl EngineClient {
    /// A client that shows this certificate, if there is one.
    ///
    /// # Errors
    /// [`PkiError::NoRoots`], [`PkiError::Pem`], [`PkiError::Tls`] when the parts don't fit.
    pub fn new(trust: &EngineTrust, identity: Option<&ClientIdentity>) -> Result<Self, PkiError> {
        let mut config = match trust {
            EngineTrust::Authority(pem) => {
                let builder = tls::client_builder()?.with_root_certificates(tls::root_store(pem)?);
                web::with_identity(builder, identity)?
            }
            EngineTrust::System => {
                web::client_config(&WebTrust::Verified { extra_roots: Vec::new() }, identity)?
            }
            EngineTrust::DangerouslyAcceptAnyone => {
                web::client_config(&WebTrust::DangerouslyAcceptAnyone, identity)?
            }
        };
        config.alpn_protocols = vec![super::ALPN_HTTP1.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    /// A client that wants to enrol: it shows nothing, and believes anybody for now.
    ///
    /// # Errors
    /// [`PkiError::Tls`].
    pub fn for_enrolment() -> Result<Self, PkiError> {
        let mut config = web::client_config(&WebTrust::DangerouslyAcceptAnyone, None)?;
        config.alpn_protocols = vec![crate::enrol::PROTOCOL.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    /// The handshake with a host, a name or an address without port.
    ///
    /// # Errors
    /// Its failure.
    pub async fn connect<IO>(&self, host: &str, io: IO) -> io::Result<EngineConnection<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, PkiError::ServerName(host.to_owned()))
        })?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        Ok(EngineConnection { stream: connector.connect(name, io).await?, closed: false })
    }
}

impl fmt::Debug for EngineClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineClient").finish_non_exhaustive()
    }
}

/// A connection whose shutdown closes only its sending side: `close_notify`, and the socket stays
/// open. Go's clients do the same, and servers take more than that for the end.
#[derive(Debug)]
pub struct EngineConnection<IO> {
    stream: ClientStream<IO>,
    closed: bool,
}

impl<IO> EngineConnection<IO> {
    /// The server's public key, SubjectPublicKeyInfo DER.
    #[must_use]
    pub fn server_key(&self) -> Option<Vec<u8>> {
        let leaf = self.stream.get_ref().1.peer_certificates()?.first()?;
        Some(CertInfo::from_cert_der(leaf).ok()?.public_key_der)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for EngineConnection<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EngineConnection<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.stream.get_mut().1.send_close_notify();
            self.closed = true;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}
