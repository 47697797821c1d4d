//! The server's look at a client certificate: puts [`crate::admission`]'s decision into TLS.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::provider;
use crate::admission::{IssuedRegister, Peer, Refusal, Root};
use crate::identity::CertInfo;

/// What became of the certificate that a client showed.
#[derive(Debug)]
pub(super) enum Verdict {
    Believed(Box<(Peer, Root)>),
    Refused { subject: String, refusal: Refusal },
}

/// Where the verdict of one handshake is found.
#[derive(Clone, Debug, Default)]
pub(super) struct VerdictCell(Arc<Mutex<Option<Verdict>>>);

impl VerdictCell {
    pub(super) fn take(&self) -> Option<Verdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, verdict: Verdict) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    }
}

/// Decides about the client of one connection.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    roots: Arc<RootCertStore>,
    register: Arc<dyn IssuedRegister>,
    verdict: VerdictCell,
}

impl ClientVerifier {
    pub(super) fn new(roots: Arc<RootCertStore>, register: Arc<dyn IssuedRegister>) -> Self {
        Self { roots, register, verdict: VerdictCell::default() }
    }

    pub(super) fn verdict(&self) -> VerdictCell {
        self.verdict.clone()
    }

    fn refuse(&self, subject: String, refusal: Refusal) -> Error {
        let error = match &refusal {
            Refusal::NoNode(_) => CertificateError::BadEncoding,
            Refusal::SelfSigned | Refusal::ForeignRoot { .. } => CertificateError::UnknownIssuer,
            Refusal::Unfit(_) => CertificateError::InvalidPurpose,
            Refusal::NotYetValid { .. } => CertificateError::NotValidYet,
            Refusal::ExpiredUnknown { .. } | Refusal::GraceOver { .. } => CertificateError::Expired,
        };
        self.verdict.set(Verdict::Refused { subject, refusal });
        error.into()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a node whose root was replaced meanwhile has to show its certificate too.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = std::iter::once(leaf).chain(intermediates);
        let peer = Peer::from_chain(chain.map(|cert| cert.clone().into_owned()).collect())
            .map_err(|error| {
                let subject = CertInfo::from_cert_der(leaf).map(|info| info.subject);
                self.refuse(subject.unwrap_or_default(), Refusal::NoNode(error.to_string()))
            })?;
        let now = i64::try_from(now.as_secs())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or(Error::FailedToGetCurrentTime)?;
        let root = peer.root(&self.roots.roots, now);
        match peer.standing(&root, self.register.as_ref(), now) {
            Ok(_) => {
                self.verdict.set(Verdict::Believed(Box::new((peer, root))));
                Ok(ClientCertVerified::assertion())
            }
            Err(refusal) => Err(self.refuse(peer.certificate.subject, refusal)),
        }
    }

    crate::tls::signatures_by!(self, provider());
}
