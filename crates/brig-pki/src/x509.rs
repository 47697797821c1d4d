//! Reading PEM and X.509: complete or refused.

use brig_types::secret::SecretBytes;
use rustls_pki_types::CertificateDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::asn1_rs::{BitString, ToDer as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::AlgorithmIdentifier;

use crate::PkiError;

/// Certificates that one bundle or chain may hold.
const MAX_CERTIFICATES: usize = 64;
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// Bytes that one PEM text may have.
pub(crate) const MAX_PEM: usize = 1 << 20;

/// All certificates of a PEM text, in order; at least one.
pub(crate) fn certificates(pem_text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    const NONE: PkiError = PkiError::Pem { expected: "certificate" };
    if pem_text.len() > MAX_PEM {
        return Err(NONE);
    }
    let blocks = pem::parse_many(pem_text).map_err(|_| NONE)?;
    let found: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    if found.is_empty() || found.len() > MAX_CERTIFICATES {
        return Err(NONE);
    }
    Ok(found)
}

/// One PEM block of a kind; other blocks around it are an error.
pub(crate) fn single_block(pem_text: &[u8], tag: &'static str) -> Result<Vec<u8>, PkiError> {
    let missing = || PkiError::Pem { expected: tag };
    if pem_text.len() > MAX_PEM {
        return Err(missing());
    }
    let blocks = pem::parse_many(pem_text).map_err(|_| missing())?;
    match <[_; 1]>::try_from(blocks) {
        Ok([block]) if block.tag() == tag => Ok(block.into_contents()),
        _ => Err(missing()),
    }
}

/// The one private key of a PEM text; parameters of its curve may stand before it.
pub(crate) fn private_key(pem_text: &SecretBytes) -> Result<SecretBytes, PkiError> {
    const NONE: PkiError = PkiError::Pem { expected: "private key" };
    const KINDS: [&str; 3] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];
    let text = pem_text.expose_secret();
    if text.len() > MAX_PEM {
        return Err(NONE);
    }
    let mut keys = pem::parse_many(text)
        .map_err(|_| NONE)?
        .into_iter()
        .map(|block| (KINDS.contains(&block.tag()), SecretBytes::new(block.into_contents())))
        .filter_map(|(is_key, content)| is_key.then_some(content));
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(NONE),
    }
}

/// Writes DER as PEM, lines ended by a single newline as every Unix tool does.
pub(crate) fn to_pem(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}

/// Whether a certificate's signature was made with the key of another one, or its own.
pub(crate) fn is_signed_by(certificate: &X509Certificate<'_>, issuer_der: &[u8]) -> bool {
    let issuer_der = CertificateDer::from(issuer_der);
    let Ok(issuer) = webpki::EndEntityCert::try_from(&issuer_der) else {
        return false;
    };
    let Some(signature) = octets(&certificate.signature_value) else {
        return false;
    };
    let message = certificate.tbs_certificate.as_ref();
    webpki::ALL_VERIFICATION_ALGS
        .iter()
        .any(|algorithm| issuer.verify_signature(*algorithm, message, signature).is_ok())
}

/// Whether a request proves that whoever made it has its key. What counts is what counts for
/// certificates too: curves by name, RSA of 2048 to 8192 bits, no SHA-1.
pub(crate) fn is_signed_by_its_key(request: &X509CertificationRequest<'_>) -> bool {
    let info = &request.certification_request_info;
    let key = &info.subject_pki;
    let Some(key_algorithm) = algorithm(&key.algorithm) else {
        return false;
    };
    let Some(signature_algorithm) = algorithm(&request.signature_algorithm) else {
        return false;
    };
    let (Some(public_key), Some(signature)) =
        (octets(&key.subject_public_key), octets(&request.signature_value))
    else {
        return false;
    };
    webpki::ALL_VERIFICATION_ALGS.iter().any(|verifier| {
        *verifier.public_key_alg_id() == *key_algorithm
            && *verifier.signature_alg_id() == *signature_algorithm
            && verifier.verify_signature(public_key, info.raw, signature).is_ok()
    })
}

