//! The daemon's end: who shows a certificate of the configured authority is let in, by name.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};

use super::access::{AccessClients, AccessTrust, Known};
use super::files::Contents;
use super::{ALPN_HTTP1, EngineFiles, EngineTlsError, Revocations, Stamps};
use crate::enrol::PROTOCOL;
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
    /// Certificate of the access authority, PEM.
    authority: ArcSwapOption<Vec<u8>>,
    known: Arc<ArcSwap<Known>>,
    current: ArcSwap<Loaded>,
    generation: AtomicU64,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// For newcomers, who have no certificate yet.
    enrolment: Arc<ServerConfig>,
    public_key: Vec<u8>,
    /// The access authority's certificate.
    authorities: Vec<CertificateDer<'static>>,
    clients: Arc<Clients>,
    digest: [u8; SHA256_LEN],
    not_after: OffsetDateTime,
}

/// A client that proved to hold a certificate of the configured authority.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The subject's common name; empty when it has none.
    pub common_name: String,
    /// SHA-256 of the certificate's DER, hexadecimal.
    pub fingerprint: String,
    /// Whether the access authority signed it, rather than an operator's.
    pub of_access_authority: bool,
    not_after: OffsetDateTime,
    chain: Vec<CertificateDer<'static>>,
    /// The generation of files and register that this certificate was last held against.
    checked: AtomicU64,
}

/// Who came.
#[derive(Debug)]
pub enum Accepted<IO> {
    /// Somebody with a certificate that counts.
    Client(ServerStream<IO>, ClientCertificate),
    /// Somebody who wants one: nobody yet. With the server's public key, which both ends compare.
    Newcomer(ServerStream<IO>, Vec<u8>),
}

impl EngineServer {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`EngineTlsError`], naming the file and the fix.
    pub fn load(files: EngineFiles, access: Option<AccessTrust>) -> Result<Self, EngineTlsError> {
        let (authority, known) = match access {
            Some(access) => (Some(Arc::new(access.ca_pem)), access.known),
            None => (None, Known::new()),
        };
        let known = Arc::new(ArcSwap::from_pointee(known));
        let loaded = Loaded::build(&files, authority.as_ref().map(|pem| pem.as_slice()), &known)?;
        Ok(Self {
            files,
            authority: ArcSwapOption::new(authority),
            known,
            current: ArcSwap::from_pointee(loaded),
            generation: AtomicU64::new(0),
        })
    }

    /// Takes over what the access authority's register says now, as [`EngineServer::reload`].
    ///
    /// # Errors
    /// As [`EngineServer::load`], when the authority is another one; whom the register does not
    /// know any more is refused in any case.
    pub fn trust(&self, access: AccessTrust) -> Result<(), EngineTlsError> {
        self.known.store(Arc::new(access.known));
        self.generation.fetch_add(1, Ordering::AcqRel);
        if self.authority.load().as_ref().is_some_and(|pem| **pem == access.ca_pem) {
            return Ok(());
        }
        let authority = (!access.ca_pem.is_empty()).then(|| Arc::new(access.ca_pem));
        self.authority.store(authority);
        self.reload().map(drop)
    }

    /// Reads the files again; says whether anything in them is new.
    ///
    /// Connections that exist go on, except those whose certificate does not count any more: see
    /// [`EngineServer::still_trusts`].
    ///
    /// # Errors
    /// As [`EngineServer::load`]; then everything stays as it was.
    pub fn reload(&self) -> Result<bool, EngineTlsError> {
        let authority = self.authority.load_full();
        let authority = authority.as_ref().map(|pem| pem.as_slice());
        let new = Loaded::build(&self.files, authority, &self.known)?;
        if new.digest == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(new));
        self.generation.fetch_add(1, Ordering::AcqRel);
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

    /// The handshake. With `enrols`, whoever asks for the protocol of newcomers gets that far
    /// without a certificate.
    ///
    /// # Errors
    /// Its failure: above all a client without certificate, or with one that does not count.
    pub async fn accept<IO>(&self, io: IO, enrols: bool) -> io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Before the files: at worst a certificate is held against them once more.
        let generation = self.generation.load(Ordering::Acquire);
        let loaded = self.current.load_full();
        let hello = tokio_rustls::LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let is_newcomer =
            enrols && hello.client_hello().alpn().is_some_and(|mut all| all.any(|p| p == PROTOCOL));
        if is_newcomer {
            let stream = hello.into_stream(Arc::clone(&loaded.enrolment)).await?;
            return Ok(Accepted::Newcomer(stream, loaded.public_key.clone()));
        }
        let stream = hello.into_stream(Arc::clone(&loaded.config)).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let client = ClientCertificate::read(chain, &loaded.authorities, generation)
            .map_err(io::Error::other)?;
        Ok(Accepted::Client(stream, client))
    }

    /// Whether a client that was let in would be let in now.
    #[must_use]
    pub fn still_trusts(&self, client: &ClientCertificate) -> bool {
        if client.not_after < OffsetDateTime::now_utc() {
            return false;
        }
        let generation = self.generation.load(Ordering::Acquire);
        if client.checked.load(Ordering::Relaxed) == generation {
            return true;
        }
        let current = self.current.load();
        let Some((leaf, intermediates)) = client.chain.split_first() else { return false };
        let trusted =
            current.clients.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok();
        if trusted {
            client.checked.store(generation, Ordering::Relaxed);
        }
        trusted
    }
}

