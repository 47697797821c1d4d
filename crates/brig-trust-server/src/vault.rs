//! The server's private keys: made here, sealed before they are stored, opened to sign.
//!
//! They are sealed with a data key that lies wrapped beside the database; what unwraps it is a
//! file of its own, which may be kept elsewhere. Whoever has the database alone can sign nothing.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use brig_files::Durability;
use brig_pki::PkiError;
use brig_pki::hash::hex;
use brig_pki::seal::{KeyEncryptionKey, KeyRing, Place};
use brig_pki::signing::{Curve, SigningKey};
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, Key, KeyId};
use brig_types::secret::SecretBytes;
use time::OffsetDateTime;

use crate::storage::StoredKey;

const RING: &str = "seal.ring";
const RING_MODE: u32 = 0o600;
const KEY: &str = "seal.key";
/// Bytes that are read of either file.
const MAX_FILE: u64 = 64 << 10;
/// Permissions of others than the owner.
const OTHERS: u32 = 0o077;
const SEALED: &str = "trust-key";

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file that unwraps the others is not there.
    #[error(
        "{} is missing: without it the server's keys in {} cannot be opened. Restore it, or name it with --seal-key",
        key.display(), ring.display()
    )]
    NoKey {
        /// The missing file.
        key: PathBuf,
        /// The wrapped data key.
        ring: PathBuf,
    },
    /// Others than its owner can read the key.
    #[error("{} can be read by others (mode {mode:04o}): chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key has another form.
    #[error("{} does not hold a sealing key: 64 hexadecimal digits", .0.display())]
    Malformed(PathBuf),
    /// What is sealed does not open.
    #[error("cannot open what is sealed with {}", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PkiError,
    },
}

/// Seals and opens private keys.
#[derive(Debug)]
pub struct Vault {
    /// `None` where the storage seals everything itself.
    ring: Option<KeyRing>,
}

/// A key of the server, ready to sign.
#[derive(Debug)]
pub(crate) struct ServerKey {
    pub(crate) id: KeyId,
    pub(crate) public: Key,
    pub(crate) private: SigningKey,
}

impl Vault {
    /// Opens the files, or makes them where there are none. Blocks.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open(folder: &Path, key_file: Option<&Path>) -> Result<Self, VaultError> {
        let ring_file = folder.join(RING);
        let key_file = key_file.map_or_else(|| folder.join(KEY), Path::to_owned);
        let wrapped = read(&ring_file, false)?;
        let kek = match (read(&key_file, true)?, &wrapped) {
            (Some(text), _) => parse(text.expose_secret())
                .ok_or_else(|| VaultError::Malformed(key_file.clone()))?,
            (None, Some(_)) => return Err(VaultError::NoKey { key: key_file, ring: ring_file }),
            (None, None) => {
                let kek = KeyEncryptionKey::generate().map_err(seal(&key_file))?;
                let text = SecretBytes::new(hex(kek.expose_secret()).into_bytes());
                write_new(&key_file, &text)?;
                kek
            }
        };
        let ring = match wrapped {
            Some(wrapped) => {
                KeyRing::unwrap(&kek, wrapped.expose_secret()).map_err(seal(&key_file))?
            }
            None => {
                let ring = KeyRing::generate().map_err(seal(&ring_file))?;
                let wrapped = ring.wrap(&kek).map_err(seal(&ring_file))?;
                write_new(&ring_file, &SecretBytes::new(wrapped))?;
                ring
            }
        };
        Ok(Self { ring: Some(ring) })
    }

    /// For a storage that seals everything itself.
    #[must_use]
    pub const fn of_storage() -> Self {
        Self { ring: None }
    }

    /// A new key.
    pub(crate) fn make(
        &self,
        gun: &Gun,
        role: ServerRole,
        now: OffsetDateTime,
    ) -> Result<(StoredKey, ServerKey), PkiError> {
        let private = SigningKey::generate(Curve::P256)?;
        let public = Key::of(&private)?;
        let id = public.id();
        let plain = private.to_pkcs8()?;
        let place = place(gun, role, &id);
        let sealed = match &self.ring {
            Some(ring) => ring.seal(Place { kind: SEALED, id: &place }, plain.expose_secret())?,
            None => plain.expose_secret().to_vec(),
        };
        let stored = StoredKey { role, id: id.clone(), sealed, made: now, named: false };
        Ok((stored, ServerKey { id, public, private }))
    }

    /// Opens a key that was stored for this repository.
    pub(crate) fn unseal(&self, gun: &Gun, key: &StoredKey) -> Result<ServerKey, PkiError> {
        let private = SigningKey::from_der(&self.plain(gun, key)?)?;
        let public = Key::of(&private)?;
        Ok(ServerKey { id: key.id.clone(), public, private })
    }

    /// The private key as it is, for a storage that seals everything itself.
    pub(crate) fn plain(&self, gun: &Gun, key: &StoredKey) -> Result<SecretBytes, PkiError> {
        let Some(ring) = &self.ring else { return Ok(SecretBytes::new(key.sealed.clone())) };
        let place = place(gun, key.role, &key.id);
        let plain = ring.open(Place { kind: SEALED, id: &place }, &key.sealed)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }
}

