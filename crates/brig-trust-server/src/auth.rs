//! Who asks, and whether they may: nobody in particular, passwords, or tokens of a registry's
//! token server.
//!
//! Clients ping the server first and bring credentials only if the ping is refused. So with any
//! authentication at all everything is refused without it, the ping too; what may be open is
//! reading, and health and metrics always are.

mod basic;
mod settings;
mod token;

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use brig_pki::PkiError;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::route::Access;

pub use basic::Passwords;
pub use settings::AuthSettings;
pub use token::{TokenSettings, Tokens};

/// Longest `Authorization` header.
const MAX_CREDENTIALS: usize = 32 << 10;

/// Why authentication cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of the file of passwords.
    #[error("{} line {line}: {reason}. Make entries with: htpasswd -B FILE USER", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The bundle of certificates.
    #[error("{} is no bundle of certificates that sign tokens", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// Passwords and tokens.
    #[error("passwords or tokens, not both: auth-htpasswd or auth-token-…")]
    Both,
    /// Some of the settings of tokens.
    #[error(
        "tokens need auth-token-realm, auth-token-service, auth-token-issuer and auth-token-bundle"
    )]
    Incomplete,
    /// A text that cannot be part of a header.
    #[error(
        "{0:?} cannot be used: a realm, service or issuer has no quotes and no control characters"
    )]
    Text(String),
}

/// Who may do what.
#[derive(Debug)]
pub enum Authentication {
    /// Everybody everything.
    Open,
    /// Who knows a password may do everything.
    Passwords {
        /// The passwords.
        passwords: Passwords,
        /// Whether anybody may read.
        anonymous_pull: bool,
    },
    /// Tokens say who may do what.
    Tokens(Tokens),
}

/// What the client is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge(pub(crate) String);

impl Authentication {
    /// Lets a request through, or says how to ask.
    pub(crate) async fn check(
        &self,
        headers: &HeaderMap,
        access: &Access<'_>,
    ) -> Result<(), Challenge> {
        if *access == Access::Nothing {
            return Ok(());
        }
        let credentials = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .filter(|value| value.len() <= MAX_CREDENTIALS);
        match self {
            Self::Open => Ok(()),
            Self::Passwords { passwords, anonymous_pull } => {
                let reads =
                    matches!(access, Access::Repository(_, actions) if *actions == ["pull"]);
                match credentials {
                    None if *anonymous_pull && reads => Ok(()),
                    None => Err(passwords.challenge()),
                    Some(credentials) => passwords.check(credentials, Instant::now()).await,
                }
            }
            Self::Tokens(tokens) => tokens.check(credentials, access, OffsetDateTime::now_utc()),
        }
    }

    /// Reads files again that have changed.
    ///
    /// # Errors
    /// [`AuthError`]; then everything stays as it was.
    pub fn reload(&self) -> Result<bool, AuthError> {
        match self {
            Self::Open => Ok(false),
            Self::Passwords { passwords, .. } => passwords.reload(),
            Self::Tokens(tokens) => tokens.reload(),
        }
    }
}

/// What was asked for, as the error's detail shows it.
pub(crate) fn detail(access: &Access<'_>) -> Value {
    let one = |kind: &str, name: &str, action: &str| json!({ "Type": kind, "Class": "", "Name": name, "Action": action });
    match access {
        Access::Nothing => Value::Array(Vec::new()),
        Access::Catalog => Value::Array(vec![one("registry", "catalog", "*")]),
        Access::Repository(gun, actions) => {
            actions.iter().map(|action| one("repository", gun.as_str(), action)).collect()
        }
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn read(path: &std::path::Path, limit: u64) -> Result<Vec<u8>, AuthError> {
    use std::io::Read as _;
    let failed = |source| AuthError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > limit {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
    }
    Ok(content)
}

/// A text that stands between quotes in a header.
fn quotable(text: &str) -> Result<(), AuthError> {
    let fits = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
    if text.bytes().all(fits) { Ok(()) } else { Err(AuthError::Text(text.to_owned())) }
}
