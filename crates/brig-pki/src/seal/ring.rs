//! The data keys of a store, together, and how they become others.
//!
//! A ring is kept wrapped (sealed by a key-encryption key). What is wrapped is
//!
//! | bytes | content |
//! | --- | --- |
//! | 1 | the format, 2 |
//! | 8 | how often the sealing key was changed, big endian |
//! | 1 | whether the second key waits to become the sealing one |
//! | 32 | the key of names |
//! | 32 each | the keys; the first one seals |
//!
//! Format 1 was the keys alone, and the key of names was derived from the first. It is read still.
//! Names have a key of their own so that another sealing key does not change their hashes.

use std::fmt;

use brig_types::secret::SecretBytes;
use zeroize::Zeroizing;

use super::{AeadKey, KEY_LEN, KeyEncryptionKey, KeyId, Place, take_apart};
use crate::{PkiError, hash, random};

/// Keys that one ring may hold: the current one and those that old values still need.
const MAX_RING: usize = 16;
const OBJECT_PURPOSE: &[u8] = b"brig object encryption v1";
const NAME_PURPOSE: &[u8] = b"brig blind name v1";
const RING_PLACE: Place<'static> = Place { kind: "keyring", id: "" };
const FORMAT: u8 = 2;
const NOT_A_RING: PkiError = PkiError::Sealed { reason: "not a key ring" };

type RawKey = Zeroizing<[u8; KEY_LEN]>;

/// The data keys of a store: one seals, all of them open.
pub struct KeyRing {
    current: AeadKey,
    /// Opens already, and seals once everybody who opens has it.
    next: Option<AeadKey>,
    older: Vec<AeadKey>,
    name_key: RawKey,
    generation: u64,
}

impl KeyRing {
    /// A ring with one new random key.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self {
            current: new_key()?,
            next: None,
            older: Vec::new(),
            name_key: Zeroizing::new(random::bytes()?),
            generation: 0,
        })
    }

    /// How often the sealing key was changed.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// A ring that also opens what a new random key seals; the same key goes on sealing. If there
    /// is such a key already, the ring is the same.
    ///
    /// # Errors
    /// [`PkiError::Random`]; [`PkiError::Sealed`] when too many old keys are still in use.
    pub fn with_next(&self) -> Result<Self, PkiError> {
        if self.older.len() + 2 > MAX_RING {
            return Err(PkiError::Sealed { reason: "too many data keys are in use" });
        }
        let mut ring = self.copy()?;
        if ring.next.is_none() {
            ring.next = Some(new_key()?);
        }
        Ok(ring)
    }

    /// A ring whose waiting key seals, as generation `generation`; the same ring if none waits.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn switched(&self, generation: u64) -> Result<Self, PkiError> {
        let mut ring = self.copy()?;
        if let Some(next) = ring.next.take() {
            let before = std::mem::replace(&mut ring.current, next);
            ring.older.insert(0, before);
            ring.generation = generation;
        }
        Ok(ring)
    }

    /// A ring whose current key is new and which still opens what this one opens.
    ///
    /// # Errors
    /// As [`KeyRing::with_next`].
    pub fn rotated(&self) -> Result<Self, PkiError> {
        self.with_next()?.switched(self.generation.saturating_add(1))
    }

    /// A ring without the keys that only older values need, once there are none.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn without_older(&self) -> Result<Self, PkiError> {
        let mut ring = self.copy()?;
        ring.older.clear();
        Ok(ring)
    }

    /// The key that seals.
    #[must_use]
    pub const fn current_id(&self) -> KeyId {
        self.current.id
    }

    /// Keys that opened older values.
    pub fn older_ids(&self) -> impl Iterator<Item = KeyId> {
        self.older.iter().map(|key| key.id)
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
        self.keys()
            .find(|key| key.id == parts.key)
            .ok_or(PkiError::Sealed { reason: "unknown key" })?
            .open(place, &parts)
    }

    /// Whether a value was sealed with a key that is not the current one.
    #[must_use]
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        take_apart(sealed).is_ok_and(|parts| parts.key != self.current.id)
    }

    /// A keyed hash of a name: equal names are found, nobody without the key can read or guess
    /// them. It stays the same when the sealing key changes.
    #[must_use]
    pub fn blind_name(&self, kind: &str, name: &str) -> [u8; hash::SHA256_LEN] {
        let length = (kind.len() as u64).to_be_bytes();
        hash::hmac_sha256(self.name_key.as_ref(), &[&length, kind.as_bytes(), name.as_bytes()])
    }

    /// All keys of the ring as they are, for another manager of the same cluster.
    #[must_use]
    pub fn export(&self) -> SecretBytes {
        SecretBytes::new(self.plain().to_vec())
    }

    /// Reads what [`KeyRing::export`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] for anything else.
    pub fn import(plain: &[u8]) -> Result<Self, PkiError> {
        let keys = |bytes: &[u8]| {
            let (keys, rest) = bytes.as_chunks::<KEY_LEN>();
            let fits = rest.is_empty() && !keys.is_empty() && keys.len() <= MAX_RING;
            fits.then(|| keys.iter().map(|key| Zeroizing::new(*key)).collect::<Vec<RawKey>>())
                .ok_or(NOT_A_RING)
        };
        if plain.len().is_multiple_of(KEY_LEN) {
            let keys = keys(plain)?;
            let name_key = match keys.first() {
                Some(first) => hash::hkdf_sha256(first.as_ref(), NAME_PURPOSE)?,
                None => return Err(NOT_A_RING),
            };
            return Self::assemble(keys, false, name_key, 0);
        }
        let (head, rest) = plain.split_first_chunk::<10>().ok_or(NOT_A_RING)?;
        let [FORMAT, generation @ .., waits @ (0 | 1)] = *head else {
            return Err(NOT_A_RING);
        };
        let (name_key, rest) = rest.split_first_chunk::<KEY_LEN>().ok_or(NOT_A_RING)?;
        Self::assemble(
            keys(rest)?,
            waits == 1,
            Zeroizing::new(*name_key),
            u64::from_be_bytes(generation),
        )
    }

    /// Wraps all keys of the ring with a key-encryption key.
    ///
    /// # Errors
    /// [`PkiError::Random`], [`PkiError::Sealed`].
    pub fn wrap(&self, kek: &KeyEncryptionKey) -> Result<Vec<u8>, PkiError> {
        kek.seal(RING_PLACE, &self.plain())
    }

    /// Reads what [`KeyRing::wrap`] wrote.
    ///
    /// # Errors
    /// [`PkiError::WrongUnlockKey`] for another key, [`PkiError::Sealed`] for altered bytes.
    pub fn unwrap(kek: &KeyEncryptionKey, wrapped: &[u8]) -> Result<Self, PkiError> {
        Self::import(&kek.open(RING_PLACE, wrapped)?)
    }

    fn keys(&self) -> impl Iterator<Item = &AeadKey> {
        std::iter::once(&self.current).chain(&self.next).chain(&self.older)
    }

    fn plain(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(10 + KEY_LEN * (2 + MAX_RING)));
        plain.push(FORMAT);
        plain.extend_from_slice(&self.generation.to_be_bytes());
        plain.push(u8::from(self.next.is_some()));
        plain.extend_from_slice(self.name_key.as_ref());
        for key in self.keys() {
            plain.extend_from_slice(key.raw.as_ref());
        }
        plain
    }

    fn assemble(
        keys: Vec<RawKey>,
        waits: bool,
        name_key: RawKey,
        generation: u64,
    ) -> Result<Self, PkiError> {
        let mut keys = keys.into_iter().map(|raw| AeadKey::new(raw, OBJECT_PURPOSE));
        let current = keys.next().ok_or(NOT_A_RING)??;
        let next = if waits { Some(keys.next().ok_or(NOT_A_RING)??) } else { None };
        Ok(Self { current, next, older: keys.collect::<Result<_, _>>()?, name_key, generation })
    }

    fn copy(&self) -> Result<Self, PkiError> {
        Self::import(&self.plain())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.keys().count())
    }
}

