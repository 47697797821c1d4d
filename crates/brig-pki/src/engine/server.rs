//! The daemon's end: who shows a certificate of the configured authority is let in, by name.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};

use super::files::Contents;
use super::{ALPN_HTTP1, EngineFiles, EngineTlsError, Revocations, Stamps};
use crate::hash::{SHA256_LEN, Sha256, sha256};
use crate::identity::CertInfo;
use crate::tls::{ServerStream, provider};
use crate::{PkiError, x509};

/// Longest common name that is kept, in characters; X.509 allows 64.
const MAX_NAME: usize = 256;

/// The daemon's TLS, made of the operator's files and replaced with them while connections run.
#[derive(Debug)]
pub struct EngineServer {
    files: EngineFiles,
    current: ArcSwap<Loaded>,
    generation: AtomicU64,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    clients: Arc<Clients>,
    digest: [u8; SHA256_LEN],
    generation: u64,
    not_after: OffsetDateTime,
}

/// A client that proved to hold a certificate of the configured authority.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The subject's common name; empty when it has none.
    pub common_name: String,
    /// SHA-256 of the certificate's DER, hexadecimal.
    pub fingerprint: String,
    not_after: OffsetDateTime,
    chain: Vec<CertificateDer<'static>>,
    /// The generation of files that this certificate was last held against.
    checked: AtomicU64,
}

impl EngineServer {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`EngineTlsError`], naming the file and the fix.
    pub fn load(files: EngineFiles) -> Result<Self, EngineTlsError> {
        let current = ArcSwap::from_pointee(Loaded::build(&files, 0)?);
        Ok(Self { files, current, generation: AtomicU64::new(0) })
    }

    /// Reads the files again; says whether anything in them is new.
    ///
    /// Connections that exist go on, except those whose certificate does not count any more: see
    /// [`EngineServer::still_trusts`].
    ///
    /// # Errors
    /// As [`EngineServer::load`]; then everything stays as it was.
    pub fn reload(&self) -> Result<bool, EngineTlsError> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let new = Loaded::build(&self.files, generation)?;
        if new.digest == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(new));
        Ok(true)
    }

    /// The files as the file system knows them now; when this differs, [`EngineServer::reload`].
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        self.files.stamps()
    }

    /// The end of the daemon's own certificate.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.current.load().not_after
    }

    /// How many certificates are revoked.
    #[must_use]
    pub fn revoked(&self) -> usize {
        self.current.load().clients.revoked.len()
    }

    /// The handshake.
    ///
    /// # Errors
    /// Its failure: above all a client without certificate, or with one that does not count.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<(ServerStream<IO>, ClientCertificate)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = self.current.load_full();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&loaded.config));
        let stream = acceptor.accept(io).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let client = ClientCertificate::read(chain, loaded.generation).map_err(io::Error::other)?;
        Ok((stream, client))
    }

    /// Whether a client that was let in would be let in now.
    #[must_use]
    pub fn still_trusts(&self, client: &ClientCertificate) -> bool {
        if client.not_after < OffsetDateTime::now_utc() {
            return false;
        }
        let current = self.current.load();
        if client.checked.load(Ordering::Relaxed) == current.generation {
            return true;
        }
        let Some((leaf, intermediates)) = client.chain.split_first() else { return false };
        let trusted =
            current.clients.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok();
        if trusted {
            client.checked.store(current.generation, Ordering::Relaxed);
        }
        trusted
    }
}

