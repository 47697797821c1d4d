//! An HTTPS server that asks nobody for a certificate: what is served is public, or whoever asks
//! proves in each request who they are.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};

use super::files::Contents;
use super::server::identity;
use super::{ALPN_HTTP1, EngineFiles, EngineTlsError, Stamps};
use crate::PkiError;
use crate::hash::{SHA256_LEN, Sha256, sha256};
use crate::tls::{ServerStream, provider};

/// The server's TLS, made of the operator's files and replaced with them while connections run.
///
/// Sessions are resumed by tickets: no client shows a certificate here that a resumed session
/// could outlive, and clients that connect for every request save most of the handshake.
#[derive(Debug)]
pub struct PublicServer {
    files: EngineFiles,
    tickets: Arc<dyn ProducesTickets>,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    digest: [u8; SHA256_LEN],
    not_after: OffsetDateTime,
}

impl PublicServer {
    /// Reads and checks the files; an authority of clients in `files` is not looked at.
    ///
    /// # Errors
    /// [`EngineTlsError`], naming the file and the fix.
    pub fn load(files: EngineFiles) -> Result<Self, EngineTlsError> {
        let files = EngineFiles { ca: None, revoked: None, ..files };
        let tickets = Ticketer::new().map_err(|error| EngineTlsError::Tls(PkiError::Tls(error)))?;
        let loaded = Loaded::build(&files, &tickets)?;
        Ok(Self { files, tickets, current: ArcSwap::from_pointee(loaded) })
    }

    /// Reads the files again; says whether anything in them is new.
    ///
    /// # Errors
    /// As [`PublicServer::load`]; then everything stays as it was.
    pub fn reload(&self) -> Result<bool, EngineTlsError> {
        let new = Loaded::build(&self.files, &self.tickets)?;
        if new.digest == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(new));
        Ok(true)
    }

    /// The files as the file system knows them now; when this differs, [`PublicServer::reload`].
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        self.files.stamps()
    }

    /// The end of the server's certificate.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.current.load().not_after
    }

    /// The handshake.
    ///
    /// # Errors
    /// Its failure.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<ServerStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.current.load().config);
        tokio_rustls::TlsAcceptor::from(config).accept(io).await
    }
}

impl Loaded {
    fn build(
        files: &EngineFiles,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, EngineTlsError> {
        let contents = files.read()?;
        let (identity, info) = identity(files, &contents)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| EngineTlsError::Tls(PkiError::Tls(error)))?
            .with_no_client_auth()
            .with_cert_resolver(identity);
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        config.ticketer = Arc::clone(tickets);
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), digest: digest(&contents), not_after: info.not_after })
    }
}

fn digest(contents: &Contents) -> [u8; SHA256_LEN] {
    let mut all = Sha256::new();
    for part in [&contents.cert, contents.key.expose_secret()] {
        all.update(&sha256(part));
    }
    all.finish()
}
