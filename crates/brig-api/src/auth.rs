//! Registry credentials in the `X-Registry-Auth` header.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE};
use serde::{Deserialize, Serialize};

use crate::data::SecretText;
use crate::nullable::{is_default, or_default};

/// The longest header that is read, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// The name of the header.
pub const HEADER: &str = "X-Registry-Auth";

/// Why credentials were refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuth {
    /// Not base64 in either alphabet.
    #[error("invalid X-Registry-Auth header: not base64")]
    NotBase64,
    /// Not the expected JSON.
    #[error("invalid X-Registry-Auth header: not the expected JSON")]
    NotJson,
    /// Longer than [`MAX_LEN`].
    #[error("invalid X-Registry-Auth header: too long")]
    TooLong,
}

impl brig_types::error::Categorized for InvalidAuth {
    fn kind(&self) -> brig_types::error::ErrorKind {
        brig_types::error::ErrorKind::InvalidParameter
    }
}

/// Credentials for one registry. The names are those of the wire.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryAuth {
    /// User name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub username: String,
    /// Password.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub password: SecretText,
    /// Base64 of `user:password`, instead of the two.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub auth: SecretText,
    /// The registry.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub serveraddress: String,
    /// A refresh token, instead of a password.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub identitytoken: SecretText,
    /// A bearer token to use as it is.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub registrytoken: SecretText,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Name of the header with credentials for several registries, for builds.
pub const CONFIG_HEADER: &str = "X-Registry-Config";

/// Reads the header with credentials for several registries, by the name that the client keeps
/// them under.
///
/// # Errors
/// [`InvalidAuth`]; its text never has the header's content in it.
pub fn configs_from_header(text: &str) -> Result<BTreeMap<String, RegistryAuth>, InvalidAuth> {
    let json = decoded(text)?;
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    let configs: BTreeMap<String, RegistryAuth> =
        serde_json::from_slice(json.expose_secret()).map_err(|_| InvalidAuth::NotJson)?;
    Ok(configs.into_iter().map(|(name, auth)| (name, auth.with_auth_split())).collect())
}

fn decoded(text: &str) -> Result<brig_types::secret::SecretBytes, InvalidAuth> {
    let text = text.trim();
    if text.len() > MAX_LEN {
        return Err(InvalidAuth::TooLong);
    }
    ANY_URL_SAFE
        .decode(text)
        .or_else(|_| ANY_STANDARD.decode(text))
        .map(brig_types::secret::SecretBytes::new)
        .map_err(|_| InvalidAuth::NotBase64)
}

impl RegistryAuth {
    /// Reads the header, in either base64 alphabet, padded or not. Empty text and `{}` are no
    /// credentials.
    ///
    /// # Errors
    /// [`InvalidAuth`]; its text never has the header's content in it.
    pub fn from_header(text: &str) -> Result<Self, InvalidAuth> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let json = decoded(text)?;
        let auth: Self =
            serde_json::from_slice(json.expose_secret()).map_err(|_| InvalidAuth::NotJson)?;
        Ok(auth.with_auth_split())
    }

    /// The header's value.
    #[must_use]
    pub fn to_header(&self) -> SecretText {
        // Strings cannot fail to serialise.
        let json = serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec());
        let json = brig_types::secret::SecretBytes::new(json);
        SecretText::from(URL_SAFE.encode(json.expose_secret()))
    }

    /// Whether there are no credentials.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.auth.is_empty()
            && self.identitytoken.is_empty()
            && self.registrytoken.is_empty()
    }

    /// Takes user and password out of `auth` when they are only there.
    #[must_use]
    pub fn with_auth_split(mut self) -> Self {
        if self.username.is_empty()
            && self.password.is_empty()
            && let Ok(pair) = ANY_STANDARD.decode(self.auth.expose_secret())
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((user, password)) = pair.split_once(':')
        {
            self.username = user.to_owned();
            self.password = SecretText::from(password.trim_end_matches('\0').to_owned());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base64_is_read() {
        let json = br#"{"username":"u","password":"p?>w","serveraddress":"h:5000"}"#;
        let standard = base64::engine::general_purpose::STANDARD.encode(json);
        let unpadded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
        for text in [&URL_SAFE.encode(json), &standard, &unpadded] {
            let auth = RegistryAuth::from_header(text).unwrap();
            assert_eq!(auth.username, "u");
            assert_eq!(auth.password.expose_secret(), "p?>w");
            assert_eq!(auth.serveraddress, "h:5000");
        }
        assert!(RegistryAuth::from_header("e30=").unwrap().is_anonymous());
        assert_eq!(RegistryAuth::default().to_header().expose_secret(), "e30=");
    }

    #[test]
    fn auth_is_split_and_nothing_leaks() {
        let header = URL_SAFE.encode(br#"{"auth":"dTpzZWNyZXQ="}"#);
        let auth = RegistryAuth::from_header(&header).unwrap();
        assert_eq!((auth.username.as_str(), auth.password.expose_secret()), ("u", "secret"));
        assert!(!format!("{auth:?}").contains("secret"));
        let error = RegistryAuth::from_header(&URL_SAFE.encode(b"hunter2")).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
