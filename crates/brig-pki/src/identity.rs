//! Who a certificate says its holder is.

use brig_types::id::NodeId;
use time::OffsetDateTime;
use x509_parser::x509::X509Name;

use crate::csr::NodeKey;
use crate::token::NodeRole;
use crate::{PkiError, x509};

/// A node's identity: `O=<cluster>, OU=<role>, CN=<node>` in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeIdentity {
    /// The cluster's id. Text, because other implementations prefix it (`FIPS.`).
    pub cluster: String,
    /// The role.
    pub role: NodeRole,
    /// The node's id.
    pub node: NodeId,
}

impl NodeIdentity {
    /// Reads a certificate's subject. The certificate must have been verified before.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when it is no node certificate.
    pub fn from_cert_der(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = x509::parse(der)?;
        let subject = certificate.subject();
        let unit = only(subject.iter_organizational_unit())?;
        let node = only(subject.iter_common_name())?;
        Ok(Self {
            cluster: only(subject.iter_organization())?.to_owned(),
            role: NodeRole::from_organizational_unit(unit)
                .ok_or(PkiError::Certificate { reason: "OU is not a node role" })?,
            node: NodeId::parse(node)
                .map_err(|_| PkiError::Certificate { reason: "CN is not a node id" })?,
        })
    }

    /// Reads the first certificate of a PEM chain.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`].
    pub fn from_chain_pem(chain_pem: &[u8]) -> Result<Self, PkiError> {
        let chain = x509::certificates(chain_pem)?;
        let leaf = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
        Self::from_cert_der(leaf)
    }
}

/// The one value of an attribute; a certificate with two is not trusted to mean either.
fn only<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Result<&'a str, PkiError> {
    match (values.next(), values.next()) {
        (Some(value), None) => {
            value.as_str().map_err(|_| PkiError::Certificate { reason: "subject is not text" })
        }
        _ => Err(PkiError::Certificate { reason: "subject needs one O, one OU and one CN" }),
    }
}

/// Facts of a certificate that decide about renewal and that `node inspect` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertInfo {
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// Subject as people read it.
    pub subject: String,
    /// Issuer as people read it.
    pub issuer: String,
    /// Issuer's name, DER.
    pub issuer_der: Vec<u8>,
    /// Subject's name, DER.
    pub subject_der: Vec<u8>,
    /// Public key, SubjectPublicKeyInfo DER.
    pub public_key_der: Vec<u8>,
}

impl CertInfo {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn from_cert_der(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = x509::parse(der)?;
        let raw = |name: &X509Name<'_>| name.as_raw().to_vec();
        Ok(Self {
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            issuer_der: raw(certificate.issuer()),
            subject_der: raw(certificate.subject()),
            public_key_der: certificate.public_key().raw.to_vec(),
        })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`].
    pub fn from_pem(pem_text: &[u8]) -> Result<Self, PkiError> {
        let chain = x509::certificates(pem_text)?;
        let first = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
        Self::from_cert_der(first)
    }

    /// What issued a node's certificate, as `TLSInfo` shows it: the second certificate of its
    /// chain, else the one of the roots that it names.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`]; [`PkiError::NoRoots`] when none of the roots
    /// issued it.
    pub fn of_issuer(chain_pem: &[u8], roots_pem: &[u8]) -> Result<Self, PkiError> {
        let chain = x509::certificates(chain_pem)?;
        if let Some(issuer) = chain.get(1) {
            return Self::from_cert_der(issuer);
        }
        let leaf = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
        let leaf = x509::parse(leaf)?;
        for root in x509::certificates(roots_pem)? {
            let parsed = x509::parse(&root)?;
            if parsed.subject().as_raw() == leaf.issuer().as_raw()
                && x509::is_signed_by(&leaf, &root)
            {
                return Self::from_cert_der(&root);
            }
        }
        Err(PkiError::NoRoots)
    }

    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`].
    pub fn all_from_pem(pem_text: &[u8]) -> Result<Vec<Self>, PkiError> {
        x509::certificates(pem_text)?.iter().map(|der| Self::from_cert_der(der)).collect()
    }

    /// Whether `now` lies inside the validity.
    #[must_use]
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether the certificate is for this key.
    #[must_use]
    pub fn is_for(&self, key: &NodeKey) -> bool {
        self.public_key_der == key.public_key_der()
    }
}

/// Checks a chain that an authority issued: it leads to one of the roots right now, is for `key`,
/// and names a node.
///
/// # Errors
/// [`PkiError::Untrusted`], [`PkiError::KeyMismatch`], [`PkiError::Certificate`].
pub fn verify_issued_chain(
    roots_pem: &[u8],
    chain_pem: &[u8],
    key: &NodeKey,
) -> Result<NodeIdentity, PkiError> {
    let roots = x509::certificates(roots_pem)?;
    let chain = x509::certificates(chain_pem)?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(PkiError::Pem { expected: "certificate" });
    };
    let anchors = roots
        .iter()
        .map(|root| webpki::anchor_from_trusted_cert(root))
        .collect::<Result<Vec<_>, _>>()
        .map_err(PkiError::Untrusted)?;
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        webpki::EndEntityCert::try_from(leaf)
            .map_err(PkiError::Untrusted)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                intermediates,
                rustls_pki_types::UnixTime::now(),
                usage,
                None,
                None,
            )
            .map_err(PkiError::Untrusted)?;
    }
    if !CertInfo::from_cert_der(leaf)?.is_for(key) {
        return Err(PkiError::KeyMismatch);
    }
    NodeIdentity::from_cert_der(leaf)
}
