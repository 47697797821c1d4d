//! Looking at an image in its registry without pulling it.

use brig_types::digest::Digest;
use brig_types::reference::Reference;

use crate::config::ImageConfig;
use crate::error::{ImageError, RegistryError};
use crate::limits::MAX_CONFIG;
use crate::manifest::{INDEX_TYPES, MANIFEST_TYPES, Manifest};
use crate::platform::Platform;
use crate::registry::{Credentials, Found, Session};
use crate::store::ImageStore;

/// What a registry has under a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistributionInfo {
    /// Media type of the manifest or list.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What the image or images run on.
    pub platforms: Vec<Platform>,
}

impl ImageStore {
    /// Asks the registry what a reference (with `latest` if it has neither tag nor digest) stands
    /// for.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<Credentials>,
    ) -> Result<DistributionInfo, ImageError> {
        let reference = reference.clone().with_default_tag();
        let mut last: ImageError = RegistryError::Invalid("no endpoint".to_owned()).into();
        for endpoint in self.shared.registry.endpoints(reference.domain()).await? {
            let mirror = endpoint.mirror;
            let session =
                Session::new(&self.shared.registry, endpoint, reference.clone(), auth.clone());
            match look(&session, &reference).await {
                Err(error) if mirror => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }
}

async fn look(
    session: &Session<'_>,
    reference: &Reference,
) -> Result<DistributionInfo, ImageError> {
    let Found { digest, media_type, bytes } = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => session.manifest_by_digest(digest, None).await?,
        (None, tag) => session.manifest_by_tag(tag.unwrap_or_default()).await?,
    };
    let parsed = Manifest::parse(&bytes, Some(&media_type))
        .map_err(|error| ImageError::InvalidImage(brig_types::error::chain(&error)))?;
    let (platforms, fallback) = match parsed {
        Manifest::Index(entries) => {
            let known = |p: &Platform| p.os != "unknown" && !p.os.is_empty();
            (entries.into_iter().filter_map(|e| e.platform).filter(known).collect(), INDEX_TYPES)
        }
        Manifest::Image(image) => {
            let raw = session.blob(&image.config, MAX_CONFIG, "image configuration").await?;
            let config: ImageConfig = serde_json::from_slice(&raw)
                .map_err(|error| ImageError::InvalidImage(format!("configuration: {error}")))?;
            (vec![config.platform()], MANIFEST_TYPES)
        }
    };
    let named = media_type.split(';').next().unwrap_or_default().trim();
    let media_type = if MANIFEST_TYPES.contains(&named) || INDEX_TYPES.contains(&named) {
        named.to_owned()
    } else {
        fallback.last().copied().unwrap_or_default().to_owned()
    };
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(DistributionInfo { media_type, digest, size, platforms })
}
