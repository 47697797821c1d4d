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

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use brig_types::secret::SecretBytes;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{PkiError, hash, random};

/// Size of data keys and key-encryption keys in bytes.
pub const KEY_LEN: usize = 32;

const MAGIC: [u8; 4] = *b"BRG\x01";
const KEY_ID_LEN: usize = 8;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + KEY_ID_LEN;
/// Bytes that sealing adds to a value.
pub const OVERHEAD: usize = HEADER_LEN + NONCE_LEN + TAG_LEN;
/// Keys that one ring may hold: the current one and those that old values still need.
const MAX_RING: usize = 16;

/// Where a sealed value lives; it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The kind of object, or of record.
    pub kind: &'a str,
    /// The object's id.
    pub id: &'a str,
}

/// The id of a key: which key a value was sealed with, and nothing about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_LEN]);

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

const OBJECT_PURPOSE: &[u8] = b"brig object encryption v1";
const NAME_PURPOSE: &[u8] = b"brig blind name v1";
const WRAP_PURPOSE: &[u8] = b"brig key wrapping v1";
const RING_PLACE: Place<'static> = Place { kind: "keyring", id: "" };

/// The data keys of a store: one seals, all of them open.
pub struct KeyRing {
    current: AeadKey,
    older: Vec<AeadKey>,
    name_key: Zeroizing<[u8; KEY_LEN]>,
}

