//! A node's certificate files, laid out as SwarmKit lays them out.
//!
//! | file | mode | content |
//! | --- | --- | --- |
//! | `swarm-root-ca.crt` | 0644 | the trusted roots |
//! | `swarm-node.crt` | 0644 | the node's certificate chain, leaf first |
//! | `swarm-node.key` | 0600 | PKCS#8 key with PEM headers |
//! | `.swarm-node.crt` | 0644 | a new chain whose key is being written |
//!
//! A new chain is written beside the old one, then the key replaces the old key, then the chain
//! moves into place. A crash leaves either the old pair, or the new key with the new chain still
//! beside it, which the next start promotes.
//!
//! Headers of the key: `kek-version` (SwarmKit's); `brig-dek`, the wrapped data keys of what the
//! node remembers; on managers `brig-cluster-dek`, those of the cluster's store; and `brig-kek`,
//! the key that wraps them. With autolock the latter is the unlock key and absent, and the node's
//! key is sealed with it: `BRIG ENCRYPTED PRIVATE KEY`.
//!
//! Nobody is locked out by a key that nobody has seen: until the unlock key was read for the first
//! time, what it replaced still opens the file. That is the same `brig-kek` beside a locked key when
//! autolock was off before, else `brig-previous-kek`: for each unlock key since the last one that was
//! read, the next one, wrapped by it.
//!
//! Whenever the key file is replaced, the old one is overwritten before its blocks are given back:
//! it may hold the key that autolock takes off the disk. It gets a second name first, so that a
//! crash does not leave it behind.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_types::secret::SecretBytes;
use zeroize::Zeroizing;

use crate::csr::NodeKey;
use crate::identity::CertInfo;
use crate::seal::{KeyEncryptionKey, KeyRing, Place};
use crate::{PkiError, files, x509};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CHAIN_FILE: &str = "swarm-node.crt";
const NEW_CHAIN_FILE: &str = ".swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
const PLAIN_TAG: &str = "PRIVATE KEY";
const LOCKED_TAG: &str = "BRIG ENCRYPTED PRIVATE KEY";
/// Docker's own; its cipher is not spoken here.
const FOREIGN_LOCKED_TAG: &str = "ENCRYPTED PRIVATE KEY";
const NODE_KEY_PLACE: Place<'static> = Place { kind: "node-key", id: "" };
const KEK_VERSION: &str = "kek-version";
const WRAPPED_KEYS: &str = "brig-dek";
const WRAPPED_CLUSTER_KEYS: &str = "brig-cluster-dek";
const WRAPPING_KEY: &str = "brig-kek";
const PREVIOUS_KEYS: &str = "brig-previous-kek";
const PREVIOUS_PLACE: Place<'static> = Place { kind: "next-unlock-key", id: "" };
/// Unlock keys that nobody read and that are still led to.
const MAX_PREVIOUS: usize = 16;
const PUBLIC_MODE: u32 = 0o644;
const PRIVATE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o755;

/// What opens a locked file besides its unlock key, until that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Escrow {
    /// Nothing.
    #[default]
    None,
    /// The unlock key itself, beside what it protects: autolock was off before.
    Beside,
    /// Unlock keys before, from the oldest on; each record has the next key, sealed by the one
    /// before.
    Previous(Vec<Vec<u8>>),
}

/// The keys of what a node stores, as the key file carries them.
#[derive(Clone)]
pub struct StoreKeys {
    /// Wraps the data keys. On disk only while autolock is off.
    pub kek: KeyEncryptionKey,
    /// Whether `kek` is the unlock key, which is not on disk.
    pub locked: bool,
    /// What opens a locked file besides the unlock key.
    pub escrow: Escrow,
    /// Data keys of what the node remembers for itself.
    pub node: Arc<KeyRing>,
    /// Data keys of the cluster's store, on managers.
    pub cluster: Option<Arc<KeyRing>>,
}

