//! Why a signature does not count, and why a key cannot be used.

use brig_pki::PkiError;
use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind};

/// Why a signature does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CosignError {
    /// More bytes than a thing of this kind may have.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The signature is not base64.
    #[error("the signature is not base64")]
    Base64,
    /// No key that was given has made it.
    #[error("none of the keys has made the signature")]
    Key,
    /// Nobody is trusted.
    #[error("there is no key to verify with")]
    NoKeys,
    /// The signed bytes are not what is signed here.
    #[error("what was signed cannot be read: {reason}")]
    Payload {
        /// Which rule it breaks.
        reason: String,
    },
    /// What was signed is something else than an image.
    #[error("what was signed is {found:?}, not an image")]
    Type {
        /// What it says it is.
        found: String,
    },
    /// Another image was signed.
    #[error("the signature is for {signed}, not for {wanted}")]
    Digest {
        /// Which.
        signed: String,
        /// The one in question.
        wanted: Digest,
    },
    /// The image was signed as another one.
    #[error("the signature is for {signed:?}, not for {wanted}")]
    Identity {
        /// As which.
        signed: String,
        /// As which it should be.
        wanted: String,
    },
    /// An annotation that is demanded is not there, or has another value.
    #[error("the signature does not have the annotation {0}")]
    Annotation(String),
    /// The image is more often signed than is looked at.
    #[error("more than {0} signatures")]
    TooMany(usize),
    /// A manifest that holds no signatures.
    #[error("the manifest of signatures cannot be read: {reason}")]
    Manifest {
        /// Which rule it breaks.
        reason: String,
    },
}

impl Categorized for CosignError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoKeys => ErrorKind::InvalidParameter,
            _ => ErrorKind::Forbidden,
        }
    }
}

/// Why a key file cannot be used. None of these carries key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// More bytes than a key has.
    #[error("a key file has at most {0} bytes")]
    TooLarge(usize),
    /// Another kind of file.
    #[error("not a private key for cosign: {0}")]
    NotPrivate(&'static str),
    /// A public key was expected.
    #[error("not a public key for cosign: {0}")]
    NotPublic(&'static str),
    /// The wrong passphrase, or a damaged file.
    #[error("the passphrase does not open the key")]
    Passphrase,
    /// The library refuses.
    #[error("the key cannot be used")]
    Key(#[source] PkiError),
}

impl Categorized for KeyFileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Passphrase => ErrorKind::Unauthorized,
            _ => ErrorKind::InvalidParameter,
        }
    }
}