impl KeyRing {
    /// A ring with one new random key.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        Self::from_raw(Zeroizing::new(random::bytes()?), Vec::new())
    }

    fn from_raw(
        current: Zeroizing<[u8; KEY_LEN]>,
        older: Vec<Zeroizing<[u8; KEY_LEN]>>,
    ) -> Result<Self, PkiError> {
        let name_key = hash::hkdf_sha256(current.as_ref(), NAME_PURPOSE)?;
        let older = older
            .into_iter()
            .map(|raw| AeadKey::new(raw, OBJECT_PURPOSE))
            .collect::<Result<_, _>>()?;
        Ok(Self { current: AeadKey::new(current, OBJECT_PURPOSE)?, older, name_key })
    }

    /// A ring whose current key is new and which still opens what this one opens.
    ///
    /// # Errors
    /// [`PkiError::Random`]; [`PkiError::Sealed`] when too many old keys are still in use.
    pub fn rotated(&self) -> Result<Self, PkiError> {
        let older: Vec<_> =
            std::iter::once(&self.current).chain(&self.older).map(|key| key.raw.clone()).collect();
        if older.len() >= MAX_RING {
            return Err(PkiError::Sealed { reason: "too many data keys are in use" });
        }
        Self::from_raw(Zeroizing::new(random::bytes()?), older)
    }

    /// A ring with the current key alone, once nothing needs the older ones.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn without_older(&self) -> Result<Self, PkiError> {
        Self::from_raw(self.current.raw.clone(), Vec::new())
    }

    /// The key that seals.
    #[must_use]
    pub const fn current_id(&self) -> KeyId {
        self.current.id
    }

    /// Seals a value for one place.
    ///
    /// # Errors
    /// [`PkiError::Random`], [`PkiError::Sealed`].
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.current.seal(place, plain)
    }

    /// Opens a value sealed for this place with any key of the ring.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] when it was altered, moved, or sealed with a key that is not here.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let parts = take_apart(sealed)?;
        std::iter::once(&self.current)
            .chain(&self.older)
            .find(|key| key.id == parts.key)
            .ok_or(PkiError::Sealed { reason: "unknown key" })?
            .open(place, &parts)
    }

    /// Whether a value was sealed with a key that is no longer the current one.
    #[must_use]
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        take_apart(sealed).is_ok_and(|parts| parts.key != self.current.id)
    }

    /// A keyed hash of a name: equal names are found, nobody without the key can read or guess
    /// them.
    #[must_use]
    pub fn blind_name(&self, kind: &str, name: &str) -> [u8; hash::SHA256_LEN] {
        let length = (kind.len() as u64).to_be_bytes();
        hash::hmac_sha256(self.name_key.as_ref(), &[&length, kind.as_bytes(), name.as_bytes()])
    }

    /// A ring that seals as this one does and opens what another one sealed as well.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] when these are too many keys.
    pub fn including(&self, other: &Self) -> Result<Self, PkiError> {
        let older: Vec<_> = self
            .older
            .iter()
            .chain(std::iter::once(&other.current))
            .chain(&other.older)
            .filter(|key| key.id != self.current.id)
            .map(|key| key.raw.clone())
            .collect();
        if older.len() >= MAX_RING {
            return Err(PkiError::Sealed { reason: "too many data keys are in use" });
        }
        Self::from_raw(self.current.raw.clone(), older)
    }

    /// All keys of the ring, for another manager of the same cluster.
    #[must_use]
    pub fn to_secret(&self) -> SecretBytes {
        let keys = std::iter::once(&self.current).chain(&self.older);
        SecretBytes::new(keys.flat_map(|key| key.raw.iter().copied()).collect())
    }

    /// Reads what [`KeyRing::to_secret`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] when these are no keys.
    pub fn from_secret(secret: &SecretBytes) -> Result<Self, PkiError> {
        const BROKEN: PkiError = PkiError::Sealed { reason: "not a key ring" };
        let (keys, rest) = secret.expose_secret().as_chunks::<KEY_LEN>();
        if !rest.is_empty() || keys.len() > MAX_RING {
            return Err(BROKEN);
        }
        let mut keys = keys.iter().map(|key| Zeroizing::new(*key));
        let current = keys.next().ok_or(BROKEN)?;
        Self::from_raw(current, keys.collect())
    }

    /// Wraps all keys of the ring with a key-encryption key.
    ///
    /// # Errors
    /// [`PkiError::Random`], [`PkiError::Sealed`].
    pub fn wrap(&self, kek: &KeyEncryptionKey) -> Result<Vec<u8>, PkiError> {
        let mut plain = Zeroizing::new(Vec::with_capacity((1 + self.older.len()) * KEY_LEN));
        for key in std::iter::once(&self.current).chain(&self.older) {
            plain.extend_from_slice(key.raw.as_ref());
        }
        kek.cipher()?.seal(RING_PLACE, &plain)
    }

    /// Reads what [`KeyRing::wrap`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] for another key or altered bytes.
    pub fn unwrap(kek: &KeyEncryptionKey, wrapped: &[u8]) -> Result<Self, PkiError> {
        let parts = take_apart(wrapped)?;
        let cipher = kek.cipher()?;
        if parts.key != cipher.id {
            return Err(PkiError::Sealed { reason: "another key-encryption key is needed" });
        }
        let plain = cipher.open(RING_PLACE, &parts)?;
        let (keys, rest) = plain.as_chunks::<KEY_LEN>();
        if !rest.is_empty() || keys.len() > MAX_RING {
            return Err(PkiError::Sealed { reason: "not a key ring" });
        }
        let mut keys = keys.iter().map(|key| Zeroizing::new(*key));
        let current = keys.next().ok_or(PkiError::Sealed { reason: "not a key ring" })?;
        Self::from_raw(current, keys.collect())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", 1 + self.older.len())
    }
}

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

    fn cipher(&self) -> Result<AeadKey, PkiError> {
        AeadKey::new(Zeroizing::new(self.0), WRAP_PURPOSE)
    }
}

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

    #[test]
    fn a_rotated_ring_opens_old_values() {
        let old = KeyRing::generate().unwrap();
        let sealed = old.seal(HERE, b"x").unwrap();
        let new = old.rotated().unwrap();
        assert!(new.is_outdated(&sealed));
        assert_eq!(new.open(HERE, &sealed).unwrap().as_slice(), b"x");
        let fresh = new.seal(HERE, b"x").unwrap();
        assert!(!new.is_outdated(&fresh));
        assert!(old.open(HERE, &fresh).is_err());
        let only = new.without_older().unwrap();
        assert!(only.open(HERE, &sealed).is_err());
        assert!(only.open(HERE, &fresh).is_ok());
    }

    #[test]
    fn wrapping() {
        let ring = KeyRing::generate().unwrap().rotated().unwrap();
        let sealed = ring.seal(HERE, b"x").unwrap();
        let kek = KeyEncryptionKey::generate().unwrap();
        let mut wrapped = ring.wrap(&kek).unwrap();
        let read = KeyRing::unwrap(&kek, &wrapped).unwrap();
        assert_eq!(read.open(HERE, &sealed).unwrap().as_slice(), b"x");
        assert_eq!(read.older.len(), 1);
        assert_eq!(read.blind_name("secret", "n"), ring.blind_name("secret", "n"));
        assert!(KeyRing::unwrap(&KeyEncryptionKey::generate().unwrap(), &wrapped).is_err());
        let last = wrapped.len() - 1;
        wrapped[last] ^= 1;
        assert!(KeyRing::unwrap(&kek, &wrapped).is_err());
    }

    #[test]
    fn blind_names_depend_on_key_kind_and_name() {
        let ring = KeyRing::generate().unwrap();
        let blind = ring.blind_name("secret", "db");
        assert_eq!(blind, ring.blind_name("secret", "db"));
        assert_ne!(blind, ring.blind_name("secret", "dc"));
        assert_ne!(blind, ring.blind_name("config", "db"));
        assert_ne!(blind, ring.blind_name("secretd", "b"));
        assert_ne!(blind, KeyRing::generate().unwrap().blind_name("secret", "db"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let ring = KeyRing::generate().unwrap();
            prop_assert!(ring.open(HERE, &bytes).is_err());
        }
    }
}
