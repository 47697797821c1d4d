//! A public key of SSH, as it stands in `authorized_keys` and in `id_ed25519.pub`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::super::EnrolError;

/// Longest line of a key.
const MAX_LINE: usize = 16 << 10;
/// Longest comment that is kept.
const MAX_COMMENT: usize = 128;
/// Kinds of keys that are taken. DSA is none.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];
/// Shortest modulus of an RSA key, in bytes.
const MIN_RSA: usize = 256;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: &'static str,
    blob: Vec<u8>,
    comment: String,
}

impl PublicKey {
    /// Reads a line of the form `KIND BASE64 [COMMENT]`.
    ///
    /// # Errors
    /// [`EnrolError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, EnrolError> {
        let invalid =
            |why: &str| EnrolError::Invalid(format!("that is no public key of SSH: {why}"));
        let line = text.trim();
        if line.len() > MAX_LINE || line.contains(char::is_control) {
            return Err(invalid("expected one line, as in ~/.ssh/id_ed25519.pub"));
        }
        if line.contains("PRIVATE KEY") {
            return Err(invalid("it is a private key, which nobody else should ever see"));
        }
        let mut words = line.splitn(3, ' ');
        let (kind, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(kind) = KINDS.into_iter().find(|known| *known == kind) else {
            return Err(invalid(&format!("it has to begin with one of {}", KINDS.join(", "))));
        };
        let blob = STANDARD.decode(data).map_err(|_| invalid("its data is not base64"))?;
        let mut rest = blob.as_slice();
        if field(&mut rest) != Some(kind.as_bytes()) {
            return Err(invalid("its data is of another kind than it says"));
        }
        let first = field(&mut rest).ok_or_else(|| invalid("its data ends early"))?;
        if kind == "ssh-rsa" {
            let modulus = field(&mut rest).ok_or_else(|| invalid("its data ends early"))?;
            let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
            if modulus.len().saturating_sub(zeros) < MIN_RSA {
                return Err(invalid("an RSA key needs 2048 bits"));
            }
        } else if first.is_empty() {
            return Err(invalid("its data is empty"));
        }
        let comment = words.next().unwrap_or_default().trim();
        let comment = comment.chars().take(MAX_COMMENT).collect();
        Ok(Self { kind, blob, comment })
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(brig_pki::hash::sha256(&self.blob)))
    }

    /// Kind and data, as in `authorized_keys`.
    #[must_use]
    pub fn data(&self) -> String {
        format!("{} {}", self.kind, STANDARD.encode(&self.blob))
    }

    /// What somebody wrote behind it.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }
}

/// A string of SSH's encoding: its length in four bytes, then itself.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let (field, tail) = tail.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    *rest = tail;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ssh-keygen -t ed25519; ssh-keygen -l.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGsmc3eNJUt2IgSumMCwjz8ZlGSsvQaUxREGI+YO0dPK ann@laptop";
    const PRINT: &str = "SHA256:PUT3echjQEMltDBL1bnoY40fxuyTRA6APk0u+qk5iJs";

    #[test]
    fn a_key_has_the_fingerprint_that_ssh_keygen_prints() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.fingerprint(), PRINT);
        assert_eq!(
            (key.data().as_str(), key.comment()),
            (KEY.strip_suffix(" ann@laptop").unwrap(), "ann@laptop")
        );
        assert_eq!(PublicKey::parse(&format!("{KEY}\n")).unwrap(), key);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let data = KEY.split(' ').nth(1).unwrap();
        for text in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            &format!("ssh-dss {data}"),
            &format!("ssh-rsa {data}"),
            &format!("command=\"sh\" {KEY}"),
            &format!("{KEY}\nssh-ed25519 {data}"),
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQE=",
        ] {
            assert!(PublicKey::parse(text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_key_or_not(text in "\\PC{0,60}", cut in 0usize..100) {
            let _ = PublicKey::parse(&text);
            let _ = PublicKey::parse(KEY.get(..cut).unwrap_or(KEY));
            let _ = PublicKey::parse(&format!("ssh-ed25519 {}", STANDARD.encode(&text)));
        }
    }
}
