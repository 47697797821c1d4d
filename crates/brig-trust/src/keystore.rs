//! Private keys in files, as docker's clients keep them: `private/KEYID.key`.
//!
//! Each is PKCS#8 under a passphrase, in PEM with a header that says which role it is for. The
//! folder is shared with docker's and notary's clients.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use brig_pki::PkiError;
use brig_pki::signing::{SigningKey, decrypt_pkcs8, encrypt_pkcs8};
use brig_types::error::{Categorized, ErrorKind};
use brig_types::secret::{SecretBytes, SecretString};
use pem::{EncodeConfig, LineEnding, Pem};

use crate::files::{self, Durability};
use crate::key::{Key, KeyId};
use crate::name::Gun;

/// Largest key file.
pub const MAX_KEY_FILE: usize = 1 << 20;
/// Files in the folder that are looked at.
const MAX_KEYS: usize = 10_000;
/// How often a passphrase is asked for.
const MAX_ATTEMPTS: usize = 10;
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN: &str = "PRIVATE KEY";
const LEGACY: [&str; 2] = ["EC PRIVATE KEY", "RSA PRIVATE KEY"];

/// What a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// `root`, `targets`, `snapshot`, or a signer's name.
    pub role: String,
    /// The repository, for keys of one.
    pub gun: Option<Gun>,
}

impl KeyInfo {
    /// A publisher's root key.
    #[must_use]
    pub fn root() -> Self {
        Self { role: "root".to_owned(), gun: None }
    }

    /// A signer's key.
    #[must_use]
    pub fn signer(name: &str) -> Self {
        Self { role: name.to_owned(), gun: None }
    }

    /// A repository's own key.
    #[must_use]
    pub fn of(gun: &Gun, role: &str) -> Self {
        Self { role: role.to_owned(), gun: Some(gun.clone()) }
    }
}

/// A passphrase that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The key's role as users know it: `root`, `repository`, a signer's name.
    pub name: &'a str,
    /// The key's first digits.
    pub short_id: &'a str,
    /// Whether the key is new, and the passphrase with it.
    pub is_new: bool,
    /// How often it was asked for before: each time it was wrong.
    pub attempt: usize,
}

/// Where passphrases come from. An empty one means none.
pub trait Passphrases {
    /// The passphrase of a key.
    ///
    /// # Errors
    /// [`KeyStoreError::NoPassphrase`] when nobody is there to ask, or no more.
    fn passphrase(&mut self, wanted: &Wanted<'_>) -> Result<SecretString, KeyStoreError>;
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// The folder or a file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such key.
    #[error("no private key {0}")]
    NotFound(KeyId),
    /// A file that is not a key.
    #[error("{} is not a private key", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PkiError,
    },
    /// The wrong passphrase.
    #[error("password invalid, operation has failed.")]
    WrongPassphrase,
    /// Nobody gives one.
    #[error("no passphrase: {0}")]
    NoPassphrase(String),
    /// The library refuses.
    #[error(transparent)]
    Key(#[from] PkiError),
}

impl Categorized for KeyStoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::WrongPassphrase | Self::NoPassphrase(_) => ErrorKind::Unauthorized,
            Self::NotAKey { .. } => ErrorKind::InvalidParameter,
            Self::File { .. } | Self::Key(_) => ErrorKind::System,
        }
    }
}

/// The private keys of one folder, and those that were opened.
#[derive(Debug)]
pub struct KeyStore {
    dir: PathBuf,
    open: HashMap<KeyId, SigningKey>,
}

impl KeyStore {
    /// The keys of a trust folder, such as `~/.docker/trust`.
    #[must_use]
    pub fn new(trust_dir: &Path) -> Self {
        Self { dir: trust_dir.join("private"), open: HashMap::new() }
    }

    fn path(&self, id: &KeyId) -> PathBuf {
        self.dir.join(format!("{id}.key"))
    }

