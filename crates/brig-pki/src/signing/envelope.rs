//! Private keys under a passphrase: PKCS#8 with PBES2.
//!
//! Content trust's files are shared with docker, whose readers take PBKDF2 with HMAC-SHA1 and
//! AES-256-CBC and nothing else. That is weaker than what is written elsewhere here; only the
//! passphrase's strength stands against whoever has the file.

use brig_types::secret::SecretBytes;
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::der::Encode as _;
use pkcs8::pkcs5::pbes2::{
    AES_256_CBC_OID, EncryptionScheme as Cipher, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf,
};
use pkcs8::pkcs5::{self, EncryptionScheme};

use crate::{PkiError, random};

/// What docker's clients write.
const ROUNDS: u32 = 2048;
/// More is not computed for a file from elsewhere.
const MAX_ROUNDS: u32 = 10_000_000;
/// Nor more memory taken (OpenSSL asks for 16 MiB), nor that memory gone through more often.
const MAX_SCRYPT_BYTES: u64 = 256 << 20;
const MAX_SCRYPT_LANES: u16 = 16;
const SALT_LEN: usize = 8;
const IV_LEN: usize = 16;

/// Encrypts a PKCS#8 key; the result is DER for a PEM block `ENCRYPTED PRIVATE KEY`.
///
/// # Errors
/// [`PkiError::Random`], [`PkiError::PrivateKey`].
pub fn encrypt_pkcs8(key: &SecretBytes, passphrase: &[u8]) -> Result<Vec<u8>, PkiError> {
    const FAILED: PkiError = PkiError::PrivateKey { reason: "cannot be encrypted" };
    let salt = random::bytes::<SALT_LEN>()?;
    let iv = random::bytes::<IV_LEN>()?;
    let parameters = Parameters {
        kdf: Kdf::Pbkdf2(Pbkdf2Params {
            salt: &salt,
            iteration_count: ROUNDS,
            key_length: None,
            prf: Pbkdf2Prf::HmacWithSha1,
        }),
        encryption: Cipher::Aes256Cbc { iv: &iv },
    };
    debug_assert_eq!(parameters.encryption.oid(), AES_256_CBC_OID);
    let encrypted = parameters.encrypt(passphrase, key.expose_secret()).map_err(|_| FAILED)?;
    EncryptedPrivateKeyInfo {
        encryption_algorithm: EncryptionScheme::from(parameters),
        encrypted_data: &encrypted,
    }
    .to_der()
    .map_err(|_| FAILED)
}

/// Decrypts the content of a PEM block `ENCRYPTED PRIVATE KEY`, with whatever PBES2 allows.
///
/// # Errors
/// [`PkiError::Passphrase`] where it does not fit, [`PkiError::PrivateKey`] for other content.
pub fn decrypt_pkcs8(der: &[u8], passphrase: &[u8]) -> Result<SecretBytes, PkiError> {
    let refused = |reason| PkiError::PrivateKey { reason };
    let info =
        EncryptedPrivateKeyInfo::try_from(der).map_err(|_| refused("not encrypted PKCS#8"))?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(refused("encrypted in an old way (PBES1)"));
    };
    let bounded = match &parameters.kdf {
        Kdf::Pbkdf2(kdf) => kdf.iteration_count <= MAX_ROUNDS,
        Kdf::Scrypt(kdf) => {
            let bytes = kdf.cost_parameter.saturating_mul(128 * u64::from(kdf.block_size));
            bytes <= MAX_SCRYPT_BYTES && kdf.parallelization <= MAX_SCRYPT_LANES
        }
        _ => false,
    };
    if !bounded {
        return Err(refused("encrypted with too many rounds"));
    }
    match parameters.decrypt(passphrase, info.encrypted_data) {
        Ok(key) => Ok(SecretBytes::new(key)),
        Err(pkcs5::Error::DecryptFailed | pkcs5::Error::EncryptFailed) => Err(PkiError::Passphrase),
        Err(_) => Err(refused("encrypted in a way that is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::{Curve, SigningKey};

    #[test]
    fn a_file_cannot_ask_for_all_memory() {
        let asking = |cost_parameter, block_size, parallelization| {
            let kdf = Kdf::Scrypt(pkcs5::pbes2::ScryptParams {
                salt: b"salt",
                cost_parameter,
                block_size,
                parallelization,
                key_length: None,
            });
            let parameters = Parameters { kdf, encryption: Cipher::Aes256Cbc { iv: &[0; IV_LEN] } };
            let der = EncryptedPrivateKeyInfo {
                encryption_algorithm: EncryptionScheme::from(parameters),
                encrypted_data: &[0; 32],
            };
            decrypt_pkcs8(&der.to_der().unwrap(), b"secret").unwrap_err().to_string()
        };
        for (cost, block, lanes) in [(1 << 40, 8, 1), (1 << 20, 8, 1), (16, u16::MAX, 1000)] {
            assert!(
                asking(cost, block, lanes).contains("too many rounds"),
                "{cost} {block} {lanes}"
            );
        }
        assert!(!asking(1 << 14, 8, 1).contains("too many rounds"));
    }

    #[test]
    fn what_is_encrypted_is_read_with_the_passphrase_alone() {
        let key = SigningKey::generate(Curve::P256).unwrap().to_pkcs8().unwrap();
        let der = encrypt_pkcs8(&key, b"correct horse").unwrap();
        let read = decrypt_pkcs8(&der, b"correct horse").unwrap();
        assert_eq!(read.expose_secret(), key.expose_secret());
        // One wrong passphrase in 256 gives a valid padding, and then no key.
        let wrong = decrypt_pkcs8(&der, b"battery staple");
        assert!(wrong.and_then(|key| SigningKey::from_der(&key)).is_err());
        assert!(decrypt_pkcs8(&der[..der.len() - 1], b"correct horse").is_err());
        // The pseudo-random function is left out of the parameters: SHA-1, for docker's readers.
        assert!(!der.windows(8).any(|w| w == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09]));
    }
}
