//! SHA-256, SHA-512, HMAC-SHA-256 and HKDF-SHA-256.

use std::fmt;

use aws_lc_rs::{digest, hkdf, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::PkiError;

/// Size of a SHA-256 value in bytes.
pub const SHA256_LEN: usize = 32;
/// Size of a SHA-512 value in bytes.
pub const SHA512_LEN: usize = 64;

/// SHA-256 over data that arrives in pieces.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything added.
    #[must_use]
    pub fn finish(self) -> [u8; SHA256_LEN] {
        to_array(self.0.finish().as_ref())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

impl std::io::Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The SHA-256 hash of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; SHA256_LEN] {
    to_array(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The SHA-512 hash of `bytes`.
#[must_use]
pub fn sha512(bytes: &[u8]) -> [u8; SHA512_LEN] {
    let mut array = [0_u8; SHA512_LEN];
    for (to, from) in array.iter_mut().zip(digest::digest(&digest::SHA512, bytes).as_ref()) {
        *to = *from;
    }
    array
}

/// What proves that a server read a websocket's handshake (RFC 6455, 4.2.2), before base64.
///
/// It shows that the peer speaks the protocol and protects nothing: the only use of SHA-1.
#[must_use]
pub fn websocket_accept(key: &str) -> Vec<u8> {
    const PROTOCOL: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(PROTOCOL);
    context.finish().as_ref().to_vec()
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// HMAC-SHA-256 over the concatenation of `parts`.
///
/// The parts are not delimited: a caller with parts of variable length writes the lengths too.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    to_array(context.sign().as_ref())
}

/// HKDF-SHA-256 (RFC 5869) without salt: 32 bytes derived from `secret` for the purpose `info`.
///
/// # Errors
/// [`PkiError::Random`] cannot happen for this length; the library's interface asks for a result.
pub fn hkdf_sha256(secret: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; SHA256_LEN]>, PkiError> {
    let mut output = Zeroizing::new([0_u8; SHA256_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|key| key.fill(output.as_mut()))
        .map_err(|_| PkiError::Random)?;
    Ok(output)
}

/// Compares in a time that depends on the lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn to_array(bytes: &[u8]) -> [u8; SHA256_LEN] {
    let mut array = [0_u8; SHA256_LEN];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = *from;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        assert_eq!(
            hex(&sha256(b"")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let mut parts = Sha256::new();
        parts.update(b"a");
        parts.update(b"bc");
        assert_eq!(
            hex(&parts.finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        // RFC 4231, test case 2.
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        // RFC 5869, test case 3 (no salt, no info), first 32 bytes.
        assert_eq!(
            hex(hkdf_sha256(&[0x0b; 22], b"").unwrap().as_ref()),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        );
    }

    #[test]
    fn comparison() {
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"some"));
        assert!(!constant_time_eq(b"same", b"sam"));
    }
}