    /// All keys there are and what they are for, without opening any. Blocks.
    ///
    /// # Errors
    /// [`KeyStoreError::File`]; files that are not keys are passed over.
    pub fn list(&self) -> Result<BTreeMap<KeyId, KeyInfo>, KeyStoreError> {
        let mut found = BTreeMap::new();
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(source) => {
                return Err(KeyStoreError::File { action: "read", path: self.dir.clone(), source });
            }
        };
        for entry in entries.filter_map(Result::ok).take(MAX_KEYS) {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let Some(id) = name.strip_suffix(".key").and_then(|id| KeyId::parse(id).ok()) else {
                continue;
            };
            if let Ok(Some(block)) = self.block(&id) {
                found.insert(id, info(&block));
            }
        }
        Ok(found)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn has(&self, id: &KeyId) -> bool {
        self.open.contains_key(id) || self.path(id).exists()
    }

    /// The first key of a role, by ID.
    ///
    /// # Errors
    /// As [`KeyStore::list`].
    pub fn first_of_role(&self, role: &str) -> Result<Option<KeyId>, KeyStoreError> {
        Ok(self.list()?.into_iter().find(|(_, info)| info.role == role).map(|(id, _)| id))
    }

    /// Opens a key, asking for its passphrase where it has one. Blocks.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open(
        &mut self,
        id: &KeyId,
        passphrases: &mut dyn Passphrases,
    ) -> Result<&SigningKey, KeyStoreError> {
        if !self.open.contains_key(id) {
            let key = self.read(id, passphrases)?;
            self.open.insert(id.clone(), key);
        }
        self.open.get(id).ok_or_else(|| KeyStoreError::NotFound(id.clone()))
    }

    /// A key that was opened before.
    #[must_use]
    pub fn opened(&self, id: &KeyId) -> Option<&SigningKey> {
        self.open.get(id)
    }

    fn read(
        &self,
        id: &KeyId,
        passphrases: &mut dyn Passphrases,
    ) -> Result<SigningKey, KeyStoreError> {
        let block = self.block(id)?.ok_or_else(|| KeyStoreError::NotFound(id.clone()))?;
        let name = info(&block).role;
        let key = self.decoded(&self.path(id), block, &shown(&name), id.short(7), passphrases)?;
        // The name of the file says which key is meant; another one must not answer to it.
        let found = Key::of(&key)?.id();
        if found == *id {
            Ok(key)
        } else {
            let source = PkiError::PrivateKey { reason: "not the key that the file's name says" };
            Err(KeyStoreError::NotAKey { path: self.path(id), source })
        }
    }

    fn decoded(
        &self,
        path: &Path,
        block: Pem,
        name: &str,
        short_id: &str,
        passphrases: &mut dyn Passphrases,
    ) -> Result<SigningKey, KeyStoreError> {
        let broken = |source| KeyStoreError::NotAKey { path: path.to_owned(), source };
        match block.tag() {
            ENCRYPTED => {}
            PLAIN => {
                return SigningKey::from_der(&SecretBytes::new(block.into_contents()))
                    .map_err(broken);
            }
            tag if LEGACY.contains(&tag) => {
                if block.headers().get("Proc-Type").is_some() {
                    let reason =
                        "encrypted in OpenSSL's old way: convert it with `openssl pkcs8 -topk8`";
                    return Err(broken(PkiError::PrivateKey { reason }));
                }
                return SigningKey::from_der(&SecretBytes::new(block.into_contents()))
                    .map_err(broken);
            }
            _ => return Err(broken(PkiError::Pem { expected: "private key" })),
        }
        for attempt in 0..MAX_ATTEMPTS {
            let wanted = Wanted { name, short_id, is_new: false, attempt };
            let passphrase = passphrases.passphrase(&wanted)?;
            let opened = decrypt_pkcs8(block.contents(), passphrase.expose_secret().as_bytes())
                .and_then(|der| {
                    // A wrong passphrase may leave a valid padding around nonsense.
                    SigningKey::from_der(&der).map_err(|_| PkiError::Passphrase)
                });
            match opened {
                Err(PkiError::Passphrase) => {}
                opened => return opened.map_err(broken),
            }
        }
        Err(KeyStoreError::WrongPassphrase)
    }

    fn block(&self, id: &KeyId) -> Result<Option<Pem>, KeyStoreError> {
        let path = self.path(id);
        let read = files::read(&path, MAX_KEY_FILE);
        let content = read.map_err(|source| KeyStoreError::File {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let content = content.map(SecretBytes::new);
        content.map(|content| parsed(&path, &content)).transpose()
    }

    /// Adds a key under a passphrase of its own, and gives its ID. Blocks.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn add(
        &mut self,
        key: SigningKey,
        info: &KeyInfo,
        passphrases: &mut dyn Passphrases,
    ) -> Result<KeyId, KeyStoreError> {
        let id = Key::of(&key)?.id();
        let der = key.to_pkcs8()?;
        let name = shown(&info.role);
        let wanted = Wanted { name: &name, short_id: id.short(7), is_new: true, attempt: 0 };
        let passphrase = passphrases.passphrase(&wanted)?;
        let (tag, content) = if passphrase.is_empty() {
            (PLAIN, der)
        } else {
            let content = encrypt_pkcs8(&der, passphrase.expose_secret().as_bytes())?;
            (ENCRYPTED, SecretBytes::new(content))
        };
        let text = SecretBytes::new(encoded(tag, info, content.expose_secret())?.into_bytes());
        let path = self.path(&id);
        files::replace(&path, text.expose_secret(), Durability::Synced)
            .map_err(|source| KeyStoreError::File { action: "write", path, source })?;
        self.open.insert(id.clone(), key);
        Ok(id)
    }

    /// Takes over a key file from elsewhere, encrypted or not, under a passphrase of its own.
    /// Blocks.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn import(
        &mut self,
        path: &Path,
        content: &SecretBytes,
        info: &KeyInfo,
        passphrases: &mut dyn Passphrases,
    ) -> Result<KeyId, KeyStoreError> {
        let block = parsed(path, content)?;
        let key = self.decoded(path, block, &info.role, "imported", passphrases)?;
        self.add(key, info, passphrases)
    }
}

