//! Key pairs and the two files that they are: `cosign.key` and `cosign.pub`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::PkiError;
use brig_pki::hash;
use brig_pki::signing::{
    Algorithm, Curve, PassBox, ScryptCost, SigningKey, VerifyingKey, decrypt_pkcs8,
};
use brig_types::secret::SecretBytes;
use pem::{EncodeConfig, LineEnding, Pem};
use serde::{Deserialize, Serialize};

use super::error::KeyFileError;

/// Largest key file, private or public.
pub const MAX_KEY_FILE: usize = 64 << 10;
/// Public keys in one file that are looked at.
const MAX_KEYS: usize = 64;

const SIGSTORE: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
const COSIGN: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN: [&str; 3] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];
const PUBLIC: &str = "PUBLIC KEY";

/// A public key that signatures are verified with.
#[derive(Clone)]
pub struct PublicKey {
    spki: Vec<u8>,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads SubjectPublicKeyInfo (DER) of ECDSA (P-256, P-384, P-521) or RSA.
    ///
    /// # Errors
    /// [`KeyFileError::Key`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyFileError> {
        let key = VerifyingKey::from_spki(spki).map_err(KeyFileError::Key)?;
        Ok(Self { spki: spki.to_vec(), key })
    }

    /// Reads a file with one public key, PEM.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyFileError> {
        match <[Self; 1]>::try_from(public_keys(text)?) {
            Ok([key]) => Ok(key),
            Err(_) => Err(KeyFileError::NotPublic("it has more than one key")),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        encoded(PUBLIC, self.spki.clone())
    }

    /// SHA-256 of the key in DER, hexadecimal: what a key is called in messages.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hash::hex(&hash::sha256(&self.spki))
    }

    /// Whether this key has made the signature over the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies_sigstore(message, signature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// Reads a file with one public key or several, PEM.
///
/// # Errors
/// [`KeyFileError`]; a file without any key too.
pub fn public_keys(text: &[u8]) -> Result<Vec<PublicKey>, KeyFileError> {
    if text.len() > MAX_KEY_FILE {
        return Err(KeyFileError::TooLarge(MAX_KEY_FILE));
    }
    let blocks = pem::parse_many(text).map_err(|_| KeyFileError::NotPublic("it is not PEM"))?;
    if blocks.is_empty() {
        return Err(KeyFileError::NotPublic("it is not PEM"));
    }
    if blocks.len() > MAX_KEYS {
        return Err(KeyFileError::NotPublic("it has more than 64 keys"));
    }
    let key = |block: Pem| match block.tag() {
        PUBLIC => PublicKey::from_spki(block.contents()),
        SIGSTORE | COSIGN | ENCRYPTED => {
            Err(KeyFileError::NotPublic("it is the private key; verifying takes cosign.pub"))
        }
        _ => Err(KeyFileError::NotPublic("it has no block PUBLIC KEY")),
    };
    blocks.into_iter().map(key).collect()
}

/// A private key and its public half.
#[derive(Debug)]
pub struct KeyPair {
    private: SigningKey,
    public: PublicKey,
}

impl KeyPair {
    /// A new pair, ECDSA on P-256 as cosign makes them.
    ///
    /// # Errors
    /// [`KeyFileError::Key`].
    pub fn generate() -> Result<Self, KeyFileError> {
        Self::of(SigningKey::generate(Curve::P256).map_err(KeyFileError::Key)?)
    }

