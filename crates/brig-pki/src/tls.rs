//! TLS between nodes: the cluster's roots decide, names are roles, identities can be replaced
//! while connections run.
//!
//! Version 1.2 is the floor, 1.3 the rule, with a post-quantum key exchange preferred. Session
//! resumption is off: a resumed session would outlive the certificate it was made with.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use brig_types::secret::SecretBytes;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use self::clients::{ClientVerifier, Verdict};
use crate::admission::{IssuedRegister, Peer, Refusal, Root};
use crate::csr::NodeKey;
use crate::identity::{CertInfo, NodeIdentity};
use crate::{PkiError, x509};

mod clients;

pub use rustls::ClientConfig;
/// The client's end of an encrypted connection.
pub use tokio_rustls::client::TlsStream as ClientStream;
/// The server's end of an encrypted connection.
pub use tokio_rustls::server::TlsStream as ServerStream;

/// HTTP/2, the one protocol between nodes.
const ALPN_H2: &[u8] = b"h2";

/// The one crypto provider of the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Makes this crate's provider the process's default, for libraries that build their own
/// configurations. May be called any number of times.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = provider().as_ref().clone().install_default();
}

/// A node's roots, chain and key, as complete TLS configurations.
///
/// Replacing swaps everything at once; connections that exist keep what they were made with.
pub struct TlsCredentials {
    current: ArcSwap<Configs>,
    roots_changed: watch::Sender<()>,
}

struct Configs {
    roots: Arc<RootCertStore>,
    server: Arc<SingleCertAndKey>,
    client: Arc<ClientConfig>,
    identity: NodeIdentity,
    certificate: CertInfo,
    roots_pem: Vec<u8>,
    chain_pem: Vec<u8>,
}

impl TlsCredentials {
    /// Builds both sides' configurations.
    ///
    /// The own chain is not checked against the roots or the clock: an expired node must still be
    /// able to say so, and its peers check anyway.
    ///
    /// # Errors
    /// [`PkiError::NoRoots`], [`PkiError::Pem`], [`PkiError::Certificate`], [`PkiError::Tls`] when
    /// chain and key do not fit.
    pub fn new(roots_pem: &[u8], chain_pem: &[u8], key: &NodeKey) -> Result<Self, PkiError> {
        let configs = Configs::build(roots_pem, chain_pem, key)?;
        Ok(Self {
            current: ArcSwap::from_pointee(configs),
            roots_changed: watch::Sender::default(),
        })
    }

    /// Replaces roots, chain and key for all connections to come.
    ///
    /// # Errors
    /// As [`TlsCredentials::new`]; then the old ones stay.
    pub fn replace(
        &self,
        roots_pem: &[u8],
        chain_pem: &[u8],
        key: &NodeKey,
    ) -> Result<(), PkiError> {
        let configs = Configs::build(roots_pem, chain_pem, key)?;
        let old = self.current.swap(Arc::new(configs));
        if old.roots_pem != roots_pem {
            self.roots_changed.send_replace(());
        }
        Ok(())
    }

    /// Changes when the trusted roots do.
    #[must_use]
    pub fn roots_changed(&self) -> watch::Receiver<()> {
        self.roots_changed.subscribe()
    }

    /// Whether a client's chain leads to a root that is trusted now.
    #[must_use]
    pub fn root_of(&self, peer: &Peer) -> Root {
        peer.root(&self.current.load().roots.roots, OffsetDateTime::now_utc())
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.current.load().identity.clone()
    }

    /// Facts of the node's certificate.
    #[must_use]
    pub fn certificate(&self) -> CertInfo {
        self.current.load().certificate.clone()
    }

