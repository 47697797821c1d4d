//! Signatures as sigstore's tools make them with a key pair: ECDSA over SHA-256 in DER, and RSA
//! PKCS#1 v1.5 with SHA-256.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1,
    UnparsedPublicKey, VerificationAlgorithm,
};
use pkcs8::der::asn1::{AnyRef, UintRef};
use pkcs8::der::{Encode as _, Tag};

use super::{Algorithm, Curve, Pair, SigningKey, VerifyingKey};
use crate::PkiError;

impl VerifyingKey {
    /// Whether a sigstore tool made this signature over the message with this key.
    #[must_use]
    pub fn verifies_sigstore(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::Ecdsa(Curve::P256) => &ECDSA_P256_SHA256_ASN1,
            Algorithm::Ecdsa(Curve::P384) => &ECDSA_P384_SHA256_ASN1,
            Algorithm::Ecdsa(Curve::P521) => &ECDSA_P521_SHA256_ASN1,
            Algorithm::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            // What is signed is not the same with all of their versions.
            Algorithm::Ed25519 => return false,
        };
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}

impl SigningKey {
    /// Signs as sigstore's tools do.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the library refuses, and for Ed25519.
    pub fn sign_sigstore(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        const SIGN: PkiError = PkiError::PrivateKey { reason: "signing failed" };
        match &self.0 {
            Pair::Ecdsa(..) => asn1(&self.sign(message)?).map_err(|_| SIGN),
            Pair::Rsa(pair) => {
                let mut signature = vec![0_u8; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SIGN)?;
                Ok(signature)
            }
            Pair::Ed25519(_) => Err(PkiError::PrivateKey {
                reason: "sigstore's tools do not agree on what Ed25519 signs; use ECDSA P-256",
            }),
        }
    }
}

/// r and s, one after the other, as a sequence of two integers.
fn asn1(fixed: &[u8]) -> pkcs8::der::Result<Vec<u8>> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let mut body = UintRef::new(r)?.to_der()?;
    body.extend(UintRef::new(s)?.to_der()?);
    AnyRef::new(Tag::Sequence, &body)?.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_key_verifies_its_own() {
        let keys = [
            SigningKey::generate(Curve::P256).unwrap(),
            SigningKey::generate(Curve::P384).unwrap(),
            SigningKey::generate(Curve::P521).unwrap(),
            SigningKey::generate_rsa().unwrap(),
        ];
        let public = |key: &SigningKey| VerifyingKey::from_spki(&key.public().unwrap()).unwrap();
        for (at, key) in keys.iter().enumerate() {
            // The integers' lengths differ from signature to signature.
            let rounds = if at == 3 { 1 } else { 200 };
            for round in 0..rounds {
                let message = format!("message {round}");
                let signature = key.sign_sigstore(message.as_bytes()).unwrap();
                assert!(public(key).verifies_sigstore(message.as_bytes(), &signature), "{at}");
            }
            let signature = key.sign_sigstore(b"message").unwrap();
            assert!(!public(key).verifies_sigstore(b"massage", &signature));
            for other in keys.iter().filter(|other| !std::ptr::eq(*other, key)) {
                assert!(!public(other).verifies_sigstore(b"message", &signature));
            }
            let mut broken = signature.clone();
            *broken.last_mut().unwrap() ^= 1;
            assert!(!public(key).verifies_sigstore(b"message", &broken));
        }
        assert!(SigningKey::generate_ed25519().unwrap().sign_sigstore(b"m").is_err());
    }
}
