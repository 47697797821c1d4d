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
//! Headers of the key: `kek-version` (SwarmKit's), and `brig-dek`, the wrapped data keys of what
//! the node stores (on managers the cluster, everywhere its tasks), and `brig-kek`, the key that
//! wraps them. With autolock the latter is absent: it is the unlock key, and the key itself is
//! `ENCRYPTED PRIVATE KEY`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_types::secret::SecretBytes;
use zeroize::Zeroizing;

use crate::csr::NodeKey;
use crate::identity::CertInfo;
use crate::seal::{KeyEncryptionKey, KeyRing};
use crate::{PkiError, files, x509};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CHAIN_FILE: &str = "swarm-node.crt";
const NEW_CHAIN_FILE: &str = ".swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
const PLAIN_TAG: &str = "PRIVATE KEY";
const LOCKED_TAG: &str = "ENCRYPTED PRIVATE KEY";
const KEK_VERSION: &str = "kek-version";
const WRAPPED_KEYS: &str = "brig-dek";
const WRAPPING_KEY: &str = "brig-kek";
const PUBLIC_MODE: u32 = 0o644;
const PRIVATE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o755;

/// The keys of what a node stores, as the key file carries them.
#[derive(Clone)]
pub struct StoreKeys {
    /// Wraps the data keys. On disk only while autolock is off.
    pub kek: KeyEncryptionKey,
    /// The data keys, wrapped.
    pub wrapped: Vec<u8>,
}

impl StoreKeys {
    /// New keys for a new store.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate() -> Result<(Self, KeyRing), PkiError> {
        let kek = KeyEncryptionKey::generate()?;
        let ring = KeyRing::generate()?;
        let wrapped = ring.wrap(&kek)?;
        Ok((Self { kek, wrapped }, ring))
    }

    /// The keys of a store that is there already, wrapped with a new key.
    ///
    /// # Errors
    /// [`PkiError::Random`], [`PkiError::Sealed`].
    pub fn of(ring: &KeyRing) -> Result<Self, PkiError> {
        let kek = KeyEncryptionKey::generate()?;
        let wrapped = ring.wrap(&kek)?;
        Ok(Self { kek, wrapped })
    }

    /// The data keys.
    ///
    /// # Errors
    /// [`PkiError::Sealed`].
    pub fn open(&self) -> Result<KeyRing, PkiError> {
        KeyRing::unwrap(&self.kek, &self.wrapped)
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKeys(..)")
    }
}

/// Content of the key file.
#[derive(Debug)]
pub struct KeyFile {
    /// The node's key.
    pub node_key: NodeKey,
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
    pub const fn new(node_key: NodeKey, store_keys: Option<StoreKeys>) -> Self {
        Self { node_key, kek_version: 0, store_keys, other: BTreeMap::new() }
    }

    /// The same headers around another key, for a renewed certificate.
    #[must_use]
    pub fn with_node_key(&self, node_key: NodeKey) -> Self {
        Self {
            node_key,
            kek_version: self.kek_version,
            store_keys: self.store_keys.clone(),
            other: self.other.clone(),
        }
    }

