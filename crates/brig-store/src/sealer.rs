//! The port to the keys.

use std::error::Error;

use brig_types::secret::SecretBytes;

/// Why a value could not be sealed or opened. Never contains the value.
pub type SealError = Box<dyn Error + Send + Sync>;

/// A keyed hash of a name.
pub type BlindName = [u8; 32];

/// Which key sealed a value; says nothing about the key.
pub type KeyTag = [u8; 8];

/// Encrypts values for the place they live at and hides names.
pub trait Sealer: Send + Sync {
    /// Encrypts and authenticates `plain` for the object `kind`/`id`.
    ///
    /// # Errors
    /// When no key is there or no randomness.
    fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens what was sealed for exactly this place.
    ///
    /// # Errors
    /// When the value was altered, moved, or sealed with another key.
    fn open(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<SecretBytes, SealError>;

    /// The key that sealed a value, if it can be told.
    fn key_of(&self, sealed: &[u8]) -> Option<KeyTag> {
        let _ = sealed;
        None
    }

    /// Whether another key sealed a value than the one that seals now.
    fn is_outdated(&self, sealed: &[u8]) -> bool {
        let _ = sealed;
        false
    }

    /// Hides a name; the same name of the same kind gives the same hash, whichever key
    /// seals.
    fn blind(&self, kind: &str, name: &str) -> BlindName;
}