/// Whether these bytes are the one way to write this request. Around what is signed the parser is
/// lenient: it takes other classes of tags, and any tag for the algorithm's name.
pub(crate) fn is_exact(der: &[u8], request: &X509CertificationRequest<'_>) -> bool {
    let (Some(algorithm), Some(signature)) =
        (algorithm(&request.signature_algorithm), octets(&request.signature_value))
    else {
        return false;
    };
    let algorithm = element(SEQUENCE, &[&algorithm]);
    let signature = element(BIT_STRING, &[&[0], signature]);
    let info = request.certification_request_info.raw;
    element(SEQUENCE, &[info, &algorithm, &signature]) == der
}

/// An element of DER: its tag, its length in the shortest form, its content.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => der.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let digits: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
            der.extend(digits);
        }
    }
    der.extend(parts.concat());
    der
}

/// A bit string's octets. Keys and signatures are whole ones: a count of unused bits is outside of
/// what is signed, and the parser takes any as long as that many bits are zero.
fn octets<'a>(bits: &'a BitString<'_>) -> Option<&'a [u8]> {
    (bits.unused_bits == 0).then_some(&*bits.data)
}

/// What stands inside an algorithm's sequence.
fn algorithm(identifier: &AlgorithmIdentifier<'_>) -> Option<Vec<u8>> {
    let mut der = identifier.algorithm.to_der_vec().ok()?;
    if let Some(parameters) = &identifier.parameters {
        der.extend(parameters.to_der_vec().ok()?);
    }
    Some(der)
}

/// Parses one certificate that fills its DER completely.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(PkiError::Certificate { reason: "trailing bytes" }),
        Err(_) => Err(PkiError::Certificate { reason: "not X.509 DER" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let _ = certificates(&bytes).map(|all| all.iter().filter(|der| parse(der).is_ok()).count());
            let _ = single_block(&bytes, "CERTIFICATE REQUEST");
            let _ = private_key(&SecretBytes::new(bytes));
        }

        #[test]
        fn what_is_written_is_read_and_two_blocks_are_not_one(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..6),
            noise in "[a-z \n]{0,40}",
            cut in 2usize..26,
        ) {
            let text: String =
                blocks.iter().map(|der| noise.clone() + "\n" + &to_pem("CERTIFICATE", der)).collect();
            let read = certificates(text.as_bytes()).unwrap();
            prop_assert!(read.iter().map(AsRef::as_ref).eq(blocks.iter().map(Vec::as_slice)));
            let one = single_block(text.as_bytes(), "CERTIFICATE");
            prop_assert_eq!(one.is_ok(), blocks.len() == 1);
            prop_assert!(single_block(text.as_bytes(), "PRIVATE KEY").is_err());
            let short = text.get(..text.len() - cut).unwrap();
            prop_assert!(certificates(short.as_bytes()).map_or(0, |all| all.len()) < blocks.len());
        }

        #[test]
        fn exactly_one_key_is_taken(
            keys in 0usize..4,
            tag in prop::sample::select(vec!["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"]),
        ) {
            let text = to_pem("EC PARAMETERS", b"p") + &to_pem(tag, b"key").repeat(keys);
            prop_assert_eq!(private_key(&SecretBytes::new(text.into_bytes())).is_ok(), keys == 1);
        }
    }

    #[test]
    fn no_more_certificates_than_a_bundle_may_hold() {
        let text = |count| to_pem("CERTIFICATE", b"x").repeat(count);
        assert!(certificates(text(MAX_CERTIFICATES).as_bytes()).is_ok());
        assert!(certificates(text(MAX_CERTIFICATES + 1).as_bytes()).is_err());
        assert!(certificates(&vec![b'\n'; MAX_PEM + 1]).is_err());
    }
}
