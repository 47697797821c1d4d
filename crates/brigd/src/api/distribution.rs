//! `GET /distribution/{name}/json`: what a registry knows of an image, without fetching it.

use brig_api::image::{Descriptor, DistributionInspect, OciPlatform};

use super::image_transfer::credentials;
use super::images::{reference, size};
use crate::server::{ApiError, Call, Response, body};

/// Asks the registry.
///
/// # Errors
/// A bad name, and what the registry says.
pub async fn inspect(call: Call) -> Result<Response, ApiError> {
    let wanted = reference(call.param("name"), None)?.with_default_tag();
    let credentials = credentials(&call)?;
    let info = call.state.engine.images().distribution(&wanted, credentials).await?;
    let platforms = info
        .platforms
        .into_iter()
        .map(|platform| OciPlatform {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant.unwrap_or_default(),
            ..OciPlatform::default()
        })
        .collect();
    body::ok(&DistributionInspect {
        descriptor: Descriptor {
            media_type: info.media_type,
            digest: info.digest.to_string(),
            size: size(info.size),
        },
        platforms,
    })
}
