//! Signatures of images as cosign makes them, with key pairs.
//!
//! A signature is over a payload that names the image's digest; both lie in the image's own
//! registry, under a tag that is made of the digest, or as a referrer of the image. A key pair is
//! all that counts here: certificates, timestamps and transparency logs are not looked at, and
//! nothing is sent to any.
//!
//! What a signature says is the digest. It does not bind a tag, and it does not run out: whoever
//! controls the registry may show an older image that was signed once. Where that matters, sign
//! with an annotation such as `tag=1.0`, and demand it.
//!
//! [`verify()`] judges one signature and [`judge`] all that were found; neither reads anything from
//! the network, so what was found may be kept and judged again later ([`Attached`] can be stored).
//! [`find`] and [`attach`] are the registry's side.

mod attach;
mod bundle;
mod error;
mod find;
mod key;
mod manifest;
mod payload;
mod verify;

pub use attach::{Attaching, Placement, attach};
pub use error::{CosignError, KeyFileError};
pub use find::{FindError, MAX_FOUND, Source, find};
pub use key::{KeyPair, MAX_KEY_FILE, PrivateKeyFile, PublicKey, public_keys};
pub use manifest::{SignatureManifest, signature_tag};
pub use payload::{Annotations, MAX_PAYLOAD, Payload};
pub use verify::{Attached, Expected, Identity, Judgement, Verified, judge, verify};

#[cfg(test)]
mod tests;
