//! Signatures that lie beside images in their registries: fetched when they are asked for, kept
//! for when the registry does not answer. Nothing of them is believed here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_api::auth::RegistryAuth;
use brig_trust::cosign::{self, Attached};
use brig_trust::registry::{Registry, RegistrySettings};
use brig_trust::remote::Credentials;
use brig_types::digest::Digest;
use brig_types::error::chain;
use brig_types::reference::Reference;
use brig_types::secret::SecretString;

use crate::admission::files;

/// How long a registry may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest file of signatures: as many as are looked at, each as long as may be.
const MAX_FILE: u64 = 16 << 20;

/// The signatures of all images.
#[derive(Debug)]
pub(super) struct Signatures {
    dir: PathBuf,
    settings: RegistrySettings,
}

impl Signatures {
    pub(super) fn new(dir: &Path, insecure: Vec<String>) -> Self {
        let settings = RegistrySettings { insecure, ..RegistrySettings::default() };
        Self { dir: dir.join("cosign"), settings }
    }

    /// What lies beside an image, or what lay there when it was last seen.
    pub(super) async fn find(
        &self,
        reference: &Reference,
        digest: &Digest,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<Attached>, String> {
        let fetched = tokio::time::timeout(PATIENCE, self.fetch(reference, digest, auth)).await;
        match fetched.unwrap_or_else(|_| Err("the registry does not answer in time".to_owned())) {
            Ok(found) => {
                if !found.is_empty() {
                    self.keep(digest, &found).await;
                }
                Ok(found)
            }
            Err(error) => match self.kept(digest).await {
                kept if kept.is_empty() => Err(error),
                kept => Ok(kept),
            },
        }
    }

    async fn fetch(
        &self,
        reference: &Reference,
        digest: &Digest,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<Attached>, String> {
        let secret = |text: &str| SecretString::new(text.to_owned());
        let credentials = auth.map_or_else(Credentials::default, |auth| Credentials {
            username: auth.username.clone(),
            password: secret(auth.password.expose_secret()),
            identity_token: secret(auth.identitytoken.expose_secret()),
        });
        let registry = Registry::open(reference, credentials, &self.settings)
            .await
            .map_err(|error| chain(&error))?;
        cosign::find(&registry, digest).await.map_err(|error| chain(&error))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// What lay beside an image when it was last seen.
    pub(super) async fn kept(&self, digest: &Digest) -> Vec<Attached> {
        let path = self.path(digest);
        let read = move || {
            let content = files::read(&path, MAX_FILE).ok().flatten()?;
            serde_json::from_slice(&content).ok()
        };
        tokio::task::spawn_blocking(read).await.ok().flatten().unwrap_or_default()
    }

    async fn keep(&self, digest: &Digest, found: &[Attached]) {
        let path = self.path(digest);
        let Ok(content) = serde_json::to_vec(found) else { return };
        let write = move || files::replace(&path, &content);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%digest, %error, "cannot keep an image's signatures");
        }
    }
}
