//! The keys that seal the store, as the port that the store asks for.

use brig_pki::seal::{KeyRing, Place};
use brig_store::{BlindName, SealError, Sealer};
use brig_types::secret::SecretBytes;

/// Seals with the data keys of this manager.
pub(crate) struct DataKeys(pub(crate) KeyRing);

impl Sealer for DataKeys {
    fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(Place { kind, id }, plain).map_err(Into::into)
    }

    fn open(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        self.0
            .open(Place { kind, id }, sealed)
            .map(|plain| SecretBytes::new(plain.to_vec()))
            .map_err(Into::into)
    }

    fn blind(&self, kind: &str, name: &str) -> BlindName {
        self.0.blind_name(kind, name)
    }
}