/// No name has a blank in it.
fn place(gun: &Gun, role: ServerRole, id: &KeyId) -> String {
    format!("{gun} {role} {id}")
}

fn seal(path: &Path) -> impl Fn(PkiError) -> VaultError + '_ {
    |source| VaultError::Seal { path: path.to_owned(), source }
}

fn parse(text: &[u8]) -> Option<KeyEncryptionKey> {
    let text = text.trim_ascii();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    let bytes = SecretBytes::new(pairs.collect::<Option<Vec<u8>>>()?);
    KeyEncryptionKey::from_bytes(bytes.expose_secret()).ok()
}

fn read(path: &Path, secret: bool) -> Result<Option<SecretBytes>, VaultError> {
    let failed = |source| VaultError::File { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if secret && mode & OTHERS != 0 {
        return Err(VaultError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(SecretBytes::new(content)))
}

/// Complete, or not there.
fn write_new(path: &Path, content: &SecretBytes) -> Result<(), VaultError> {
    let failed = |source| VaultError::File { action: "write", path: path.to_owned(), source };
    brig_files::replace(path, content.expose_secret(), RING_MODE, Durability::Synced)
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_open_where_they_belong_only() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(folder.path(), None).unwrap();
        let (a, b) = (Gun::parse("r/a").unwrap(), Gun::parse("r/b").unwrap());
        let now = OffsetDateTime::now_utc();
        let (stored, key) = vault.make(&a, ServerRole::Snapshot, now).unwrap();
        // Opened again from disk.
        let vault = Vault::open(folder.path(), None).unwrap();
        assert_eq!(vault.unseal(&a, &stored).unwrap().public.id(), key.id);
        assert!(vault.unseal(&b, &stored).is_err());
        let moved = StoredKey { role: ServerRole::Timestamp, ..stored.clone() };
        assert!(vault.unseal(&a, &moved).is_err());
        let other = tempfile::tempdir().unwrap();
        assert!(Vault::open(other.path(), None).unwrap().unseal(&a, &stored).is_err());
    }

    #[test]
    fn the_sealing_key_is_private_and_not_made_twice() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = elsewhere.path().join("key");
        Vault::open(folder.path(), Some(&key)).unwrap();
        assert!(!folder.path().join(KEY).exists());
        let mode = std::fs::metadata(&key).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        assert!(matches!(Vault::open(folder.path(), None), Err(VaultError::NoKey { .. })));
        let other = tempfile::tempdir().unwrap();
        Vault::open(other.path(), None).unwrap();
        let wrong = other.path().join(KEY);
        assert!(matches!(Vault::open(folder.path(), Some(&wrong)), Err(VaultError::Seal { .. })));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let opened = Vault::open(folder.path(), Some(&key));
        assert!(matches!(opened, Err(VaultError::Exposed { .. })));
        std::fs::write(&wrong, "short").unwrap();
        let opened = Vault::open(other.path(), None);
        assert!(matches!(opened, Err(VaultError::Malformed(_))));
    }
}