    /// The trusted roots, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> Vec<u8> {
        self.current.load().roots_pem.clone()
    }

    /// The node's chain, PEM.
    #[must_use]
    pub fn chain_pem(&self) -> Vec<u8> {
        self.current.load().chain_pem.clone()
    }

    /// The server's side of a handshake. A client may come without certificate; one that it shows
    /// must be believed, see [`crate::admission`]. HTTP/2 is offered but not demanded.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub async fn accept<IO>(
        &self,
        io: IO,
        register: Arc<dyn IssuedRegister>,
    ) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current.load_full();
        // One verifier for each connection, so that its verdict can be asked for.
        let clients = ClientVerifier::new(Arc::clone(&current.roots), register);
        let verdict = clients.verdict();
        let config = current.server_config(Arc::new(clients)).map_err(AcceptError::Config)?;
        let handshake = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(io).await;
        match (handshake, verdict.take()) {
            (Ok(stream), Some(Verdict::Believed(peer))) => {
                Ok(Accepted { stream, peer: Some(*peer) })
            }
            (Ok(stream), None) => Ok(Accepted { stream, peer: None }),
            (_, Some(Verdict::Refused { subject, refusal })) => {
                Err(AcceptError::Refused { subject, refusal })
            }
            (Err(error), _) => Err(AcceptError::Handshake(error)),
        }
    }

    /// The client's side of a handshake with the node certificate, to whoever proves to be
    /// `server_name`: a role (`swarm-manager`, `swarm-ca`) or a node id.
    ///
    /// # Errors
    /// The handshake's failure.
    pub async fn connect<IO>(&self, server_name: &str, io: IO) -> io::Result<ClientStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.current.load().client);
        Connector { config, name: name(server_name).map_err(io::Error::other)? }.connect(io).await
    }
}

impl fmt::Debug for TlsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCredentials")
            .field("identity", &self.current.load().identity)
            .finish_non_exhaustive()
    }
}

impl Configs {
    fn build(roots_pem: &[u8], chain_pem: &[u8], key: &NodeKey) -> Result<Self, PkiError> {
        let roots = Arc::new(root_store(roots_pem)?);
        let chain = x509::certificates(chain_pem)?;
        let identity = NodeIdentity::from_chain_pem(chain_pem)?;
        let server = CertifiedKey::from_der(chain.clone(), key_der(key), &provider())
            .map_err(PkiError::Tls)?;
        let mut client = client_builder()?
            .with_webpki_verifier(server_verifier(Arc::clone(&roots))?)
            .with_client_auth_cert(chain, key_der(key))
            .map_err(PkiError::Tls)?;
        finish_client(&mut client);
        Ok(Self {
            roots,
            server: Arc::new(SingleCertAndKey::from(server)),
            client: Arc::new(client),
            identity,
            certificate: CertInfo::from_pem(chain_pem)?,
            roots_pem: roots_pem.to_vec(),
            chain_pem: chain_pem.to_vec(),
        })
    }

    fn server_config(&self, clients: Arc<ClientVerifier>) -> Result<ServerConfig, rustls::Error> {
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::<SingleCertAndKey>::clone(&self.server));
        server.alpn_protocols = vec![ALPN_H2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(server)
    }
}

/// A connection after the server's side of the handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The encrypted connection.
    pub stream: ServerStream<IO>,
    /// The client and where its chain leads; `None` when it showed no certificate.
    pub peer: Option<(Peer, Root)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client showed a certificate that is not believed.
    #[error("the client's certificate ({subject}) is refused: {refusal}")]
    Refused {
        /// Whom the certificate names, if it can be read. Nobody proved to be that.
        subject: String,
        /// Why.
        refusal: Refusal,
    },
    /// The handshake broke off.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The own side cannot be set up.
    #[error("cannot build the TLS configuration")]
    Config(#[source] rustls::Error),
}