    /// A pair of a key from elsewhere: ECDSA or RSA.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn of(private: SigningKey) -> Result<Self, KeyFileError> {
        if private.algorithm() == Algorithm::Ed25519 {
            return Err(KeyFileError::NotPrivate("it is Ed25519; ECDSA and RSA can be used"));
        }
        let spki = private.public().map_err(KeyFileError::Key)?;
        Ok(Self { private, public: PublicKey::from_spki(&spki)? })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs; the signature is base64.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`].
    pub fn sign(&self, message: &[u8]) -> Result<String, PkiError> {
        self.private.sign_sigstore(message).map(|signature| STANDARD.encode(signature))
    }

    /// The text of `cosign.key`. Takes a tenth of a second, on purpose.
    ///
    /// # Errors
    /// [`KeyFileError::Key`].
    pub fn to_encrypted_pem(&self, passphrase: &[u8]) -> Result<SecretBytes, KeyFileError> {
        let plain = self.private.to_pkcs8().map_err(KeyFileError::Key)?;
        let sealed = PassBox::seal(&plain, passphrase).map_err(KeyFileError::Key)?;
        let wire = Wire::of(&sealed);
        let json = serde_json::to_vec(&wire)
            .map_err(|_| KeyFileError::NotPrivate("it cannot be written"))?;
        Ok(SecretBytes::new(encoded(SIGSTORE, json).into_bytes()))
    }
}

fn encoded(tag: &str, content: Vec<u8>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(tag, content), config)
}

/// A private key's file: known to be one, not yet opened.
#[derive(Debug)]
pub struct PrivateKeyFile(Content);

enum Content {
    Sigstore(PassBox),
    Pkcs8(Vec<u8>),
    Plain(SecretBytes),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sigstore(_) => "Sigstore",
            Self::Pkcs8(_) => "Pkcs8",
            Self::Plain(_) => "Plain",
        })
    }
}

impl PrivateKeyFile {
    /// Reads `cosign.key`, or a private key of openssl's in PEM, encrypted or not.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        if text.len() > MAX_KEY_FILE {
            return Err(KeyFileError::TooLarge(MAX_KEY_FILE));
        }
        let block = pem::parse(text).map_err(|_| KeyFileError::NotPrivate("it is not PEM"))?;
        let content = match block.tag() {
            SIGSTORE | COSIGN => Content::Sigstore(Wire::parse(block.contents())?),
            ENCRYPTED => Content::Pkcs8(block.into_contents()),
            tag if PLAIN.contains(&tag) => {
                if block.headers().get("Proc-Type").is_some() {
                    return Err(KeyFileError::NotPrivate(
                        "encrypted in OpenSSL's old way: convert it with `openssl pkcs8 -topk8`",
                    ));
                }
                Content::Plain(SecretBytes::new(block.into_contents()))
            }
            PUBLIC => {
                return Err(KeyFileError::NotPrivate(
                    "it is the public key; signing takes cosign.key",
                ));
            }
            _ => return Err(KeyFileError::NotPrivate("it has no block with a private key")),
        };
        Ok(Self(content))
    }

    /// Whether it takes a passphrase.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        !matches!(self.0, Content::Plain(_))
    }

    /// Opens it. Takes a tenth of a second or more where there is a passphrase.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open(&self, passphrase: &[u8]) -> Result<KeyPair, KeyFileError> {
        let opened = match &self.0 {
            Content::Sigstore(sealed) => sealed.open(passphrase),
            Content::Pkcs8(der) => decrypt_pkcs8(der, passphrase),
            Content::Plain(der) => Ok(der.clone()),
        };
        let der = opened.map_err(|error| match error {
            PkiError::Passphrase => KeyFileError::Passphrase,
            error => KeyFileError::Key(error),
        })?;
        // A wrong passphrase may leave a valid padding around nonsense.
        let unusable = |error| match &self.0 {
            Content::Pkcs8(_) => KeyFileError::Passphrase,
            _ => KeyFileError::Key(error),
        };
        KeyPair::of(SigningKey::from_der(&der).map_err(unusable)?)
    }
}

/// The JSON in `cosign.key`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u64,
    p: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cipher {
    name: String,
    nonce: String,
}

const SCRYPT: &str = "scrypt";
const SECRETBOX: &str = "nacl/secretbox";

impl Wire {
    fn of(sealed: &PassBox) -> Self {
        let cost = sealed.cost;
        Self {
            kdf: Kdf {
                name: SCRYPT.to_owned(),
                params: Params { n: cost.n(), r: cost.r(), p: cost.p() },
                salt: STANDARD.encode(&sealed.salt),
            },
            cipher: Cipher { name: SECRETBOX.to_owned(), nonce: STANDARD.encode(&sealed.nonce) },
            ciphertext: STANDARD.encode(&sealed.ciphertext),
        }
    }

    fn parse(json: &[u8]) -> Result<PassBox, KeyFileError> {
        let wire: Self = serde_json::from_slice(json)
            .map_err(|_| KeyFileError::NotPrivate("its JSON cannot be read"))?;
        if wire.kdf.name != SCRYPT || wire.cipher.name != SECRETBOX {
            return Err(KeyFileError::NotPrivate("it is not encrypted with scrypt and secretbox"));
        }
        let bytes = |text: &str| {
            STANDARD.decode(text).map_err(|_| KeyFileError::NotPrivate("its base64 is broken"))
        };
        let Params { n, r, p } = wire.kdf.params;
        Ok(PassBox {
            cost: ScryptCost::new(n, r, p).map_err(KeyFileError::Key)?,
            salt: bytes(&wire.kdf.salt)?,
            nonce: bytes(&wire.cipher.nonce)?,
            ciphertext: bytes(&wire.ciphertext)?,
        })
    }
}
