//! The short code that two ends show while a client enrols.
//!
//! Neither end knows the other yet. Both compute a code over everything that was said, the
//! server's key as the client saw it in the handshake, and the client's key; a person compares.
//! Somebody in between has different keys towards either end, and eight digits could be made to
//! match by trying. So the client commits to its key and its nonce before it sees the server's:
//! whoever is in between has one guess in a hundred million, not as many as its machine can make.

use std::fmt;

use zeroize::Zeroizing;

use crate::hash::{SHA256_LEN, Sha256, constant_time_eq, hkdf_sha256};
use crate::{PkiError, random};

/// The protocol, as ALPN names it.
pub const PROTOCOL: &[u8] = b"brig-enroll/1";
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 32;
/// What codes are counted modulo: eight digits.
const CODES: u64 = 100_000_000;

/// Everything that was said.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    /// The server's public key, SubjectPublicKeyInfo DER.
    pub server_key: &'a [u8],
    /// The client's signing request, as it was sent.
    pub request: &'a [u8],
    /// The name that the client asks for.
    pub name: &'a str,
    /// The client's nonce.
    pub client_nonce: &'a [u8; NONCE_LEN],
    /// The server's nonce.
    pub server_nonce: &'a [u8; NONCE_LEN],
}

/// What both ends show: `1234-5678`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(String);

/// A new nonce.
///
/// # Errors
/// [`PkiError::Random`].
pub fn nonce() -> Result<[u8; NONCE_LEN], PkiError> {
    random::bytes()
}

/// What the client says before it hears the server's nonce.
#[must_use]
pub fn commitment(request: &[u8], name: &str, nonce: &[u8; NONCE_LEN]) -> [u8; SHA256_LEN] {
    digest(b"brig-enroll/1 commitment", &[request, name.as_bytes(), nonce])
}

/// Whether the client says now what it committed to.
#[must_use]
pub fn keeps(commitment: &[u8], request: &[u8], name: &str, nonce: &[u8; NONCE_LEN]) -> bool {
    constant_time_eq(commitment, &self::commitment(request, name, nonce))
}

impl Transcript<'_> {
    /// The code.
    ///
    /// # Errors
    /// [`PkiError::Random`] cannot happen: see [`hkdf_sha256`].
    pub fn code(&self) -> Result<Code, PkiError> {
        let parts: [&[u8]; 5] = [
            self.server_key,
            self.request,
            self.name.as_bytes(),
            self.client_nonce,
            self.server_nonce,
        ];
        let all = Zeroizing::new(digest(b"brig-enroll/1 transcript", &parts));
        let derived = hkdf_sha256(&*all, b"brig-enroll/1 code")?;
        let (head, _) = derived.split_first_chunk::<8>().ok_or(PkiError::Random)?;
        let number = u64::from_be_bytes(*head) % CODES;
        Ok(Code(format!("{:04}-{:04}", number / 10_000, number % 10_000)))
    }
}

impl Code {
    /// Reads a code as people type it, with or without anything between the digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |c: char| c.is_ascii_digit() || matches!(c, '-' | ' ');
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        if digits.len() != 8 || !text.chars().all(fits) {
            return None;
        }
        let (head, tail) = digits.split_at_checked(4)?;
        Some(Self(format!("{head}-{tail}")))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest over parts of any length: each with its length before it.
fn digest(purpose: &[u8], parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let mut sum = Sha256::new();
    for part in std::iter::once(&purpose).chain(parts) {
        sum.update(&(part.len() as u64).to_be_bytes());
        sum.update(part);
    }
    sum.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transcript<'a>(server_key: &'a [u8], request: &'a [u8], name: &'a str) -> Transcript<'a> {
        let (client_nonce, server_nonce) = (&[1; NONCE_LEN], &[2; NONCE_LEN]);
        Transcript { server_key, request, name, client_nonce, server_nonce }
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = transcript(b"s", b"r", "n").code().unwrap();
        let text = code.to_string();
        assert_eq!(text.len(), 9);
        for typed in
            [text.clone(), text.replace('-', ""), text.replace('-', " "), format!(" {text}")]
        {
            assert_eq!(Code::parse(&typed), Some(code.clone()), "{typed}");
        }
        for typed in ["", "1234", "1234-567", "1234-56789", "1234-567a", "\u{661}2345678"] {
            assert_eq!(Code::parse(typed), None, "{typed}");
        }
    }

    proptest! {
        #[test]
        fn whoever_is_in_between_is_seen(
            server in prop::collection::vec(any::<u8>(), 1..80),
            other in prop::collection::vec(any::<u8>(), 1..80),
            request in prop::collection::vec(any::<u8>(), 1..80),
            name in "[a-z]{1,12}",
        ) {
            prop_assume!(server != other);
            let own = transcript(&server, &request, &name).code().unwrap();
            prop_assert_ne!(&transcript(&other, &request, &name).code().unwrap(), &own);
            prop_assert_ne!(&transcript(&server, &other, &name).code().unwrap(), &own);
            // The borders between the parts count.
            let joined = [server.as_slice(), request.as_slice()].concat();
            prop_assert_ne!(&transcript(&joined, b"", &name).code().unwrap(), &own);
        }

        #[test]
        fn a_commitment_holds(
            request in prop::collection::vec(any::<u8>(), 0..80),
            name in "\\PC{0,12}", nonce in any::<[u8; NONCE_LEN]>(), at in 0usize..NONCE_LEN,
        ) {
            let said = commitment(&request, &name, &nonce);
            prop_assert!(keeps(&said, &request, &name, &nonce));
            let mut other = nonce;
            other[at] ^= 1;
            prop_assert!(!keeps(&said, &request, &name, &other));
            let longer = name.clone() + "x";
            prop_assert!(!keeps(&said, &request, &longer, &nonce));
            prop_assert!(!keeps(&said[1..], &request, &name, &nonce));
        }

        #[test]
        fn any_text_is_a_code_or_not(text in "\\PC{0,20}") {
            let _ = Code::parse(&text);
        }
    }
}
