//! Passwords from a file of `htpasswd -B`.
//!
//! Checking one takes a while on purpose, and clients bring it with every request: who was
//! checked is remembered for some minutes, as a keyed hash.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::hash::{SHA256_LEN, hmac_sha256};
use brig_pki::password::PasswordHash;
use brig_pki::random;
use brig_types::secret::SecretBytes;
use tokio::sync::Semaphore;

use super::{AuthError, Challenge, quotable, read};

/// Bytes of the file.
const MAX_FILE: u64 = 4 << 20;
/// How long a password that was right is not checked again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How many are remembered.
const MAX_REMEMBERED: usize = 4096;
/// Passwords that are checked at a time.
const AT_ONCE: usize = 2;
/// Checked when there is no such user, so that the time tells nothing: of a random password.
const NOBODY: &str = "$2y$10$Kt8ARkUqfIbRLI1sQ5R0IeqfBydAKz87e4ZJBYRRbNSMKArCo5Uh.";

/// The users and their passwords.
#[derive(Debug)]
pub struct Passwords {
    path: PathBuf,
    realm: String,
    content: ArcSwap<Users>,
    key: [u8; SHA256_LEN],
    remembered: Mutex<HashMap<[u8; SHA256_LEN], Instant>>,
    checks: Semaphore,
}

#[derive(Debug, Default)]
struct Users {
    text: Vec<u8>,
    by_name: HashMap<String, Arc<PasswordHash>>,
}

impl Passwords {
    /// Reads the file.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn load(path: &Path, realm: &str) -> Result<Self, AuthError> {
        quotable(realm)?;
        let content = ArcSwap::from_pointee(Users::read(path)?);
        let key = random::bytes().map_err(|source| AuthError::Bundle {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            realm: realm.to_owned(),
            content,
            key,
            remembered: Mutex::default(),
            checks: Semaphore::new(AT_ONCE),
        })
    }

    pub(super) fn reload(&self) -> Result<bool, AuthError> {
        let new = Users::read(&self.path)?;
        if new.text == self.content.load().text {
            return Ok(false);
        }
        self.content.store(Arc::new(new));
        // Whose password is another one has to show it.
        self.remembered().clear();
        Ok(true)
    }

    pub(super) fn challenge(&self) -> Challenge {
        Challenge(format!("Basic realm=\"{}\"", self.realm))
    }

    pub(super) async fn check(&self, header: &str, now: Instant) -> Result<(), Challenge> {
        let refused = || self.challenge();
        let (user, password) = credentials(header).ok_or_else(refused)?;
        let users = self.content.load_full();
        let parts = [user.as_bytes(), b"\0", password.expose_secret()];
        let known = hmac_sha256(&self.key, &parts);
        if self.remembered().get(&known).is_some_and(|until| *until > now) {
            return Ok(());
        }
        let _turn = self.checks.acquire().await.map_err(|_| refused())?;
        let hash = users.by_name.get(&user).cloned();
        let is_known = hash.is_some();
        let check = move || match hash {
            Some(hash) => hash.verifies(password.expose_secret()),
            None => PasswordHash::parse(NOBODY)
                .is_ok_and(|hash| hash.verifies(password.expose_secret())),
        };
        let right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        // Somebody may have replaced the file meanwhile.
        if !(right && is_known && Arc::ptr_eq(&users, &self.content.load_full())) {
            return Err(refused());
        }
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, until| *until > now);
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(known, now + REMEMBERED);
        }
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; SHA256_LEN], Instant>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Users {
    fn read(path: &Path) -> Result<Self, AuthError> {
        let text = read(path, MAX_FILE)?;
        let mut by_name = HashMap::new();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |reason: String| AuthError::Line {
                path: path.to_owned(),
                line: at + 1,
                reason,
            };
            let line = std::str::from_utf8(line).map_err(|_| wrong("it is not text".to_owned()))?;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) =
                line.split_once(':').ok_or_else(|| wrong("it has no colon".to_owned()))?;
            let hash = PasswordHash::parse(hash).map_err(|error| wrong(error.to_string()))?;
            by_name.insert(user.to_owned(), Arc::new(hash));
        }
        Ok(Self { text, by_name })
    }
}

fn credentials(header: &str) -> Option<(String, SecretBytes)> {
    let (scheme, value) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = SecretBytes::new(STANDARD.decode(value.trim()).ok()?);
    let text = plain.expose_secret();
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (user, password) = text.split_at_checked(colon)?;
    let user = std::str::from_utf8(user).ok()?.to_owned();
    Some((user, SecretBytes::new(password.get(1..)?.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbB -C 4`, of "secret" and "other".
    fn line(user: &str, password: &str) -> String {
        let made = std::process::Command::new("htpasswd")
            .args(["-nbB", "-C", "4", user, password])
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap()
    }

    fn header(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[tokio::test]
    async fn users_of_the_real_htpasswd() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, format!("# users\n\n{}", line("alice", "se:cret"))).unwrap();
        let passwords = Passwords::load(&path, "trust").unwrap();
        let now = Instant::now();
        passwords.check(&header("alice", "se:cret"), now).await.unwrap();
        passwords.check(&header("alice", "se:cret"), now).await.unwrap();
        assert_eq!(passwords.remembered().len(), 1);
        for (user, password) in [("alice", "secret"), ("bob", "se:cret"), ("", ""), ("alice", "")] {
            let refused = passwords.check(&header(user, password), now).await.unwrap_err();
            assert_eq!(refused.0, "Basic realm=\"trust\"");
        }
        for header in ["", "Basic", "Basic !", "Bearer x", "Basic YWxpY2U="] {
            assert!(passwords.check(header, now).await.is_err());
        }
        // A new password counts at once, the old one no more.
        std::fs::write(&path, line("alice", "new")).unwrap();
        assert!(passwords.reload().unwrap());
        assert!(passwords.check(&header("alice", "se:cret"), now).await.is_err());
        passwords.check(&header("alice", "new"), now).await.unwrap();
        // What cannot be read changes nothing.
        std::fs::write(&path, "alice:{SHA}x").unwrap();
        let error = passwords.reload().unwrap_err().to_string();
        assert!(error.contains("line 1: invalid hash of a password: it is not bcrypt"), "{error}");
        passwords.check(&header("alice", "new"), now).await.unwrap();
    }

    #[test]
    fn nobody_has_a_hash() {
        assert!(PasswordHash::parse(NOBODY).is_ok());
    }
}
