//! Sealing of stored objects: authenticated encryption bound to the place a value lives at.
//!
//! A sealed value is
//!
//! | bytes | content |
//! | --- | --- |
//! | 4 | `BRG` and the format's version, 1 |
//! | 8 | id of the key, derived from the key itself |
//! | 12 | random nonce |
//! | n + 16 | AES-256-GCM-SIV ciphertext and tag |
//!
//! The associated data is this header and the [`Place`]: a value that is copied to another object
//! does not open. GCM-SIV (RFC 8452) keeps its promises even if a random nonce repeats, which a
//! long-lived key over many writes cannot rule out with 96 bits.
//!
//! Names that must be found without being readable become [`KeyRing::blind_name`], a keyed hash.

mod ring;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{PkiError, hash, random};

pub use self::ring::KeyRing;

/// Size of data keys and key-encryption keys in bytes.
pub const KEY_LEN: usize = 32;

const MAGIC: [u8; 4] = *b"BRG\x01";
const KEY_ID_LEN: usize = 8;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + KEY_ID_LEN;
/// Bytes that sealing adds to a value.
pub const OVERHEAD: usize = HEADER_LEN + NONCE_LEN + TAG_LEN;

/// Where a sealed value lives; it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The kind of object, or of record.
    pub kind: &'a str,
    /// The object's id.
    pub id: &'a str,
}

/// The id of a key: which key a value was sealed with, and nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_LEN]);

impl KeyId {
    /// The id's bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; KEY_ID_LEN] {
        self.0
    }

    /// An id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_ID_LEN]) -> Self {
        Self(bytes)
    }

    /// The key that a value was sealed with; `None` for what is no sealed value.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Option<Self> {
        take_apart(sealed).ok().map(|parts| parts.key)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hash::hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The raw 32 bytes, an AEAD key derived from them, and their id.
struct AeadKey {
    raw: Zeroizing<[u8; KEY_LEN]>,
    id: KeyId,
    cipher: LessSafeKey,
}

impl AeadKey {
    fn new(raw: Zeroizing<[u8; KEY_LEN]>, purpose: &[u8]) -> Result<Self, PkiError> {
        let derived = hash::hkdf_sha256(raw.as_ref(), purpose)?;
        let unbound =
            UnboundKey::new(&AES_256_GCM_SIV, derived.as_ref()).map_err(|_| PkiError::Random)?;
        let id_bytes = hash::hkdf_sha256(raw.as_ref(), b"brig key id v1")?;
        let mut id = [0_u8; KEY_ID_LEN];
        for (to, from) in id.iter_mut().zip(id_bytes.iter()) {
            *to = *from;
        }
        Ok(Self { raw, id: KeyId(id), cipher: LessSafeKey::new(unbound) })
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0_u8; HEADER_LEN];
        for (to, from) in header.iter_mut().zip(MAGIC.iter().chain(&self.id.0)) {
            *to = *from;
        }
        header
    }

    fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, PkiError> {
        let header = self.header();
        let nonce: [u8; NONCE_LEN] = random::bytes()?;
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let (_, body) = sealed.split_at_mut(HEADER_LEN + NONCE_LEN);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(&header, place)),
                body,
            )
            .map_err(|_| PkiError::Sealed { reason: "encryption failed" })?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    fn open(&self, place: Place<'_>, value: &Parts<'_>) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let mut buffer = Zeroizing::new(value.ciphertext.to_vec());
        let length = self
            .cipher
            .open_in_place(
                Nonce::assume_unique_for_key(value.nonce),
                Aad::from(associated_data(&self.header(), place)),
                buffer.as_mut_slice(),
            )
            .map_err(|_| PkiError::Sealed { reason: "it was altered or belongs elsewhere" })?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// A sealed value, taken apart but not yet believed.
struct Parts<'a> {
    key: KeyId,
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
}