impl StoreKeys {
    /// New keys for a node that is no manager.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self {
            kek: KeyEncryptionKey::generate()?,
            locked: false,
            escrow: Escrow::None,
            node: Arc::new(KeyRing::generate()?),
            cluster: None,
        })
    }

    /// New keys for the manager of a new store.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate_for_manager() -> Result<Self, PkiError> {
        Ok(Self { cluster: Some(Arc::new(KeyRing::generate()?)), ..Self::generate()? })
    }

    /// The same keys under an unlock key, or without one under a key on the disk. While the unlock
    /// key was not `shown` to anybody, what opened the file before still does.
    ///
    /// # Errors
    /// [`PkiError::Random`], [`PkiError::Sealed`].
    pub fn rewrapped(
        &self,
        unlock: Option<KeyEncryptionKey>,
        shown: bool,
    ) -> Result<Self, PkiError> {
        let Some(kek) = unlock else {
            let kek = KeyEncryptionKey::generate()?;
            return Ok(Self { kek, locked: false, escrow: Escrow::None, ..self.clone() });
        };
        let escrow = match (&self.escrow, shown) {
            (_, true) => Escrow::None,
            (escrow, false) if self.locked && self.kek == kek => escrow.clone(),
            (Escrow::Beside, false) => Escrow::Beside,
            _ if !self.locked => Escrow::Beside,
            (escrow, false) => {
                let mut records = match escrow {
                    Escrow::Previous(records) if records.len() < MAX_PREVIOUS => records.clone(),
                    _ => Vec::new(),
                };
                records.push(self.kek.seal(PREVIOUS_PLACE, kek.expose_secret())?);
                Escrow::Previous(records)
            }
        };
        Ok(Self { kek, locked: true, escrow, ..self.clone() })
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKeys(..)")
    }
}

/// Content of the key file.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The node's key.
    pub node_key: Arc<NodeKey>,
    /// Store version of the cluster object that delivered the key-encryption key; 0 without one.
    pub kek_version: u64,
    /// Absent in files of other implementations.
    pub store_keys: Option<StoreKeys>,
    /// Headers of other implementations, kept as they are.
    other: BTreeMap<String, String>,
}

impl KeyFile {
    /// A key file with nothing but a key.
    #[must_use]
    pub fn new(node_key: NodeKey, store_keys: Option<StoreKeys>) -> Self {
        let node_key = Arc::new(node_key);
        Self { node_key, kek_version: 0, store_keys, other: BTreeMap::new() }
    }

    /// The same headers around another key, for a renewed certificate.
    #[must_use]
    pub fn with_node_key(&self, node_key: NodeKey) -> Self {
        Self { node_key: Arc::new(node_key), ..self.clone() }
    }

