//! Which node certificates a manager believes, and how far.
//!
//! | the certificate | standing |
//! | --- | --- |
//! | leads to a present root and is valid | full |
//! | leads to a root of the past, valid, and is the very one that its node has now | full |
//! | has expired, is the very one that its node has now, within the grace | renewal only |
//! | anything else | refused, with the reason |
//!
//! The second row is for nodes that were away while the root was replaced. Only the exact
//! certificate counts, so a stolen key of the old root makes nothing that is believed. In every
//! row the handshake proves that the peer holds the certificate's key.

use std::fmt;
use std::time::Duration;

use brig_types::id::NodeId;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::hash;
use crate::identity::{CertInfo, NodeIdentity};
use crate::{PkiError, x509};

/// Longest time after its end that a certificate can still be renewed.
pub const MAX_GRACE: time::Duration = time::Duration::days(30);

/// SHA-256 of a certificate's DER.
pub type Fingerprint = [u8; hash::SHA256_LEN];

/// Knows the certificates that the cluster's nodes have.
pub trait IssuedRegister: fmt::Debug + Send + Sync {
    /// Whether exactly this certificate is the one that the node has now, or had until a renewal
    /// that is still under way.
    fn holds(&self, node: &NodeId, leaf: &Fingerprint) -> bool;
}

/// A register without entries: only what leads to a present root and is valid is believed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingIssued;

impl IssuedRegister for NothingIssued {
    fn holds(&self, _: &NodeId, _: &Fingerprint) -> bool {
        false
    }
}

/// How far a certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It speaks for its node.
    Full,
    /// It has expired and can be renewed, nothing else.
    RenewOnly {
        /// The end of that.
        until: OffsetDateTime,
    },
}

/// Whether a chain leads to one of the present roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// It does.
    Present,
    /// It leads nowhere, because it ends where it begins.
    SelfSigned,
    /// It leads to an issuer that is no present root.
    Foreign,
    /// It is not one that a node can show, whoever signed it.
    Unfit(String),
}

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It cannot be read, or names no node.
    #[error("it is no node certificate: {0}")]
    NoNode(String),
    /// It is signed with its own key.
    #[error("it is self-signed, not issued by this cluster")]
    SelfSigned,
    /// Another root issued it, or a past one and it is not the one that its node has now.
    #[error("it leads to no root of this cluster; its issuer is {issuer}")]
    ForeignRoot {
        /// The issuer's name.
        issuer: String,
    },
    /// It may not be used like this.
    #[error("it is not fit for a node: {0}")]
    Unfit(String),
    /// One of the clocks is wrong.
    #[error(
        "it is not valid before {}, and here it is {}: one of the clocks is wrong",
        text(*.from),
        text(*.now)
    )]
    NotYetValid {
        /// The start of its validity.
        from: OffsetDateTime,
        /// The time here.
        now: OffsetDateTime,
    },
    /// It has expired, and another one was issued to its node, or this one never was.
    #[error("it has expired on {}, and it is not the one that its node has now", text(*.since))]
    ExpiredUnknown {
        /// The end of its validity.
        since: OffsetDateTime,
    },
    /// It has expired too long ago.
    #[error(
        "it has expired on {}, and could be renewed until {}: the node has to leave and join again",
        text(*.since),
        text(*.until)
    )]
    GraceOver {
        /// The end of its validity.
        since: OffsetDateTime,
        /// The end of the grace.
        until: OffsetDateTime,
    },
}

/// What a decision about a certificate rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Where its chain leads.
    pub root: &'a Root,
    /// Whether it is the one that its node has now.
    pub registered: bool,
    /// Its validity and issuer.
    pub certificate: &'a CertInfo,
    /// The time here.
    pub now: OffsetDateTime,
}