/// How messages call a role's key.
fn shown(role: &str) -> String {
    if role == "targets" { "repository".to_owned() } else { role.to_owned() }
}

fn parsed(path: &Path, content: &SecretBytes) -> Result<Pem, KeyStoreError> {
    pem::parse(content.expose_secret()).map_err(|_| KeyStoreError::NotAKey {
        path: path.to_owned(),
        source: PkiError::Pem { expected: "private key" },
    })
}

fn info(block: &Pem) -> KeyInfo {
    let headers = block.headers();
    KeyInfo {
        role: headers.get("role").unwrap_or_default().to_owned(),
        gun: headers.get("gun").and_then(|gun| Gun::parse(gun).ok()),
    }
}

/// PEM with headers, written here: the library's writer takes no colon in them, which every
/// repository with a port has.
fn encoded(tag: &str, info: &KeyInfo, content: &[u8]) -> Result<String, KeyStoreError> {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_plain(&info.role) {
        let reason = "its role cannot be written into its file";
        return Err(PkiError::PrivateKey { reason }.into());
    }
    let mut headers = String::new();
    if let Some(gun) = &info.gun {
        headers.push_str(&format!("gun: {gun}\n"));
    }
    headers.push_str(&format!("role: {}\n\n", info.role));
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let mut text = pem::encode_config(&Pem::new(tag, content), config);
    let first_line = text.find('\n').map_or(0, |at| at + 1);
    text.insert_str(first_line, &headers);
    Ok(text)
}