    /// Reads the file's text, with the unlock key if it is needed.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::PrivateKey`]; [`PkiError::Locked`] when the unlock key is
    /// needed, [`PkiError::WrongUnlockKey`] when it is another one.
    pub fn parse(text: &[u8], unlock: Option<&KeyEncryptionKey>) -> Result<Self, PkiError> {
        const BROKEN: PkiError = PkiError::Pem { expected: "node key" };
        let block = pem::parse(text).map_err(|_| BROKEN)?;
        let mut other: BTreeMap<String, String> = block
            .headers()
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let locked = match block.tag() {
            PLAIN_TAG => false,
            LOCKED_TAG => true,
            FOREIGN_LOCKED_TAG => return Err(PkiError::Locked),
            _ => return Err(BROKEN),
        };
        let kek_version = match other.remove(KEK_VERSION) {
            Some(text) => text.parse().map_err(|_| BROKEN)?,
            None => 0,
        };
        let mut decode = |name: &str| {
            let text = other.remove(name).map(Zeroizing::new);
            text.map(|text| STANDARD.decode(text.as_str()).map(Zeroizing::new))
                .transpose()
                .map_err(|_| BROKEN)
        };
        let beside =
            decode(WRAPPING_KEY)?.map(|kek| KeyEncryptionKey::from_bytes(&kek)).transpose()?;
        let (wrapped, wrapped_cluster) = (decode(WRAPPED_KEYS)?, decode(WRAPPED_CLUSTER_KEYS)?);
        let previous = match other.remove(PREVIOUS_KEYS) {
            Some(text) => text
                .split(',')
                .map(|record| STANDARD.decode(record).map_err(|_| BROKEN))
                .collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        let escrow = match (locked, &beside) {
            (false, _) => Escrow::None,
            (true, Some(_)) => Escrow::Beside,
            (true, None) if previous.is_empty() => Escrow::None,
            (true, None) => Escrow::Previous(previous.clone()),
        };
        let kek = match (locked, beside) {
            (true, None) => Some(follow(unlock.ok_or(PkiError::Locked)?, &previous)?),
            (_, beside) => beside,
        };
        let content = Zeroizing::new(block.into_contents());
        let content = match kek.as_ref().filter(|_| locked) {
            Some(kek) => kek.open(NODE_KEY_PLACE, &content)?,
            None => content,
        };
        let node_key = Arc::new(NodeKey::from_der(&SecretBytes::new(content.to_vec()))?);
        let store_keys = match (kek, wrapped) {
            (Some(kek), Some(wrapped)) => Some(StoreKeys {
                node: Arc::new(KeyRing::unwrap(&kek, &wrapped)?),
                cluster: wrapped_cluster
                    .map(|wrapped| KeyRing::unwrap(&kek, &wrapped).map(Arc::new))
                    .transpose()?,
                kek,
                locked,
                escrow,
            }),
            (None, None) => None,
            // Written by versions that only knew the keys without their key.
            (None, Some(_)) => return Err(PkiError::Locked),
            (Some(_), None) => return Err(BROKEN),
        };
        // What cannot be written again would turn up when the certificate is renewed.
        if other.values().any(|value| value.contains(':')) {
            return Err(BROKEN);
        }
        Ok(Self { node_key, kek_version, store_keys, other })
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`PkiError::Pem`] when a header cannot be written; [`PkiError::Random`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>, PkiError> {
        const BROKEN: PkiError = PkiError::Pem { expected: "header" };
        let locked = self.store_keys.as_ref().filter(|keys| keys.locked);
        let mut block = match locked {
            Some(keys) => {
                let sealed = keys.kek.seal(NODE_KEY_PLACE, self.node_key.key_der())?;
                pem::Pem::new(LOCKED_TAG, sealed)
            }
            None => pem::Pem::new(PLAIN_TAG, self.node_key.key_der()),
        };
        let headers = block.headers_mut();
        let mut add = |name: &str, value: &str| headers.add(name, value).map_err(|_| BROKEN);
        add(KEK_VERSION, &self.kek_version.to_string())?;
        if let Some(keys) = &self.store_keys {
            if let Escrow::Previous(records) = &keys.escrow {
                let records: Vec<String> = records.iter().map(|r| STANDARD.encode(r)).collect();
                add(PREVIOUS_KEYS, &records.join(","))?;
            }
            if !keys.locked || keys.escrow == Escrow::Beside {
                let kek = Zeroizing::new(STANDARD.encode(keys.kek.expose_secret()));
                add(WRAPPING_KEY, &kek)?;
            }
            add(WRAPPED_KEYS, &STANDARD.encode(keys.node.wrap(&keys.kek)?))?;
            if let Some(cluster) = &keys.cluster {
                add(WRAPPED_CLUSTER_KEYS, &STANDARD.encode(cluster.wrap(&keys.kek)?))?;
            }
        }
        for (name, value) in &self.other {
            add(name, value)?;
        }
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Ok(Zeroizing::new(pem::encode_config(&block, config)))
    }
}

/// The newest key that an unlock key leads to.
fn follow(unlock: &KeyEncryptionKey, previous: &[Vec<u8>]) -> Result<KeyEncryptionKey, PkiError> {
    let mut key = unlock.clone();
    for record in previous {
        match key.open(PREVIOUS_PLACE, record) {
            Ok(next) => key = KeyEncryptionKey::from_bytes(&next)?,
            Err(PkiError::WrongUnlockKey) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(key)
}

/// The directory `<data-root>/swarm/certificates`.
#[derive(Clone, Debug)]
pub struct CertificateDir(PathBuf);

/// A node's complete identity as it was on disk.
#[derive(Debug)]
pub struct StoredIdentity {
    /// The trusted roots, PEM.
    pub roots_pem: Vec<u8>,
    /// The chain, PEM, leaf first.
    pub chain_pem: Vec<u8>,
    /// The key and what its headers carry.
    pub key: KeyFile,
}

impl CertificateDir {
    /// Names the directory; nothing is created.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the identity; `None` when the node is in no cluster.
    ///
    /// Finishes or drops a replacement that a crash interrupted.
    ///
    /// # Errors
    /// [`PkiError::Locked`] when the unlock key is needed, [`PkiError::WrongUnlockKey`] when it is
    /// another one; [`PkiError::File`], [`PkiError::Pem`], [`PkiError::KeyMismatch`] when the files
    /// are damaged.
    pub fn load(
        &self,
        unlock: Option<&KeyEncryptionKey>,
    ) -> Result<Option<StoredIdentity>, PkiError> {
        if self.0.exists() {
            files::finish_wiping(&self.file(KEY_FILE))?;
        }
        let Some(key_text) = files::read(&self.file(KEY_FILE), files::MAX_FILE)? else {
            return Ok(None);
        };
        let key = KeyFile::parse(&Zeroizing::new(key_text), unlock)?;
        self.finish_replacement(&key)?;
        let Some(chain_pem) = files::read(&self.file(CHAIN_FILE), files::MAX_FILE)? else {
            return Ok(None);
        };
        if !CertInfo::from_pem(&chain_pem)?.is_for(&key.node_key) {
            return Err(PkiError::KeyMismatch);
        }
        let roots_pem =
            files::read(&self.file(ROOT_FILE), files::MAX_FILE)?.ok_or(PkiError::NoRoots)?;
        Ok(Some(StoredIdentity { roots_pem, chain_pem, key }))
    }

    /// Replaces the trusted roots.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Pem`].
    pub fn store_roots(&self, roots_pem: &[u8]) -> Result<(), PkiError> {
        x509::certificates(roots_pem)?;
        files::create_dir(&self.0, DIR_MODE)?;
        files::replace(&self.file(ROOT_FILE), roots_pem, PUBLIC_MODE)
    }

    /// Replaces chain and key together.
    ///
    /// # Errors
    /// [`PkiError::KeyMismatch`], [`PkiError::Pem`], [`PkiError::File`].
    pub fn store(&self, chain_pem: &[u8], key: &KeyFile) -> Result<(), PkiError> {
        if !CertInfo::from_pem(chain_pem)?.is_for(&key.node_key) {
            return Err(PkiError::KeyMismatch);
        }
        files::create_dir(&self.0, DIR_MODE)?;
        files::write_new(&self.file(NEW_CHAIN_FILE), chain_pem, PUBLIC_MODE)?;
        self.store_key(key)?;
        files::rename(&self.file(NEW_CHAIN_FILE), &self.file(CHAIN_FILE))
    }

    /// Replaces the key file alone: the same key with other headers. What was in it before is
    /// overwritten.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn store_key(&self, key: &KeyFile) -> Result<(), PkiError> {
        files::create_dir(&self.0, DIR_MODE)?;
        files::replace_and_wipe(&self.file(KEY_FILE), key.to_pem()?.as_bytes(), PRIVATE_MODE)
    }

    fn finish_replacement(&self, key: &KeyFile) -> Result<(), PkiError> {
        let beside = self.file(NEW_CHAIN_FILE);
        let Some(chain) = files::read(&beside, files::MAX_FILE)? else {
            return Ok(());
        };
        let belongs = CertInfo::from_pem(&chain).is_ok_and(|info| info.is_for(&key.node_key));
        if belongs {
            tracing::info!("finishing a certificate replacement that was interrupted");
            files::rename(&beside, &self.file(CHAIN_FILE))
        } else {
            fs::remove_file(&beside).map_err(files::failed("remove", &beside))
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[cfg(test)]
mod tests;
