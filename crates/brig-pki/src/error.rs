//! What can go wrong with keys, certificates and sealed values.

use std::path::PathBuf;

use brig_types::error::{Categorized, ErrorKind};

/// An error of this crate. None of them carries key material or plaintext.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The random number generator refused.
    #[error("the random number generator failed")]
    Random,
    /// A join token that does not parse.
    #[error("invalid join token")]
    JoinToken,
    /// An unlock key that does not parse.
    #[error("invalid unlock key")]
    UnlockKey,
    /// A PEM text that does not parse or lacks what it should hold.
    #[error("no valid PEM {expected} found")]
    Pem {
        /// What was expected.
        expected: &'static str,
    },
    /// A certificate that does not parse.
    #[error("invalid certificate: {reason}")]
    Certificate {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A root that a cluster cannot be given.
    #[error("{0}")]
    UnfitRoot(&'static str),
    /// A certificate outside its validity.
    #[error("certificate ({subject}) not valid at this time")]
    NotValidNow {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate signing request that is refused.
    #[error("invalid certificate signing request: {reason}")]
    Csr {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A private key that cannot be used.
    #[error("invalid private key: {reason}")]
    PrivateKey {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A hash of a password that cannot be used.
    #[error("invalid hash of a password: {reason}")]
    PasswordHash {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A public key that cannot be used.
    #[error("invalid public key: {reason}")]
    PublicKey {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The passphrase does not open the key.
    #[error("the passphrase does not open the key")]
    Passphrase,
    /// Key and certificate do not belong together.
    #[error("certificate key mismatch")]
    KeyMismatch,
    /// This authority knows its certificate but not its key.
    #[error("no valid signer found")]
    NoSigner,
    /// Making a certificate or request failed.
    #[error("failed to {step}")]
    Issue {
        /// What was being made.
        step: &'static str,
        /// The library's reason.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate chain does not lead to the roots.
    #[error("certificate is not signed by the cluster's root: {0:?}")]
    Untrusted(webpki::Error),
    /// A TLS configuration cannot be built.
    #[error("cannot build the TLS configuration")]
    Tls(#[source] rustls::Error),
    /// A set of trust anchors that is empty or not usable.
    #[error("no usable root certificate")]
    NoRoots,
    /// A peer name that TLS cannot express.
    #[error("{0:?} is not a valid TLS server name")]
    ServerName(String),
    /// The key file is encrypted: the unlock key is needed.
    #[error("the node's key is encrypted and needs the unlock key")]
    Locked,
    /// The unlock key is another one than the file was locked with.
    #[error("the unlock key is not the one that this node was locked with")]
    WrongUnlockKey,
    /// A sealed value that was changed, moved to another place, or is not one at all.
    #[error("sealed value cannot be opened: {reason}")]
    Sealed {
        /// Why not.
        reason: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Categorized for PkiError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::JoinToken
            | Self::UnlockKey
            | Self::Pem { .. }
            | Self::Certificate { .. }
            | Self::UnfitRoot(_)
            | Self::NotValidNow { .. }
            | Self::Csr { .. }
            | Self::PrivateKey { .. }
            | Self::PasswordHash { .. }
            | Self::PublicKey { .. }
            | Self::KeyMismatch
            | Self::ServerName(_) => ErrorKind::InvalidParameter,
            Self::Untrusted(_) | Self::WrongUnlockKey | Self::Passphrase => ErrorKind::Unauthorized,
            Self::Locked | Self::NoSigner => ErrorKind::Unavailable,
            _ => ErrorKind::System,
        }
    }
}
