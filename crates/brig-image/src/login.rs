//! Checking credentials against a registry, before a client keeps them.

use brig_types::reference::{DEFAULT_DOMAIN, Reference};

use crate::error::{ImageError, RegistryError};
use crate::registry::{Credentials, Session};
use crate::store::ImageStore;

impl ImageStore {
    /// Whether `registry` (`host[:port]`, a URL of it, or empty for Docker Hub) takes the
    /// credentials. A registry that asks for none takes any.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] when it refuses them; a malformed name; no answer.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<(), ImageError> {
        let domain = domain(registry);
        // A session is about some repository; a login never gets as far as asking for it.
        let reference = Reference::parse(&format!("{domain}/login/login"))?;
        let mut last: ImageError = RegistryError::Invalid("no endpoint".to_owned()).into();
        for endpoint in self.shared.registry.endpoints(reference.domain()).await? {
            if endpoint.mirror {
                continue;
            }
            let credentials = Some(credentials.clone());
            let session =
                Session::new(&self.shared.registry, endpoint, reference.clone(), credentials);
            match session.login().await {
                Ok(()) => return Ok(()),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

/// The registry's name in what clients call its address.
fn domain(registry: &str) -> &str {
    let bare = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry);
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_names() {
        for (address, name) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://reg.example:5000/v2/", "reg.example:5000"),
        ] {
            assert_eq!(domain(address), name, "{address}");
        }
    }
}