fn new_key() -> Result<AeadKey, PkiError> {
    AeadKey::new(Zeroizing::new(random::bytes()?), OBJECT_PURPOSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'static> = Place { kind: "secret", id: "a" };

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
        assert_eq!((old.generation(), new.generation(), only.generation()), (0, 1, 1));
        let name = |ring: &KeyRing| ring.blind_name("secret", "n");
        assert_eq!((name(&new), name(&only)), (name(&old), name(&old)), "names are found still");
    }

    #[test]
    fn a_key_opens_before_it_seals() {
        let old = KeyRing::generate().unwrap();
        let waiting = old.with_next().unwrap();
        let early = waiting.seal(HERE, b"x").unwrap();
        assert!(old.open(HERE, &early).is_ok(), "the same key seals");
        let again = waiting.with_next().unwrap();
        let new = waiting.switched(7).unwrap();
        let late = new.seal(HERE, b"y").unwrap();
        assert!(waiting.open(HERE, &late).is_ok() && again.open(HERE, &late).is_ok());
        assert!(old.open(HERE, &late).is_err());
        assert_eq!(new.generation(), 7);
        assert_eq!(new.older_ids().collect::<Vec<_>>(), [old.current_id()]);
        assert_eq!(new.switched(9).unwrap().generation(), 7, "nothing waits any more");
        assert!(new.without_older().unwrap().open(HERE, &early).is_err());
    }

    #[test]
    fn rings_end() {
        let mut ring = KeyRing::generate().unwrap();
        for _ in 1..MAX_RING {
            ring = ring.rotated().unwrap();
        }
        assert!(ring.rotated().is_err());
        assert!(KeyRing::import(ring.export().expose_secret()).is_ok());
        assert!(ring.without_older().unwrap().rotated().is_ok());
    }

    #[test]
    fn the_first_format_is_read() {
        let (first, second): ([u8; KEY_LEN], [u8; KEY_LEN]) = ([1; KEY_LEN], [2; KEY_LEN]);
        let ring = KeyRing::import(&[first, second].concat()).unwrap();
        assert_eq!(ring.older.len(), 1);
        let derived = hash::hkdf_sha256(&first, NAME_PURPOSE).unwrap();
        assert_eq!(ring.name_key.as_ref(), derived.as_ref());
        let again = KeyRing::import(ring.export().expose_secret()).unwrap();
        assert_eq!(again.blind_name("k", "n"), ring.blind_name("k", "n"));
        for bad in [&[][..], &[2; 10], &[2; 42], &[9; 74], &[0; 33]] {
            assert!(KeyRing::import(bad).is_err(), "{}", bad.len());
        }
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
        let other = KeyRing::unwrap(&KeyEncryptionKey::generate().unwrap(), &wrapped);
        assert!(matches!(other, Err(PkiError::WrongUnlockKey)));
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
}