fn take_apart(sealed: &[u8]) -> Result<Parts<'_>, PkiError> {
    const TOO_SHORT: PkiError = PkiError::Sealed { reason: "too short" };
    let (magic, rest) = sealed.split_first_chunk::<4>().ok_or(TOO_SHORT)?;
    if *magic != MAGIC {
        return Err(PkiError::Sealed { reason: "unknown format version" });
    }
    let (key, rest) = rest.split_first_chunk().ok_or(TOO_SHORT)?;
    let (nonce, ciphertext) = rest.split_first_chunk().ok_or(TOO_SHORT)?;
    if ciphertext.len() < TAG_LEN {
        return Err(TOO_SHORT);
    }
    Ok(Parts { key: KeyId(*key), nonce: *nonce, ciphertext })
}

/// Header and place, each with its length, so that no two places give the same bytes.
fn associated_data(header: &[u8], place: Place<'_>) -> Vec<u8> {
    let mut data = Vec::with_capacity(64);
    for part in [header, place.kind.as_bytes(), place.id.as_bytes()] {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

const WRAP_PURPOSE: &[u8] = b"brig key wrapping v1";

/// The key that wraps data keys. With autolock it is the unlock key and never on disk.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyEncryptionKey([u8; KEY_LEN]);

impl KeyEncryptionKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self(random::bytes()?))
    }

    /// Takes raw bytes.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PkiError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| PkiError::PrivateKey { reason: "a key-encryption key has 32 bytes" })
    }

    /// The raw bytes.
    #[must_use]
    pub const fn expose_secret(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Seals what is kept beside the data keys.
    pub(crate) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.cipher()?.seal(place, plain)
    }

    /// Opens what this key sealed; [`PkiError::WrongUnlockKey`] if another key did.
    pub(crate) fn open(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let parts = take_apart(sealed)?;
        let cipher = self.cipher()?;
        if parts.key != cipher.id {
            return Err(PkiError::WrongUnlockKey);
        }
        cipher.open(place, &parts)
    }

    fn cipher(&self) -> Result<AeadKey, PkiError> {
        AeadKey::new(Zeroizing::new(self.0), WRAP_PURPOSE)
    }
}

impl PartialEq for KeyEncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyEncryptionKey {}

impl From<&crate::token::UnlockKey> for KeyEncryptionKey {
    fn from(key: &crate::token::UnlockKey) -> Self {
        Self(*key.expose_secret())
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: Place<'static> = Place { kind: "secret", id: "a" };

    #[test]
    fn opens_only_where_it_was_sealed() {
        let ring = KeyRing::generate().unwrap();
        let sealed = ring.seal(HERE, b"hunter2").unwrap();
        assert_eq!(sealed.len(), 7 + OVERHEAD);
        assert_eq!(ring.open(HERE, &sealed).unwrap().as_slice(), b"hunter2");
        for elsewhere in [
            Place { kind: "secret", id: "b" },
            Place { kind: "config", id: "a" },
            Place { kind: "secreta", id: "" },
        ] {
            assert!(ring.open(elsewhere, &sealed).is_err());
        }
    }

    #[test]
    fn every_altered_byte_is_noticed() {
        let ring = KeyRing::generate().unwrap();
        let sealed = ring.seal(HERE, b"hunter2").unwrap();
        for position in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[position] ^= 1;
            assert!(ring.open(HERE, &altered).is_err(), "byte {position}");
            assert!(ring.open(HERE, &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn unknown_version_and_key_say_so() {
        let ring = KeyRing::generate().unwrap();
        let mut sealed = ring.seal(HERE, b"x").unwrap();
        let other = KeyRing::generate().unwrap().open(HERE, &sealed).unwrap_err();
        assert!(other.to_string().contains("unknown key"), "{other}");
        sealed[3] = 9;
        let version = ring.open(HERE, &sealed).unwrap_err();
        assert!(version.to_string().contains("version"), "{version}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let ring = KeyRing::generate().unwrap();
            prop_assert!(ring.open(HERE, &bytes).is_err());
        }
    }
}