/// Makes client connections to one server name.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// Trusts `roots_pem` and shows no certificate: a node that joins.
    ///
    /// # Errors
    /// [`PkiError::NoRoots`], [`PkiError::ServerName`], [`PkiError::Tls`].
    pub fn anonymous(roots_pem: &[u8], server_name: &str) -> Result<Self, PkiError> {
        let roots = Arc::new(root_store(roots_pem)?);
        let mut config =
            client_builder()?.with_webpki_verifier(server_verifier(roots)?).with_no_client_auth();
        finish_client(&mut config);
        Ok(Self { config: Arc::new(config), name: name(server_name)? })
    }

    /// Trusts `roots_pem` and shows this certificate: a client of the replicated store.
    ///
    /// # Errors
    /// [`PkiError::NoRoots`], [`PkiError::Pem`], [`PkiError::ServerName`], [`PkiError::Tls`].
    pub fn mutual(
        roots_pem: &[u8],
        chain_pem: &[u8],
        key_pem: &SecretBytes,
        server_name: &str,
    ) -> Result<Self, PkiError> {
        let roots = Arc::new(root_store(roots_pem)?);
        let key = PrivateKeyDer::from_pem_slice(key_pem.expose_secret())
            .map_err(|_| PkiError::Pem { expected: "private key" })?;
        let mut config = client_builder()?
            .with_webpki_verifier(server_verifier(roots)?)
            .with_client_auth_cert(x509::certificates(chain_pem)?, key)
            .map_err(PkiError::Tls)?;
        finish_client(&mut config);
        Ok(Self { config: Arc::new(config), name: name(server_name)? })
    }

    /// Trusts whoever answers. Only for fetching the root bundle, whose content the join token
    /// pins by digest. The server still has to prove that it holds its certificate's key.
    ///
    /// # Errors
    /// [`PkiError::ServerName`], [`PkiError::Tls`].
    pub fn insecure_for_pinned_content(host: &str) -> Result<Self, PkiError> {
        let mut config = client_builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
            .with_no_client_auth();
        finish_client(&mut config);
        Ok(Self { config: Arc::new(config), name: name(host)? })
    }

    /// The handshake.
    ///
    /// # Errors
    /// Its failure.
    pub async fn connect<IO>(&self, io: IO) -> io::Result<ClientStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.name.clone(), io).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The server of a client connection.
///
/// # Errors
/// [`PkiError::Certificate`] when its certificate names no node.
pub fn server_identity<IO>(stream: &ClientStream<IO>) -> Result<Option<NodeIdentity>, PkiError> {
    let (_, connection) = stream.get_ref();
    connection
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|leaf| NodeIdentity::from_cert_der(leaf))
        .transpose()
}

/// Facts of the certificate that the server of a client connection showed; `None` when it cannot
/// be read. With [`Connector::insecure_for_pinned_content`] nothing of it was verified.
#[must_use]
pub fn server_certificate<IO>(stream: &ClientStream<IO>) -> Option<CertInfo> {
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first)?;
    CertInfo::from_cert_der(leaf).ok()
}

/// Whose certificate a handshake found outside its validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// The peer's, by our clock.
    Theirs,
    /// Ours, by the peer's clock.
    Ours,
}

/// Whether a connection failed because a certificate is not valid yet or any more; looks through
/// whatever libraries wrapped the failure in.
#[must_use]
pub fn validity_failure(error: &(dyn std::error::Error + 'static)) -> Option<Validity> {
    use rustls::{AlertDescription, CertificateError};
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => return Some(Validity::Theirs),
            Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
                return Some(Validity::Ours);
            }
            _ => {}
        }
        // What an I/O error was made of is not its source, the source of that is.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

pub(crate) fn client_builder()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, PkiError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)
}

fn finish_client(config: &mut ClientConfig) {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
}

fn server_verifier(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, PkiError> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|_| PkiError::NoRoots)
}

pub(crate) fn root_store(roots_pem: &[u8]) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for root in x509::certificates(roots_pem)? {
        store.add(root).map_err(PkiError::Tls)?;
    }
    Ok(store)
}

fn key_der(key: &NodeKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.key_der().to_vec()))
}

fn name(text: &str) -> Result<ServerName<'static>, PkiError> {
    ServerName::try_from(text.to_owned()).map_err(|_| PkiError::ServerName(text.to_owned()))
}

/// The part of a verifier that asks whether the peer holds its certificate's key: by the
/// algorithms of the provider that `$provider` gives, in every verifier the same.
macro_rules! signatures_by {
    ($self:ident, $provider:expr) => {
        fn verify_tls12_signature(
            &$self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &$provider.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &$self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &$provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&$self) -> Vec<rustls::SignatureScheme> {
            $provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(crate) use signatures_by;

/// Accepts every certificate, but only from whoever holds its key.
#[derive(Debug)]
pub(crate) struct AnyServer(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by!(self, self.0);
}

mod https;

#[cfg(test)]
mod tests;