    /// The same file with other data keys.
    #[must_use]
    pub fn with_store_keys(self, keys: StoreKeys) -> Self {
        Self { store_keys: Some(keys), ..self }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::PrivateKey`]; [`PkiError::Locked`] when the unlock key is
    /// needed.
    pub fn parse(text: &[u8]) -> Result<Self, PkiError> {
        const BROKEN: PkiError = PkiError::Pem { expected: "node key" };
        let block = pem::parse(text).map_err(|_| BROKEN)?;
        let mut other: BTreeMap<String, String> = block
            .headers()
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        match block.tag() {
            PLAIN_TAG => {}
            LOCKED_TAG => return Err(PkiError::Locked),
            _ => return Err(BROKEN),
        }
        let node_key = NodeKey::from_der(&SecretBytes::new(block.into_contents()))?;
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
        let store_keys = match (decode(WRAPPING_KEY)?, decode(WRAPPED_KEYS)?) {
            (Some(kek), Some(wrapped)) => Some(StoreKeys {
                kek: KeyEncryptionKey::from_bytes(&kek)?,
                wrapped: wrapped.to_vec(),
            }),
            (None, None) => None,
            (None, Some(_)) => return Err(PkiError::Locked),
            (Some(_), None) => return Err(BROKEN),
        };
        Ok(Self { node_key, kek_version, store_keys, other })
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`PkiError::Pem`] when a header cannot be written.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, PkiError> {
        const BROKEN: PkiError = PkiError::Pem { expected: "header" };
        let mut block = pem::Pem::new(PLAIN_TAG, self.node_key.key_der());
        let headers = block.headers_mut();
        let mut add = |name: &str, value: &str| headers.add(name, value).map_err(|_| BROKEN);
        add(KEK_VERSION, &self.kek_version.to_string())?;
        if let Some(keys) = &self.store_keys {
            let kek = Zeroizing::new(STANDARD.encode(keys.kek.expose_secret()));
            add(WRAPPING_KEY, &kek)?;
            add(WRAPPED_KEYS, &STANDARD.encode(&keys.wrapped))?;
        }
        for (name, value) in &self.other {
            add(name, value)?;
        }
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Ok(Zeroizing::new(pem::encode_config(&block, config)))
    }
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
    /// [`PkiError::Locked`] when the unlock key is needed; [`PkiError::File`], [`PkiError::Pem`],
    /// [`PkiError::KeyMismatch`] when the files are damaged.
    pub fn load(&self) -> Result<Option<StoredIdentity>, PkiError> {
        let Some(key_text) = files::read(&self.file(KEY_FILE), files::MAX_FILE)? else {
            return Ok(None);
        };
        let key = KeyFile::parse(&Zeroizing::new(key_text))?;
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

    /// Replaces the key file alone: the same key with other headers.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn store_key(&self, key: &KeyFile) -> Result<(), PkiError> {
        files::create_dir(&self.0, DIR_MODE)?;
        files::replace(&self.file(KEY_FILE), key.to_pem()?.as_bytes(), PRIVATE_MODE)
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
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use brig_types::id::NodeId;

    use super::*;
    use crate::ca::{DEFAULT_NODE_EXPIRY, RootCa};
    use crate::identity::NodeIdentity;
    use crate::token::NodeRole;

    struct World {
        _temp: tempfile::TempDir,
        dir: CertificateDir,
        root: RootCa,
    }

    fn world() -> World {
        let temp = tempfile::tempdir().unwrap();
        let dir = CertificateDir::new(temp.path().join("certificates"));
        let root = RootCa::generate().unwrap();
        dir.store_roots(root.cert_pem()).unwrap();
        World { _temp: temp, dir, root }
    }

    impl World {
        fn pair(&self) -> (Vec<u8>, NodeKey) {
            let key = NodeKey::generate().unwrap();
            let who = NodeIdentity {
                cluster: "c".into(),
                role: NodeRole::Manager,
                node: NodeId::generate(),
            };
            let csr = key.csr_pem().unwrap();
            (self.root.issue(&csr, &who, DEFAULT_NODE_EXPIRY).unwrap(), key)
        }
    }

    #[test]
    fn written_files_have_their_modes_and_come_back() {
        let world = world();
        assert!(world.dir.load().unwrap().is_none());
        let (chain, key) = world.pair();
        let (keys, ring) = StoreKeys::generate().unwrap();
        let place = crate::seal::Place { kind: "k", id: "i" };
        let sealed = ring.seal(place, b"x").unwrap();
        world.dir.store(&chain, &KeyFile::new(key, Some(keys))).unwrap();
        for (name, mode) in [(ROOT_FILE, 0o644), (CHAIN_FILE, 0o644), (KEY_FILE, 0o600)] {
            let found = fs::metadata(world.dir.file(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{name}");
        }
        let stored = world.dir.load().unwrap().unwrap();
        assert_eq!(stored.chain_pem, chain);
        assert_eq!(stored.roots_pem, world.root.cert_pem());
        let ring = stored.key.store_keys.unwrap().open().unwrap();
        assert_eq!(ring.open(place, &sealed).unwrap().as_slice(), b"x");
        let names: Vec<_> = fs::read_dir(world.dir.path()).unwrap().collect();
        assert_eq!(names.len(), 3, "no leftovers");
    }

    #[test]
    fn openssl_reads_the_key_itself() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("key.pem");
        let key = NodeKey::generate().unwrap();
        fs::write(&path, key.key_pem().expose_secret()).unwrap();
        let output = std::process::Command::new("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, key.public_key_der());
    }

    #[test]
    fn a_crash_after_the_key_is_finished() {
        let world = world();
        let (old_chain, old_key) = world.pair();
        world.dir.store(&old_chain, &KeyFile::new(old_key, None)).unwrap();
        let (new_chain, new_key) = world.pair();
        files::write_new(&world.dir.file(NEW_CHAIN_FILE), &new_chain, 0o644).unwrap();
        world.dir.store_key(&KeyFile::new(new_key, None)).unwrap();
        assert_eq!(world.dir.load().unwrap().unwrap().chain_pem, new_chain);
        assert!(!world.dir.file(NEW_CHAIN_FILE).exists());
    }

    #[test]
    fn a_crash_before_the_key_is_undone() {
        let world = world();
        let (old_chain, old_key) = world.pair();
        world.dir.store(&old_chain, &KeyFile::new(old_key, None)).unwrap();
        let (new_chain, _) = world.pair();
        files::write_new(&world.dir.file(NEW_CHAIN_FILE), &new_chain, 0o644).unwrap();
        assert_eq!(world.dir.load().unwrap().unwrap().chain_pem, old_chain);
        assert!(!world.dir.file(NEW_CHAIN_FILE).exists());
    }

    #[test]
    fn foreign_headers_stay_and_locked_files_say_so() {
        let (_, key) = world().pair();
        let mut file = KeyFile::new(key, None);
        file.other.insert("raft-dek".into(), "EiA=".into());
        file.kek_version = 7;
        let text = file.to_pem().unwrap();
        assert!(text.contains("kek-version: 7\n"), "headers end before the blank line");
        let read = KeyFile::parse(text.as_bytes()).unwrap();
        assert_eq!(read.kek_version, 7);
        assert_eq!(read.other["raft-dek"], "EiA=");
        let locked = text.replace("PRIVATE KEY", LOCKED_TAG);
        assert!(matches!(KeyFile::parse(locked.as_bytes()), Err(PkiError::Locked)));
        assert!(KeyFile::parse(b"garbage").is_err());
    }

    #[test]
    fn foreign_chains_are_refused() {
        let world = world();
        let (chain, _) = world.pair();
        let stranger = NodeKey::generate().unwrap();
        assert!(matches!(
            world.dir.store(&chain, &KeyFile::new(stranger, None)),
            Err(PkiError::KeyMismatch)
        ));
    }
}
