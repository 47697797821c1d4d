//! Checks of what another authority signed, before anybody uses it.
//!
//! An external authority is trusted to keep its key, not to do what it was asked: a certificate
//! with another role or another node's name would be that role or that node.

use std::collections::BTreeSet;

use rcgen::PublicKeyData as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::ca::{CA_SERVER_NAME, RootCa, requested_key};
use crate::identity::NodeIdentity;
use crate::token::NodeRole;
use crate::{PkiError, x509};

/// Why a certificate is not the one that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The answer, the request or the root cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] PkiError),
    /// A chain, where one certificate was asked for: it would hide who issued it.
    #[error("{0} certificates came where one was asked for")]
    Several(usize),
    /// Another authority's name is on it.
    #[error("its issuer is {found}, not {wanted}")]
    Issuer {
        /// The name on the certificate.
        found: String,
        /// The name of the root that was to sign.
        wanted: String,
    },
    /// It does not lead to the root: signature, validity, purpose.
    #[error("it is no valid certificate for servers and clients under the root: {0:?}")]
    Untrusted(webpki::Error),
    /// It is for somebody else's key.
    #[error("its public key is not the requested one")]
    PublicKey,
    /// It names somebody else.
    #[error("its subject is {found}, not {wanted}")]
    Subject {
        /// The subject on the certificate.
        found: String,
        /// The subject that was asked for.
        wanted: String,
    },
    /// It is valid for other names.
    #[error("its names are {found:?}, not {wanted:?}")]
    Names {
        /// The names on the certificate.
        found: Vec<String>,
        /// The names that were asked for.
        wanted: Vec<String>,
    },
    /// Its key may not be used as nodes use theirs, or as authorities do.
    #[error("its key usage is wrong")]
    KeyUsage,
    /// It is no authority's certificate, where one was asked for.
    #[error("it is not for a certificate authority")]
    NotAuthority,
}

/// The DNS names of a node's certificate.
#[must_use]
pub fn node_names(identity: &NodeIdentity) -> Vec<String> {
    let mut names = vec![identity.role.organizational_unit().to_owned(), identity.node.to_string()];
    if identity.role == NodeRole::Manager {
        names.push(CA_SERVER_NAME.to_owned());
    }
    names
}

/// Checks that a request for a certificate can be read and proves possession of its key.
///
/// # Errors
/// [`PkiError::Pem`], [`PkiError::Csr`].
pub fn check_request(csr_pem: &[u8]) -> Result<(), PkiError> {
    requested_key(csr_pem).map(drop)
}

/// Checks the node certificate that an authority answered a request with. `root_pem` itself has to
/// have signed it, right now it has to be valid for both ends of a connection, and key, subject and
/// names have to be those asked for. Returns it as PEM in its normal form.
///
/// # Errors
/// [`Unfit`].
pub fn check_node_certificate(
    root_pem: &[u8],
    certificate_pem: &[u8],
    csr_pem: &[u8],
    identity: &NodeIdentity,
) -> Result<Vec<u8>, Unfit> {
    let (root, der) = (first(root_pem)?, only(certificate_pem)?);
    let certificate = issued_by(&root, &der)?;
    let anchors = [webpki::anchor_from_trusted_cert(&root).map_err(Unfit::Untrusted)?];
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        webpki::EndEntityCert::try_from(&der)
            .map_err(Unfit::Untrusted)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &[],
                UnixTime::now(),
                usage,
                None,
                None,
            )
            .map_err(Unfit::Untrusted)?;
    }
    let key = requested_key(csr_pem).map_err(Unfit::Unreadable)?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(Unfit::PublicKey);
    }
    let subject = NodeIdentity::from_cert_der(&der).ok();
    // One attribute more than asked for may mean something to somebody.
    if subject.as_ref() != Some(identity) || certificate.subject().iter_attributes().count() != 3 {
        return Err(Unfit::Subject {
            found: certificate.subject().to_string(),
            wanted: format!(
                "O={}, OU={}, CN={}",
                identity.cluster,
                identity.role.organizational_unit(),
                identity.node
            ),
        });
    }
    let (found, wanted) = (names(&certificate), node_names(identity));
    if found.iter().collect::<BTreeSet<_>>() != wanted.iter().collect() {
        return Err(Unfit::Names { found, wanted });
    }
    // Absent means any use. The verifier looks at the extended key usage only.
    let usage = certificate.key_usage().map_err(|_| Unfit::KeyUsage)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) || certificate.is_ca() {
        return Err(Unfit::KeyUsage);
    }
    Ok(x509::to_pem("CERTIFICATE", &der).into_bytes())
}

/// Checks the cross-signed certificate of `new` that the authority of `root_pem` made: subject and
/// key of `new`, an authority, signed by the root. Returns it as PEM in its normal form.
///
/// # Errors
/// [`Unfit`].
pub fn check_cross_signed(
    root_pem: &[u8],
    certificate_pem: &[u8],
    new: &RootCa,
) -> Result<Vec<u8>, Unfit> {
    let (root, der) = (first(root_pem)?, only(certificate_pem)?);
    let certificate = issued_by(&root, &der)?;
    let signer = x509::parse(&root).map_err(Unfit::Unreadable)?;
    certificate
        .verify_signature(Some(signer.public_key()))
        .map_err(|_| Unfit::Untrusted(webpki::Error::InvalidSignatureForPublicKey))?;
    if !certificate.validity().is_valid() {
        return Err(Unfit::Unreadable(PkiError::NotValidNow {
            subject: certificate.subject().to_string(),
        }));
    }
    let wanted = first(new.cert_pem())?;
    let wanted = x509::parse(&wanted).map_err(Unfit::Unreadable)?;
    if certificate.public_key().raw != wanted.public_key().raw {
        return Err(Unfit::PublicKey);
    }
    if certificate.subject().as_raw() != wanted.subject().as_raw() {
        return Err(Unfit::Subject {
            found: certificate.subject().to_string(),
            wanted: wanted.subject().to_string(),
        });
    }
    let usage = certificate.key_usage().map_err(|_| Unfit::KeyUsage)?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(Unfit::KeyUsage);
    }
    if !certificate.is_ca() {
        return Err(Unfit::NotAuthority);
    }
    Ok(x509::to_pem("CERTIFICATE", &der).into_bytes())
}

fn first(pem: &[u8]) -> Result<CertificateDer<'static>, Unfit> {
    x509::certificates(pem)
        .and_then(|all| all.into_iter().next().ok_or(PkiError::Pem { expected: "certificate" }))
        .map_err(Unfit::Unreadable)
}

fn only(pem: &[u8]) -> Result<CertificateDer<'static>, Unfit> {
    let mut all = x509::certificates(pem).map_err(Unfit::Unreadable)?;
    match (all.pop(), all.len()) {
        (Some(one), 0) => Ok(one),
        (_, others) => Err(Unfit::Several(others + 1)),
    }
}

fn issued_by<'a>(root: &[u8], der: &'a [u8]) -> Result<X509Certificate<'a>, Unfit> {
    let root = x509::parse(root).map_err(Unfit::Unreadable)?;
    let certificate = x509::parse(der).map_err(Unfit::Unreadable)?;
    if certificate.issuer().as_raw() != root.subject().as_raw() {
        return Err(Unfit::Issuer {
            found: certificate.issuer().to_string(),
            wanted: root.subject().to_string(),
        });
    }
    Ok(certificate)
}

/// All alternative names; those that are no DNS names stand out.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    certificate
        .iter_extensions()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .map(|name| match name {
            GeneralName::DNSName(dns) => (*dns).to_owned(),
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
