//! Looking for an image's signatures in its registry.

use std::error::Error;

use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind};

use super::bundle;
use super::error::CosignError;
use super::manifest::{
    ARTIFACT, Index, OCI_EMPTY, SignatureManifest, referrers_tag, signature_tag,
};
use super::payload::MAX_PAYLOAD;
use super::verify::Attached;

/// Signatures of one image that are looked at.
pub const MAX_FOUND: usize = 256;

/// A repository in a registry. Whatever it gives by digest has that digest.
pub trait Source: Sync {
    /// Why it gives nothing.
    type Error: Error + Send + Sync + 'static;

    /// The manifest of a tag, or the one with a digest; `None` if there is none.
    fn manifest(
        &self,
        reference: &str,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;

    /// The blob with a digest; `None` if there is none.
    fn blob(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;

    /// The index of what refers to a manifest; `None` if the registry keeps none.
    fn referrers(
        &self,
        digest: &Digest,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;
}

/// Why an image's signatures were not found, as opposed to there being none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The registry does not give them.
    #[error("the signatures of {digest} cannot be fetched")]
    Registry {
        /// The image.
        digest: Digest,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What it gives is not readable.
    #[error("the signatures of {digest} cannot be used")]
    Odd {
        /// The image.
        digest: Digest,
        /// Why not.
        #[source]
        source: CosignError,
    },
}

impl Categorized for FindError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Registry { .. } => ErrorKind::Unavailable,
            Self::Odd { source, .. } => source.kind(),
        }
    }
}

/// Fetches everything that claims to be a signature of an image, from where cosign puts them: the
/// tag that is made of the digest, and the image's referrers.
///
/// # Errors
/// [`FindError`]; that there is no signature is not one.
pub async fn find<S: Source>(source: &S, image: &Digest) -> Result<Vec<Attached>, FindError> {
    let mut found = Found { source, image, attached: Vec::new() };
    if let Some(manifest) = found.manifest(&signature_tag(image)).await? {
        found.add(&manifest).await?;
    }
    let listed = match source.referrers(image).await.map_err(|e| found.failed(e))? {
        Some(index) => Some(index),
        None => found.manifest(&referrers_tag(image)).await?,
    };
    if let Some(index) = listed {
        let index = Index::parse(&index).map_err(|e| found.odd(e))?;
        for descriptor in index.manifests {
            // COMPAT: lists that cosign keeps itself have its configuration's type there.
            let kind = descriptor.artifact_type.as_deref();
            if !matches!(kind, None | Some(ARTIFACT | bundle::MEDIA_TYPE | OCI_EMPTY)) {
                continue;
            }
            if let Some(manifest) = found.manifest(descriptor.digest.as_str()).await? {
                found.add(&manifest).await?;
            }
        }
    }
    Ok(found.attached)
}

struct Found<'a, S> {
    source: &'a S,
    image: &'a Digest,
    attached: Vec<Attached>,
}

impl<S: Source> Found<'_, S> {
    fn failed(&self, error: S::Error) -> FindError {
        FindError::Registry { digest: self.image.clone(), source: Box::new(error) }
    }

    fn odd(&self, source: CosignError) -> FindError {
        FindError::Odd { digest: self.image.clone(), source }
    }

    async fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, FindError> {
        self.source.manifest(reference).await.map_err(|e| self.failed(e))
    }

    async fn add(&mut self, manifest: &[u8]) -> Result<(), FindError> {
        let manifest = SignatureManifest::parse(manifest).map_err(|e| self.odd(e))?;
        for layer in &manifest.layers {
            let signature = layer.signature();
            let is_bundle = layer.media_type == bundle::MEDIA_TYPE;
            // Attestations and the like lie beside signatures.
            if signature.is_none() && !is_bundle {
                continue;
            }
            if self.attached.len() == MAX_FOUND {
                return Err(self.odd(CosignError::TooMany(MAX_FOUND)));
            }
            if layer.size > MAX_PAYLOAD as u64 {
                let what = "what was signed";
                return Err(self.odd(CosignError::TooLarge { what, limit: MAX_PAYLOAD }));
            }
            let content = self.source.blob(&layer.digest, MAX_PAYLOAD).await;
            let Some(content) = content.map_err(|e| self.failed(e))? else {
                continue;
            };
            self.attached.push(match signature {
                Some(signature) => {
                    Attached::SimpleSigning { payload: content, signature: signature.to_owned() }
                }
                None => Attached::Bundle { bundle: content },
            });
        }
        Ok(())
    }
}