impl ClientCertificate {
    fn read(chain: &[CertificateDer<'_>], generation: u64) -> Result<Self, PkiError> {
        let leaf = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
        let certificate = x509::parse(leaf)?;
        let name = certificate.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        Ok(Self {
            common_name: name.chars().take(MAX_NAME).collect(),
            fingerprint: hex::encode(sha256(leaf)),
            not_after: certificate.validity().not_after.to_datetime(),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            checked: AtomicU64::new(generation),
        })
    }
}

impl Loaded {
    fn build(files: &EngineFiles, generation: u64) -> Result<Self, EngineTlsError> {
        let contents = files.read()?;
        let digest = digest(&contents);
        let roots = authorities(files, &contents)?;
        let (identity, not_after) = identity(files, &contents)?;
        let revoked = match (&contents.revoked, &files.revoked) {
            (Some(content), Some(path)) => Revocations::parse(content)
                .map_err(|source| EngineTlsError::Revocations { path: path.clone(), source })?,
            _ => Revocations::default(),
        };
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|_| EngineTlsError::Tls(PkiError::NoRoots))?;
        let clients = Arc::new(Clients { inner, revoked });
        let tls = |error| EngineTlsError::Tls(PkiError::Tls(error));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(Arc::<Clients>::clone(&clients))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        // A resumed session would not show its certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), clients, digest, generation, not_after })
    }
}

fn digest(contents: &Contents) -> [u8; SHA256_LEN] {
    let mut all = Sha256::new();
    let revoked = contents.revoked.as_deref().unwrap_or_default();
    for part in [&contents.ca, &contents.cert, contents.key.expose_secret(), revoked] {
        all.update(&sha256(part));
    }
    all.finish()
}

/// The clients' authorities: at least one that is valid.
fn authorities(files: &EngineFiles, contents: &Contents) -> Result<RootCertStore, EngineTlsError> {
    const WHAT: &str = "CA certificate";
    let unusable = |source| EngineTlsError::Unusable { what: WHAT, path: files.ca.clone(), source };
    let mut roots = RootCertStore::empty();
    let mut outdated = None;
    for der in x509::certificates(&contents.ca).map_err(unusable)? {
        let info = CertInfo::from_cert_der(&der).map_err(unusable)?;
        // An expired authority among others is a rotation that was not tidied up.
        match validity(WHAT, &files.ca, &info) {
            Ok(()) => roots.add(der).map_err(|error| unusable(PkiError::Tls(error)))?,
            Err(error) => outdated = Some(error),
        }
    }
    match outdated {
        Some(error) if roots.is_empty() => Err(error),
        _ => Ok(roots),
    }
}

/// The daemon's own chain and key.
fn identity(
    files: &EngineFiles,
    contents: &Contents,
) -> Result<(CertifiedKey, OffsetDateTime), EngineTlsError> {
    const WHAT: &str = "server certificate";
    let unusable =
        |source| EngineTlsError::Unusable { what: WHAT, path: files.cert.clone(), source };
    let chain = x509::certificates(&contents.cert).map_err(unusable)?;
    let info = CertInfo::from_pem(&contents.cert).map_err(unusable)?;
    validity(WHAT, &files.cert, &info)?;
    let unusable =
        |source| EngineTlsError::Unusable { what: "private key", path: files.key.clone(), source };
    let key = PrivateKeyDer::from_pem_slice(contents.key.expose_secret())
        .map_err(|_| unusable(PkiError::Pem { expected: "private key without passphrase" }))?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(identity) => Ok((identity, info.not_after)),
        Err(Error::InconsistentKeys(_)) => {
            Err(EngineTlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() })
        }
        Err(error) => Err(unusable(PkiError::Tls(error))),
    }
}

fn validity(
    what: &'static str,
    path: &std::path::Path,
    info: &CertInfo,
) -> Result<(), EngineTlsError> {
    let now = OffsetDateTime::now_utc();
    let text = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let (path, subject) = (path.to_owned(), info.subject.clone());
    if now > info.not_after {
        return Err(EngineTlsError::Expired { what, path, subject, since: text(info.not_after) });
    }
    if now < info.not_before {
        let from = text(info.not_before);
        return Err(EngineTlsError::NotYetValid { what, path, subject, from });
    }
    Ok(())
}

/// Checks clients: the chain by the library, the revocations by us.
#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    revoked: Revocations,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now)?;
        if self.revoked.contains(leaf) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
