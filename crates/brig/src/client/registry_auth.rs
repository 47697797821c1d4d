//! The credentials that go with a request that makes the daemon speak to a registry.

use brig_api::auth::RegistryAuth;
use http::HeaderName;

use super::Call;
use crate::config_file::ConfigFile;

/// `X-Registry-Auth`.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-registry-auth");

impl Call {
    /// Adds the credentials, `{}` when there are none.
    #[must_use]
    pub(crate) fn registry_auth(self, auth: &RegistryAuth) -> Self {
        self.header(HEADER, auth.to_header().expose_secret())
    }

    /// Adds the credentials if there are any.
    #[must_use]
    pub(crate) fn registry_auth_if_any(self, auth: &RegistryAuth) -> Self {
        if auth.is_anonymous() { self } else { self.registry_auth(auth) }
    }
}

/// The user's credentials for the registry of an image; none if the name cannot be read, which
/// the daemon will say.
pub(crate) async fn for_image(config: &ConfigFile, image: &str) -> RegistryAuth {
    match brig_types::reference::Reference::parse(image) {
        Ok(reference) => {
            config.credentials(&crate::config_file::registry_key(reference.domain())).await
        }
        Err(_) => RegistryAuth::default(),
    }
}
