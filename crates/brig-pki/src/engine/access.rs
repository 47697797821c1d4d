//! Clients of the access authority: its signature alone lets nobody in, the register does.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::hash::{SHA256_LEN, sha256};
use crate::tls::provider;
use crate::{PkiError, x509};

/// The access authority, and which of its certificates count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessTrust {
    /// Its certificate, PEM.
    pub ca_pem: Vec<u8>,
    /// SHA-256 of the certificates that count: neither revoked nor forgotten.
    pub known: BTreeSet<[u8; SHA256_LEN]>,
}

/// SHA-256 of the certificates that count. Replaced without the files being read: a file that is
/// broken just now must keep nobody in.
pub(super) type Known = BTreeSet<[u8; SHA256_LEN]>;

/// Decides about clients of the access authority.
#[derive(Debug)]
pub(super) struct AccessClients {
    inner: Arc<dyn ClientCertVerifier>,
    known: Arc<ArcSwap<Known>>,
}

impl AccessClients {
    pub(super) fn new(ca_pem: &[u8], known: Arc<ArcSwap<Known>>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        for der in x509::certificates(ca_pem)? {
            roots.add(der).map_err(PkiError::Tls)?;
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|_| PkiError::NoRoots)?;
        Ok(Self { inner, known })
    }

    pub(super) fn hints(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    /// The verdict about a certificate of the authority; `None` for one of another's.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<ClientCertVerified, Error>> {
        match self.inner.verify_client_cert(leaf, intermediates, now) {
            Ok(verified) if self.known.load().contains(&sha256(leaf)) => Some(Ok(verified)),
            // SECURITY: it must not be let in by an operator's file that has the same authority.
            Ok(_) => Some(Err(CertificateError::Revoked.into())),
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
            )) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
