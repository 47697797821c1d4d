//! TLS to servers of the public web: registries and the like.
//!
//! Trust comes from the system's certificate bundle and from authorities that are configured for
//! one host.

use std::path::Path;
use std::sync::Arc;

use brig_types::secret::SecretBytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};

use self::itself::OrItself;
use crate::{PkiError, files, tls, x509};

mod itself;

/// Where distributions keep the bundle; the first one that exists counts.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
/// Names another bundle, as for OpenSSL and Go.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";
/// Upper bound for a bundle.
const MAX_BUNDLE: u64 = 16 << 20;

/// Whose certificate is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebTrust {
    /// The system's authorities and these, PEM.
    Verified {
        /// More authorities, each a PEM text.
        extra_roots: Vec<Vec<u8>>,
    },
    /// Anybody's. For hosts that the operator listed as insecure.
    DangerouslyAcceptAnyone,
}

/// A client certificate for hosts that ask for one.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The chain, PEM.
    pub chain_pem: Vec<u8>,
    /// The key, PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_pem: SecretBytes,
}

/// A client configuration for one host. Protocols (ALPN) are left to the HTTP client.
///
/// Reads the system's bundle: keep the result.
///
/// # Errors
/// [`PkiError::NoRoots`] when nobody would be trusted, [`PkiError::Pem`],
/// [`PkiError::PrivateKey`], [`PkiError::Tls`].
pub fn client_config(
    trust: &WebTrust,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, PkiError> {
    let builder = match trust {
        WebTrust::DangerouslyAcceptAnyone => tls::client_builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(tls::AnyServer(tls::provider()))),
        WebTrust::Verified { extra_roots } => {
            let mut roots = system_roots()?;
            let mut configured = Vec::new();
            for pem_text in extra_roots {
                for root in x509::certificates(pem_text)? {
                    roots.add(root.clone()).map_err(PkiError::Tls)?;
                    configured.push(root);
                }
            }
            if roots.is_empty() {
                return Err(PkiError::NoRoots);
            }
            if configured.is_empty() {
                tls::client_builder()?.with_root_certificates(roots)
            } else {
                let verifier = Arc::new(OrItself::new(roots, configured)?);
                tls::client_builder()?.dangerous().with_custom_certificate_verifier(verifier)
            }
        }
    };
    with_identity(builder, identity)
}

/// Connects to servers of the public web, one configuration for all of them.
#[derive(Clone)]
pub struct WebConnector(Arc<ClientConfig>);

impl WebConnector {
    /// A connector for HTTP/1.1. Reads the system's bundle: keep the result.
    ///
    /// # Errors
    /// As [`client_config`].
    pub fn new(trust: &WebTrust, identity: Option<&ClientIdentity>) -> Result<Self, PkiError> {
        let mut config = client_config(trust, identity)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// The handshake with a host, a name or an address without port.
    ///
    /// # Errors
    /// Its failure.
    pub async fn connect<IO>(&self, host: &str, io: IO) -> std::io::Result<tls::ClientStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let error = PkiError::ServerName(host.to_owned());
            std::io::Error::new(std::io::ErrorKind::InvalidInput, error)
        })?;
        tokio_rustls::TlsConnector::from(Arc::clone(&self.0)).connect(name, io).await
    }
}

impl std::fmt::Debug for WebConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebConnector")
    }
}

/// Completes a configuration with a client certificate, if there is one.
pub(crate) fn with_identity(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, PkiError> {
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose_secret())
        .map_err(|_| PkiError::Pem { expected: "private key" })?;
    builder
        .with_client_auth_cert(x509::certificates(&identity.chain_pem)?, key)
        .map_err(PkiError::Tls)
}

fn system_roots() -> Result<RootCertStore, PkiError> {
    let named = std::env::var_os(BUNDLE_VARIABLE);
    let candidates = named.iter().map(Path::new).chain(BUNDLES.iter().map(Path::new));
    let mut store = RootCertStore::empty();
    for path in candidates {
        let Some(text) = files::read(path, MAX_BUNDLE)? else {
            continue;
        };
        let blocks = pem::parse_many(text).unwrap_or_default();
        let certificates = blocks
            .into_iter()
            .filter(|block| block.tag() == "CERTIFICATE")
            .map(|block| block.into_contents().into());
        // Bundles carry roots that the verifier cannot use; the others still count.
        let (added, ignored) = store.add_parsable_certificates(certificates);
        tracing::debug!(path = %path.display(), added, ignored, "read the system's authorities");
        break;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::admission::NothingIssued;
    use crate::ca::{DEFAULT_NODE_EXPIRY, RootCa};
    use crate::csr::NodeKey;
    use crate::identity::NodeIdentity;
    use crate::tls::TlsCredentials;
    use crate::token::NodeRole;

    fn server(root: &RootCa) -> (TlsCredentials, Vec<u8>, NodeKey) {
        let key = NodeKey::generate().unwrap();
        let who = NodeIdentity {
            cluster: "c".into(),
            role: NodeRole::Manager,
            node: brig_types::id::NodeId::generate(),
        };
        let chain = root.issue(&key.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
        (TlsCredentials::new(root.cert_pem(), &chain, &key).unwrap(), chain, key)
    }

    async fn reaches(server: &TlsCredentials, config: ClientConfig) -> (bool, bool) {
        let (near, far) = duplex(1 << 16);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = "swarm-manager".try_into().unwrap();
        let served = server.accept(far, Arc::new(NothingIssued));
        let (served, asked) = tokio::join!(served, connector.connect(name, near));
        let known = served.is_ok_and(|accepted| accepted.peer.is_some());
        (asked.is_ok(), known)
    }

    #[tokio::test]
    async fn trust_is_explicit() {
        let root = RootCa::generate().unwrap();
        let (server, chain, key) = server(&root);
        let extra = WebTrust::Verified { extra_roots: vec![root.cert_pem().to_vec()] };
        let stranger = RootCa::generate().unwrap();
        let other = WebTrust::Verified { extra_roots: vec![stranger.cert_pem().to_vec()] };
        let identity = ClientIdentity { chain_pem: chain, key_pem: key.key_pem() };
        let config = |trust, identity| client_config(trust, identity).unwrap();
        assert_eq!(reaches(&server, config(&extra, None)).await, (true, false));
        assert_eq!(reaches(&server, config(&extra, Some(&identity))).await, (true, true));
        assert!(!reaches(&server, config(&other, None)).await.0);
        let anyone = config(&WebTrust::DangerouslyAcceptAnyone, None);
        assert!(reaches(&server, anyone).await.0);
    }
}
