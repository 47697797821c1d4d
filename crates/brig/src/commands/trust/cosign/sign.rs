//! `trust sign --key`.

use std::path::PathBuf;

use brig_trust::cosign::{Attaching, Placement, attach};
use clap::Args;

use super::{RegistryFlags, annotations, keys, parsed, registry, resolved, said};
use crate::context::Context;
use crate::error::{Result, message};

/// The flags of cosign's own `sign`.
#[derive(Args, Debug)]
pub(in crate::commands::trust) struct SignWithKey {
    /// Sign as cosign does, with the private key in this file, what the registry has
    #[arg(long, value_name = "file")]
    pub(in crate::commands::trust) key: Option<PathBuf>,
    /// With --key: say this too in the signature
    #[arg(short, long, value_name = "key=value")]
    annotations: Vec<String>,
    /// With --key: the name that the signature is for, in place of the repository's
    #[arg(long, value_name = "reference")]
    sign_container_identity: Option<String>,
    /// With --key: where the signature is put, legacy (a tag) or oci-1-1 (a referrer)
    #[arg(long, value_name = "mode", value_parser = ["legacy", "oci-1-1"])]
    registry_referrers_mode: Option<String>,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl SignWithKey {
    /// That nothing is said of what only counts with a key.
    pub(in crate::commands::trust) fn check_absent(&self) -> Result<()> {
        if self.annotations.is_empty()
            && self.registry_referrers_mode.is_none()
            && self.sign_container_identity.is_none()
        {
            return Ok(());
        }
        Err(message(
            "--annotations, --registry-referrers-mode and --sign-container-identity go with --key FILE",
        ))
    }
}

/// Signs an image that is in its registry.
pub(in crate::commands::trust) async fn sign(
    context: &Context,
    flags: &SignWithKey,
    key: &std::path::Path,
    image: &str,
) -> Result<()> {
    let reference = parsed(image)?;
    let annotations = annotations(&flags.annotations)?;
    let pair = keys::private(key)?;
    let registry = registry(context, &reference, &flags.registry).await?;
    let digest = resolved(&registry, &reference).await?;
    let placement = match flags.registry_referrers_mode.as_deref() {
        Some("oci-1-1") => Placement::Referrer,
        _ => Placement::Tag,
    };
    let name = reference.name();
    let what = Attaching {
        repository: flags.sign_container_identity.as_deref().unwrap_or(&name),
        digest: &digest,
        pair: &pair,
        annotations: &annotations,
        placement,
    };
    attach(&registry, &what)
        .await
        .map_err(|error| message(format!("failed to sign {image}: {}", said(&error).text())))?;
    crate::output::line(&format!("Signed {name}@{digest}"))
}
