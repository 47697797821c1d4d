//! Signing an image and putting the signature beside it.

use brig_pki::PkiError;
use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind};

use super::error::CosignError;
use super::key::KeyPair;
use super::manifest::{
    ARTIFACT, Descriptor, Index, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, SignatureManifest,
    referrers_tag, signature_tag,
};
use super::payload::{Annotations, Payload};
use crate::registry::{Registry, RegistryError};

/// How often a signature is added anew because another signer was faster.
const MAX_ATTEMPTS: usize = 4;

/// Where signatures are put. Both are looked at when verifying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Under the tag `sha256-….sig`, which every tool finds.
    #[default]
    Tag,
    /// As a referrer of the image (OCI 1.1), which makes no tag where the registry keeps such
    /// lists.
    Referrer,
}

/// What is signed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Attaching<'a> {
    /// As what the image is signed: its repository.
    pub repository: &'a str,
    /// The image.
    pub digest: &'a Digest,
    /// Whose signature.
    pub pair: &'a KeyPair,
    /// What the signer adds.
    pub annotations: &'a Annotations,
    /// Where to.
    pub placement: Placement,
}

/// Why an image is not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The key does not sign.
    #[error("cannot sign with the key")]
    Sign(#[source] PkiError),
    /// What is there already is not readable, or nothing can be written.
    #[error("the manifest of signatures cannot be made")]
    Manifest(#[source] CosignError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The image is not there.
    #[error("{0} is not in the registry")]
    NoImage(Digest),
    /// Others write to the same place all the time.
    #[error("the signature was overwritten by another signer's each time; sign again")]
    Contended,
}

impl Categorized for AttachError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Sign(_) => ErrorKind::System,
            Self::Manifest(error) => error.kind(),
            Self::Registry(error) => error.kind(),
            Self::NoImage(_) => ErrorKind::NotFound,
            Self::Contended => ErrorKind::Unavailable,
        }
    }
}

/// Signs an image that is in the registry. What is attached to it already stays.
///
/// # Errors
/// [`AttachError`].
pub async fn attach(registry: &Registry, what: &Attaching<'_>) -> Result<(), AttachError> {
    let payload = Payload::new(what.repository, what.digest, what.annotations)
        .to_bytes()
        .map_err(AttachError::Manifest)?;
    let signature = what.pair.sign(&payload).map_err(AttachError::Sign)?;
    let Some(image) = registry.manifest_with_type(what.digest.as_str()).await? else {
        return Err(AttachError::NoImage(what.digest.clone()));
    };
    let payload_digest = put(registry, &payload).await?;
    let new = (payload_digest, payload.len(), signature);
    match what.placement {
        Placement::Tag => under_tag(registry, what.digest, &new).await,
        Placement::Referrer => {
            let image = Descriptor::new(&image.media_type, what.digest.clone(), image.body.len());
            as_referrer(registry, what.digest, image, &new).await
        }
    }
}

type New = (Digest, usize, String);

async fn put(registry: &Registry, blob: &[u8]) -> Result<Digest, RegistryError> {
    let digest = Digest::from_sha256(sha256(blob));
    registry.put_blob(&digest, blob).await?;
    Ok(digest)
}

/// The registry's protocol has no way to change a tag only if it is what was read: what was
/// written is read again, and added once more where somebody else's manifest took its place.
async fn under_tag(
    registry: &Registry,
    image: &Digest,
    (payload, size, signature): &New,
) -> Result<(), AttachError> {
    let tag = signature_tag(image);
    for _ in 0..MAX_ATTEMPTS {
        let mut manifest = match registry.manifest_with_type(&tag).await? {
            Some(found) => SignatureManifest::parse(&found.body).map_err(AttachError::Manifest)?,
            None => SignatureManifest::empty(),
        };
        if manifest.signatures().any(|found| found == (payload, signature.as_str())) {
            return Ok(());
        }
        manifest.push(payload.clone(), *size, signature.clone());
        let config = manifest.image_config();
        let digest = put(registry, &config).await?;
        manifest.config = Descriptor::new(OCI_CONFIG, digest, config.len());
        let bytes = manifest.to_bytes().map_err(AttachError::Manifest)?;
        registry.put_manifest(&tag, OCI_MANIFEST, bytes).await?;
        let now = registry.manifest_with_type(&tag).await?;
        let now = now.map(|found| SignatureManifest::parse(&found.body)).transpose();
        let is_there = now
            .map_err(AttachError::Manifest)?
            .is_some_and(|m| m.signatures().any(|found| found == (payload, signature.as_str())));
        if is_there {
            return Ok(());
        }
    }
    Err(AttachError::Contended)
}

async fn as_referrer(
    registry: &Registry,
    image: &Digest,
    subject: Descriptor,
    (payload, size, signature): &New,
) -> Result<(), AttachError> {
    let mut manifest = SignatureManifest::empty();
    manifest.push(payload.clone(), *size, signature.clone());
    let config = manifest.image_config();
    let digest = put(registry, &config).await?;
    manifest.config = Descriptor::new(ARTIFACT, digest, config.len());
    manifest.refer_to(subject);
    let bytes = manifest.to_bytes().map_err(AttachError::Manifest)?;
    let digest = Digest::from_sha256(sha256(&bytes));
    let mut descriptor = Descriptor::new(OCI_MANIFEST, digest.clone(), bytes.len());
    descriptor.artifact_type = Some(ARTIFACT.to_owned());
    let is_listed = registry.put_manifest(digest.as_str(), OCI_MANIFEST, bytes).await?;
    if is_listed {
        return Ok(());
    }
    // A registry that keeps no lists of referrers: the client keeps one under a tag.
    let tag = referrers_tag(image);
    for _ in 0..MAX_ATTEMPTS {
        let mut index = match registry.manifest_with_type(&tag).await? {
            Some(found) => Index::parse(&found.body).map_err(AttachError::Manifest)?,
            None => Index::empty(),
        };
        if index.manifests.iter().any(|found| found.digest == digest) {
            return Ok(());
        }
        index.manifests.push(descriptor.clone());
        let bytes = index.to_bytes().map_err(AttachError::Manifest)?;
        registry.put_manifest(&tag, OCI_INDEX, bytes).await?;
    }
    Err(AttachError::Contended)
}
