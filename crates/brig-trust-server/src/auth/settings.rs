//! How authentication is configured, as flags and configuration files say it.

use std::path::PathBuf;

use super::{AuthError, Authentication, Passwords, TokenSettings, Tokens};

/// What passwords are asked for.
const REALM: &str = "brig trust";

/// Passwords, tokens, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthSettings {
    /// File of passwords.
    pub htpasswd: Option<PathBuf>,
    /// Whether anybody may read, with passwords.
    pub anonymous_pull: bool,
    /// The token server's address.
    pub token_realm: Option<String>,
    /// Whom tokens are for.
    pub token_service: Option<String>,
    /// Who makes them.
    pub token_issuer: Option<String>,
    /// Certificates of the keys that sign them.
    pub token_bundle: Option<PathBuf>,
}

impl AuthSettings {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// [`AuthError`]: files, and settings that do not go together.
    pub fn load(self) -> Result<Authentication, AuthError> {
        let tokens = [&self.token_realm, &self.token_service, &self.token_issuer];
        let with_tokens = self.token_bundle.is_some() || tokens.iter().any(|one| one.is_some());
        match self.htpasswd {
            Some(_) if with_tokens => Err(AuthError::Both),
            Some(path) => Ok(Authentication::Passwords {
                passwords: Passwords::load(&path, REALM)?,
                anonymous_pull: self.anonymous_pull,
            }),
            None if with_tokens => {
                let (Some(realm), Some(service), Some(issuer), Some(bundle)) =
                    (self.token_realm, self.token_service, self.token_issuer, self.token_bundle)
                else {
                    return Err(AuthError::Incomplete);
                };
                let settings = TokenSettings { realm, service, issuer, bundle };
                Ok(Authentication::Tokens(Tokens::load(settings)?))
            }
            None => Ok(Authentication::Open),
        }
    }
}