impl Facts<'_> {
    /// The decision.
    ///
    /// # Errors
    /// Why the certificate is refused.
    pub fn standing(&self) -> Result<Standing, Refusal> {
        let certificate = self.certificate;
        if !self.registered {
            match self.root {
                Root::Present => {}
                Root::SelfSigned => return Err(Refusal::SelfSigned),
                Root::Foreign => {
                    return Err(Refusal::ForeignRoot { issuer: certificate.issuer.clone() });
                }
                Root::Unfit(reason) => return Err(Refusal::Unfit(reason.clone())),
            }
        }
        if self.now < certificate.not_before {
            return Err(Refusal::NotYetValid { from: certificate.not_before, now: self.now });
        }
        if self.now <= certificate.not_after {
            return Ok(Standing::Full);
        }
        let since = certificate.not_after;
        if !self.registered {
            return Err(Refusal::ExpiredUnknown { since });
        }
        let until = grace_end(certificate);
        if self.now <= until {
            Ok(Standing::RenewOnly { until })
        } else {
            Err(Refusal::GraceOver { since, until })
        }
    }
}

/// Until when a certificate can be renewed: for as long after its end as it was valid, and for
/// [`MAX_GRACE`] at most.
#[must_use]
pub fn grace_end(certificate: &CertInfo) -> OffsetDateTime {
    let lived = certificate.not_after - certificate.not_before;
    let grace = lived.clamp(time::Duration::ZERO, MAX_GRACE);
    certificate.not_after.checked_add(grace).unwrap_or(certificate.not_after)
}

/// A client that showed a node certificate and proved to hold its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: NodeIdentity,
    /// Facts of its certificate.
    pub certificate: CertInfo,
    /// Its certificate's fingerprint.
    pub fingerprint: Fingerprint,
    chain: Vec<CertificateDer<'static>>,
}

impl Peer {
    /// Reads a chain, leaf first. Nothing of it is verified.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when the first one is no node certificate.
    pub fn from_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, PkiError> {
        let leaf = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
        Ok(Self {
            identity: NodeIdentity::from_cert_der(leaf)?,
            certificate: CertInfo::from_cert_der(leaf)?,
            fingerprint: hash::sha256(leaf),
            chain,
        })
    }

    /// As [`Peer::from_chain`], from PEM.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`].
    pub fn from_pem(chain_pem: &[u8]) -> Result<Self, PkiError> {
        Self::from_chain(x509::certificates(chain_pem)?)
    }

    /// How far it is believed now.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn standing(
        &self,
        root: &Root,
        register: &dyn IssuedRegister,
        now: OffsetDateTime,
    ) -> Result<Standing, Refusal> {
        let registered = register.holds(&self.identity.node, &self.fingerprint);
        Facts { root, registered, certificate: &self.certificate, now }.standing()
    }

    /// Whether its chain leads to one of `anchors`.
    pub(crate) fn root(&self, anchors: &[TrustAnchor<'_>], now: OffsetDateTime) -> Root {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Root::Foreign;
        };
        // Whether it has expired is another question.
        let (from, until) = (self.certificate.not_before, self.certificate.not_after);
        let at = if from <= until { now.clamp(from, until) } else { now };
        let seconds = u64::try_from(at.unix_timestamp()).unwrap_or_default();
        let verified = webpki::EndEntityCert::try_from(leaf).and_then(|leaf| {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                anchors,
                intermediates,
                UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map(drop)
        });
        match verified {
            Ok(()) => Root::Present,
            Err(_) if self.certificate.issuer_der == self.certificate.subject_der => {
                Root::SelfSigned
            }
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                Root::Foreign
            }
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => {
                Root::Unfit("clients must not use it".to_owned())
            }
            Err(other) => Root::Unfit(format!("{other:?}")),
        }
    }
}

/// The fingerprint of the first certificate of a chain in PEM.
///
/// # Errors
/// [`PkiError::Pem`].
pub fn leaf_fingerprint(chain_pem: &[u8]) -> Result<Fingerprint, PkiError> {
    let chain = x509::certificates(chain_pem)?;
    let leaf = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
    Ok(hash::sha256(leaf))
}

fn text(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}

#[cfg(test)]
mod tests;