/// A public key in PEM with its signer's name, as `trust key generate` leaves it for others.
///
/// # Errors
/// [`KeyStoreError::Key`].
pub fn public_key_pem(key: &SigningKey, name: &str) -> Result<String, KeyStoreError> {
    encoded("PUBLIC KEY", &KeyInfo::signer(name), &key.public()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use brig_pki::signing::Curve;

    use super::*;

    /// Answers from a list, and remembers what it was asked.
    struct Answers(Vec<&'static str>, Vec<String>);

    impl Passphrases for Answers {
        fn passphrase(&mut self, wanted: &Wanted<'_>) -> Result<SecretString, KeyStoreError> {
            self.1.push(format!("{} {} {}", wanted.name, wanted.is_new, wanted.attempt));
            match self.0.pop() {
                Some(text) => Ok(SecretString::new(text.to_owned())),
                None => Err(KeyStoreError::NoPassphrase("nobody is there".to_owned())),
            }
        }
    }

    #[test]
    fn keys_are_kept_under_their_passphrases() {
        let dir = tempfile::tempdir().unwrap();
        let gun = Gun::parse("r:5000/a").unwrap();
        let info = KeyInfo::of(&gun, "targets");
        let mut store = KeyStore::new(dir.path());
        let mut answers = Answers(vec!["correct horse"], vec![]);
        let id =
            store.add(SigningKey::generate(Curve::P256).unwrap(), &info, &mut answers).unwrap();
        assert_eq!(answers.1, ["repository true 0"]);
        let path = dir.path().join(format!("private/{id}.key"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\ngun: r:5000/a\nrole: targets\n\n"
            ),
            "{text}"
        );

        let mut store = KeyStore::new(dir.path());
        assert_eq!(store.list().unwrap(), BTreeMap::from([(id.clone(), info)]));
        assert_eq!(store.first_of_role("targets").unwrap(), Some(id.clone()));
        assert_eq!(store.first_of_role("root").unwrap(), None);
        let mut answers = Answers(vec!["correct horse", "wrong", ""], vec![]);
        store.open(&id, &mut answers).unwrap();
        assert_eq!(answers.1, ["repository false 0", "repository false 1", "repository false 2"]);
        store.open(&id, &mut Answers(vec![], vec![])).unwrap();
        let mut other = KeyStore::new(dir.path());
        assert!(matches!(
            other.open(&id, &mut Answers(vec![], vec![])),
            Err(KeyStoreError::NoPassphrase(_))
        ));
        let mut wrong = Answers(vec!["wrong"; 20], vec![]);
        let refused = other.open(&id, &mut wrong).unwrap_err();
        assert_eq!(refused.to_string(), "password invalid, operation has failed.");
        assert_eq!(wrong.1.len(), MAX_ATTEMPTS);
    }

    #[test]
    fn a_file_under_another_keys_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = KeyStore::new(dir.path());
        let none = || Answers(vec![""], vec![]);
        let key = || SigningKey::generate(Curve::P256).unwrap();
        let one = store.add(key(), &KeyInfo::signer("a"), &mut none()).unwrap();
        let two = store.add(key(), &KeyInfo::signer("b"), &mut none()).unwrap();
        std::fs::rename(store.path(&one), store.path(&two)).unwrap();
        let mut store = KeyStore::new(dir.path());
        assert!(matches!(store.open(&two, &mut none()), Err(KeyStoreError::NotAKey { .. })));
        assert!(matches!(store.open(&one, &mut none()), Err(KeyStoreError::NotFound(_))));
    }

    #[test]
    fn keys_of_other_tools_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let openssl = |arguments: &[&str]| {
            let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}");
            SecretBytes::new(output.stdout)
        };
        let pem = dir.path().join("ec.pem");
        let text = openssl(&["ecparam", "-name", "secp384r1", "-genkey", "-noout"]);
        std::fs::write(&pem, text.expose_secret()).unwrap();
        let pem_path = pem.to_str().unwrap();
        let mut store = KeyStore::new(dir.path());
        let mut import = |content: &SecretBytes, answers: Vec<&'static str>| {
            store.import(&pem, content, &KeyInfo::signer("x"), &mut Answers(answers, vec![]))
        };
        let id = import(&text, vec!["new passphrase"]).unwrap();
        for flags in [&["-v2prf", "hmacWithSHA1"][..], &["-v2prf", "hmacWithSHA256"], &["-scrypt"]]
        {
            let mut arguments =
                vec!["pkcs8", "-topk8", "-in", pem_path, "-passout", "pass:old one"];
            arguments.extend(flags);
            let encrypted = openssl(&arguments);
            // Asked for twice: the file's, and the new one.
            assert_eq!(
                import(&encrypted, vec!["new passphrase", "old one"]).unwrap(),
                id,
                "{flags:?}"
            );
        }
        let rsa = openssl(&["genrsa", "2048"]);
        assert_ne!(import(&rsa, vec![""]).unwrap(), id);
        let old = openssl(&["ec", "-in", pem_path, "-aes256", "-passout", "pass:old one"]);
        assert!(import(&old, vec!["old one"]).is_err());
        assert!(import(&SecretBytes::new(b"nothing".to_vec()), vec![]).is_err());
    }
}
