//! Bytes under a passphrase as sigstore's key files have them: scrypt and NaCl's secretbox
//! (XSalsa20 with Poly1305).

use brig_types::secret::SecretBytes;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use zeroize::Zeroizing;

use crate::{PkiError, random};

const KEY_LEN: usize = 32;
const SALT_LEN: usize = 32;
const NONCE_LEN: usize = 24;
/// Longest salt that is taken from elsewhere.
const MAX_SALT: usize = 256;
/// 128 MiB of memory; a file from elsewhere cannot ask for more.
const MAX_LOG_N: u8 = 17;
const MIN_LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 1;

/// What trying a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScryptCost {
    log_n: u8,
}

impl ScryptCost {
    /// COMPAT: what cosign writes. Readers take a few fixed costs only, and those of before 2023
    /// half of this; the passphrase's strength is what counts.
    pub const WRITTEN: Self = Self { log_n: 16 };

    /// The parameters of a file.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] for any but r = 8, p = 1 and N from 2¹⁴ to 2¹⁷.
    pub fn new(n: u64, r: u64, p: u64) -> Result<Self, PkiError> {
        const REFUSED: PkiError =
            PkiError::PrivateKey { reason: "encrypted with parameters of scrypt that nobody uses" };
        if !n.is_power_of_two() || r != u64::from(R) || p != u64::from(P) {
            return Err(REFUSED);
        }
        let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| REFUSED)?;
        if (MIN_LOG_N..=MAX_LOG_N).contains(&log_n) { Ok(Self { log_n }) } else { Err(REFUSED) }
    }

    /// scrypt's N.
    #[must_use]
    pub const fn n(self) -> u64 {
        1 << self.log_n
    }

    /// scrypt's r.
    #[must_use]
    pub const fn r(self) -> u64 {
        R as u64
    }

    /// scrypt's p.
    #[must_use]
    pub const fn p(self) -> u64 {
        P as u64
    }
}

/// Sealed bytes and all it takes to open them but the passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassBox {
    /// The cost.
    pub cost: ScryptCost,
    /// scrypt's salt.
    pub salt: Vec<u8>,
    /// The cipher's nonce.
    pub nonce: Vec<u8>,
    /// Tag and ciphertext.
    pub ciphertext: Vec<u8>,
}

impl PassBox {
    /// Seals bytes with a salt and a nonce of their own. Takes a tenth of a second, on purpose.
    ///
    /// # Errors
    /// [`PkiError::Random`], [`PkiError::PrivateKey`].
    pub fn seal(plain: &SecretBytes, passphrase: &[u8]) -> Result<Self, PkiError> {
        let cost = ScryptCost::WRITTEN;
        let salt = random::bytes::<SALT_LEN>()?.to_vec();
        let nonce = random::bytes::<NONCE_LEN>()?;
        let ciphertext = cipher(cost, &salt, passphrase)?
            .encrypt(Nonce::from_slice(&nonce), plain.expose_secret())
            .map_err(|_| PkiError::PrivateKey { reason: "cannot be encrypted" })?;
        Ok(Self { cost, salt, nonce: nonce.to_vec(), ciphertext })
    }

    /// Opens it. Takes a tenth of a second or more, and up to 128 MiB.
    ///
    /// # Errors
    /// [`PkiError::Passphrase`] for the wrong one, or for bytes that were changed.
    pub fn open(&self, passphrase: &[u8]) -> Result<SecretBytes, PkiError> {
        if self.nonce.len() != NONCE_LEN || self.salt.len() > MAX_SALT {
            return Err(PkiError::PrivateKey { reason: "its salt or nonce is not one" });
        }
        cipher(self.cost, &self.salt, passphrase)?
            .decrypt(Nonce::from_slice(&self.nonce), self.ciphertext.as_slice())
            .map(SecretBytes::new)
            .map_err(|_| PkiError::Passphrase)
    }
}

fn cipher(cost: ScryptCost, salt: &[u8], passphrase: &[u8]) -> Result<XSalsa20Poly1305, PkiError> {
    const KDF: PkiError = PkiError::PrivateKey { reason: "scrypt refuses its parameters" };
    let params = scrypt::Params::new(cost.log_n, R, P, KEY_LEN).map_err(|_| KDF)?;
    let mut key = Zeroizing::new([0_u8; KEY_LEN]);
    scrypt::scrypt(passphrase, salt, &params, key.as_mut()).map_err(|_| KDF)?;
    Ok(XSalsa20Poly1305::new(Key::from_slice(key.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_the_passphrase_alone_and_only_unchanged() {
        let plain = SecretBytes::new(b"a key".to_vec());
        let sealed = PassBox::seal(&plain, b"correct horse").unwrap();
        assert_eq!(sealed.open(b"correct horse").unwrap().expose_secret(), b"a key");
        assert!(matches!(sealed.open(b"battery staple"), Err(PkiError::Passphrase)));
        let changes: [fn(&mut PassBox); 4] = [
            |b| b.ciphertext[3] ^= 1,
            |b| b.nonce[0] ^= 1,
            |b| b.salt[0] ^= 1,
            |b| b.ciphertext.truncate(15),
        ];
        for change in changes {
            let mut changed = sealed.clone();
            change(&mut changed);
            assert!(matches!(changed.open(b"correct horse"), Err(PkiError::Passphrase)));
        }
        let short = PassBox { nonce: vec![0; 23], ..sealed };
        assert!(matches!(short.open(b"correct horse"), Err(PkiError::PrivateKey { .. })));
    }

    #[test]
    fn costs_have_bounds() {
        for n in [1 << 14, 1 << 15, 1 << 16, 1 << 17] {
            assert_eq!(ScryptCost::new(n, 8, 1).unwrap().n(), n);
        }
        for (n, r, p) in [
            (0, 8, 1),
            (1, 8, 1),
            (1 << 13, 8, 1),
            (1 << 18, 8, 1),
            (u64::MAX, 8, 1),
            (1 << 63, 8, 1),
            (32_769, 8, 1),
            (1 << 15, 9, 1),
            (1 << 15, 8, 2),
            (1 << 15, 8, u64::MAX),
        ] {
            assert!(ScryptCost::new(n, r, p).is_err(), "{n} {r} {p}");
        }
    }
}
