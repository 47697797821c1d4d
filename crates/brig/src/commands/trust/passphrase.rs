//! Passphrases: from docker's variables, or asked for.

use brig_trust::keystore::{KeyStoreError, Passphrases, Wanted};
use brig_types::secret::SecretString;

use crate::cli::globals::variable;

const ROOT_VARIABLE: &str = "DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE";
const OTHER_VARIABLE: &str = "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE";
/// The shortest new passphrase, in bytes.
const MIN_LENGTH: usize = 8;
/// How often a new one is asked for.
const MAX_ATTEMPTS: usize = 10;

const ROOT_WARNING: &str = "\
You are about to create a new root signing key passphrase. This passphrase
will be used to protect the most sensitive key in your signing system. Please
choose a long, complex passphrase and be careful to keep the password and the
key file itself secure and backed up. It is highly recommended that you use a
password manager to generate the passphrase and keep it safe. There will be no
way to recover this key. You can find the key in your config directory.";
const TOO_SHORT: &str = "Passphrase is too short. Please use a password manager to generate and store a good random passphrase.";

/// Whoever runs the command.
#[derive(Debug, Default)]
pub(super) struct Terminal;

impl Passphrases for Terminal {
    fn passphrase(&mut self, wanted: &Wanted<'_>) -> Result<SecretString, KeyStoreError> {
        let is_root = wanted.name == "root";
        if let Some(given) = variable(if is_root { ROOT_VARIABLE } else { OTHER_VARIABLE }) {
            // It is not going to get better.
            if wanted.attempt > 0 {
                return Err(KeyStoreError::WrongPassphrase);
            }
            return Ok(SecretString::new(given));
        }
        let key = format!("{} key with ID {}", wanted.name, wanted.short_id);
        if !wanted.is_new {
            if wanted.attempt > 0 {
                crate::output::warn("Passphrase incorrect. Please retry.");
            }
            return ask(&format!("Enter passphrase for {key}: "));
        }
        if is_root {
            crate::output::warn(ROOT_WARNING);
        }
        for _ in 0..MAX_ATTEMPTS {
            let first = ask(&format!("Enter passphrase for new {key}: "))?;
            if first.expose_secret().len() < MIN_LENGTH {
                crate::output::warn(TOO_SHORT);
                continue;
            }
            let second = ask(&format!("Repeat passphrase for new {key}: "))?;
            if first.expose_secret() == second.expose_secret() {
                return Ok(first);
            }
            crate::output::warn("Passphrases do not match. Please retry.");
        }
        Err(KeyStoreError::NoPassphrase("too many attempts".to_owned()))
    }
}

fn ask(prompt: &str) -> Result<SecretString, KeyStoreError> {
    if !crate::terminal::stdin_is_terminal() {
        crate::output::warn_raw(prompt);
    }
    let answer = crate::terminal::secret::ask(prompt)
        .map_err(|error| KeyStoreError::NoPassphrase(error.text()))?;
    if !crate::terminal::stdin_is_terminal() {
        crate::output::warn("");
    }
    Ok(SecretString::new(answer.expose_secret().to_owned()))
}
