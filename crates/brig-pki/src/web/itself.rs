//! Servers that show the very certificate that was configured as an authority for them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{PkiError, tls, x509};

/// Accepts what leads to an authority, and what is one itself.
///
/// COMPAT: what `openssl req -x509` makes is an authority that signed itself. Go's clients, docker's
/// among them, take it as a server's certificate when they were told of it; the library wants that no
/// server's certificate is an authority's.
#[derive(Debug)]
pub(super) struct OrItself {
    authorities: Arc<WebPkiServerVerifier>,
    configured: Vec<CertificateDer<'static>>,
}

impl OrItself {
    pub(super) fn new(
        roots: RootCertStore,
        configured: Vec<CertificateDer<'static>>,
    ) -> Result<Self, PkiError> {
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .map_err(|error| PkiError::Tls(Error::General(error.to_string())))?;
        Ok(Self { authorities, configured })
    }
}

impl ServerCertVerifier for OrItself {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now);
        if verified.is_ok() || !self.configured.iter().any(|known| known == certificate) {
            return verified;
        }
        // SECURITY: it is byte for byte what was configured for this host. Its name and its time
        // count as any other's, and the handshake proves its key.
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let parsed = x509::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < parsed.validity().not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > parsed.validity().not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn self_signed(names: &[&str], ends: i32) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(ends, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn an_authority_is_taken_for_itself_where_it_was_configured() {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let (good, late) =
            (self_signed(&["trust.example"], 2099), self_signed(&["trust.example"], 2020));
        let stranger = self_signed(&["trust.example"], 2099);
        let mut roots = RootCertStore::empty();
        for known in [&good, &late] {
            roots.add(known.clone()).unwrap();
        }
        let verifier = OrItself::new(roots, vec![good.clone(), late.clone()]).unwrap();
        let verify = |certificate: &CertificateDer<'_>, name: &'static str| {
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(certificate, &[], &name, &[], now).map(drop)
        };
        verify(&good, "trust.example").unwrap();
        assert!(matches!(
            verify(&good, "other.example"),
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        ));
        assert_eq!(
            verify(&late, "trust.example"),
            Err(Error::InvalidCertificate(CertificateError::Expired))
        );
        assert!(verify(&stranger, "trust.example").is_err());
    }
}
