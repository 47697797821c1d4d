//! Files that TLS for the engine's API cannot be made of. Each error says what to do.

use std::path::PathBuf;

use crate::PkiError;

/// Why the engine's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineTlsError {
    /// A file is not there.
    #[error(
        "there is no {what} at {}: make one, or name another file with --{flag} or the key {flag:?} of the configuration",
        path.display()
    )]
    Missing {
        /// What the file should be.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
    },
    /// A file can't be read.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner can read the key.
    #[error(
        "the private key {} can be read by others (mode {mode:04o}), so it may be known already: \
         chmod 0400 {}, or make a new one if others have been on this host",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The validity of a certificate is over.
    #[error(
        "the {what} {} ({subject}) has expired on {since}: issue a new one and put it there",
        path.display()
    )]
    Expired {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Whom it names.
        subject: String,
        /// When.
        since: String,
    },
    /// The validity of a certificate has not begun.
    #[error(
        "the {what} {} ({subject}) is not valid before {from}: check the clock of this host (date)",
        path.display()
    )]
    NotYetValid {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Whom it names.
        subject: String,
        /// When.
        from: String,
    },
    /// Key and certificate are not of one pair.
    #[error(
        "the private key {} does not belong to the certificate {}: put the key there that the certificate was requested with",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A file's content is not what it should be.
    #[error("the {what} {} cannot be used", path.display())]
    Unusable {
        /// What the file should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PkiError,
    },
    /// The list of revocations cannot be read.
    #[error("the list of revoked certificates {} cannot be used", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: super::RevocationError,
    },
    /// The parts are fine but do not make a configuration.
    #[error("cannot build the TLS configuration")]
    Tls(#[source] PkiError),
}