impl ClientCertificate {
    fn read(
        chain: &[CertificateDer<'_>],
        authorities: &[CertificateDer<'_>],
        generation: u64,
    ) -> Result<Self, PkiError> {
        let leaf = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
        let certificate = x509::parse(leaf)?;
        // By its signature: the register may have changed since the handshake.
        let of_access_authority = authorities.iter().any(|ca| x509::is_signed_by(&certificate, ca));
        let name = certificate.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        Ok(Self {
            common_name: name.chars().take(MAX_NAME).collect(),
            fingerprint: hex::encode(sha256(leaf)),
            of_access_authority,
            not_after: certificate.validity().not_after.to_datetime(),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            checked: AtomicU64::new(generation),
        })
    }
}

impl Loaded {
    fn build(
        files: &EngineFiles,
        authority: Option<&[u8]>,
        known: &Arc<ArcSwap<Known>>,
    ) -> Result<Self, EngineTlsError> {
        let contents = files.read()?;
        let digest = digest(&contents, authority);
        let (identity, info) = identity(files, &contents)?;
        let not_after = info.not_after;
        let revoked = match (&contents.revoked, &files.revoked) {
            (Some(content), Some(path)) => Revocations::parse(content)
                .map_err(|source| EngineTlsError::Revocations { path: path.clone(), source })?,
            _ => Revocations::default(),
        };
        let inner = match (&files.ca, &contents.ca) {
            (Some(path), Some(pem)) => {
                let roots = Arc::new(authorities(path, pem)?);
                let built = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
                Some(built.map_err(|_| EngineTlsError::Tls(PkiError::NoRoots))?)
            }
            _ => None,
        };
        let authorities = authority.map(x509::certificates).transpose();
        let authorities = authorities.map_err(EngineTlsError::Tls)?.unwrap_or_default();
        let access = authority
            .map(|pem| AccessClients::new(pem, Arc::clone(known)))
            .transpose()
            .map_err(EngineTlsError::Tls)?;
        if inner.is_none() && access.is_none() {
            return Err(EngineTlsError::Tls(PkiError::NoRoots));
        }
        let operators = inner.iter().flat_map(|inner| inner.root_hint_subjects());
        let own = access.iter().flat_map(AccessClients::hints);
        let hints = operators.chain(own).cloned().collect();
        let clients = Arc::new(Clients { inner, access, hints, revoked });
        let tls = |error| EngineTlsError::Tls(PkiError::Tls(error));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(Arc::<Clients>::clone(&clients))
            .with_cert_resolver(Arc::<SingleCertAndKey>::clone(&identity));
        let mut enrolment = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_no_client_auth()
            .with_cert_resolver(identity);
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        enrolment.alpn_protocols = vec![PROTOCOL.to_vec()];
        for config in [&mut config, &mut enrolment] {
            // A resumed session would not show its certificate again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(config),
            enrolment: Arc::new(enrolment),
            public_key: info.public_key_der,
            authorities,
            clients,
            digest,
            not_after,
        })
    }
}

fn digest(contents: &Contents, authority: Option<&[u8]>) -> [u8; SHA256_LEN] {
    let mut all = Sha256::new();
    let ca = contents.ca.as_deref().unwrap_or_default();
    let revoked = contents.revoked.as_deref().unwrap_or_default();
    for part in [ca, &contents.cert, contents.key.expose_secret(), revoked] {
        all.update(&sha256(part));
    }
    if let Some(authority) = authority {
        all.update(&sha256(authority));
    }
    all.finish()
}

/// The clients' authorities: at least one that is valid.
fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, EngineTlsError> {
    const WHAT: &str = "CA certificate";
    let unusable = |source| EngineTlsError::Unusable { what: WHAT, path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    let mut outdated = None;
    for der in x509::certificates(pem).map_err(unusable)? {
        let info = CertInfo::from_cert_der(&der).map_err(unusable)?;
        // An expired authority among others is a rotation that was not tidied up.
        match validity(WHAT, path, &info) {
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
pub(super) fn identity(
    files: &EngineFiles,
    contents: &Contents,
) -> Result<(Arc<SingleCertAndKey>, CertInfo), EngineTlsError> {
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
        Ok(identity) => Ok((Arc::new(SingleCertAndKey::from(identity)), info)),
        Err(Error::InconsistentKeys(_)) => {
            Err(EngineTlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() })
        }
        Err(error) => Err(unusable(PkiError::Tls(error))),
    }
}

fn validity(what: &'static str, path: &Path, info: &CertInfo) -> Result<(), EngineTlsError> {
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
    /// Clients of the operator's authority.
    inner: Option<Arc<dyn ClientCertVerifier>>,
    /// Clients of the access authority.
    access: Option<AccessClients>,
    hints: Vec<DistinguishedName>,
    revoked: Revocations,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let of_access =
            self.access.as_ref().and_then(|access| access.verify(leaf, intermediates, now));
        let verified = match (of_access, &self.inner) {
            (Some(verdict), _) => verdict?,
            (None, Some(inner)) => inner.verify_client_cert(leaf, intermediates, now)?,
            (None, None) => return Err(CertificateError::UnknownIssuer.into()),
        };
        if self.revoked.contains(leaf) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    crate::tls::signatures_by!(self, provider());
}
