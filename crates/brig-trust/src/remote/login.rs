//! Credentials: Basic, or a bearer token from the server that the trust server names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::web::WebConnector;
use brig_types::challenge::Challenge;
use brig_types::secret::SecretString;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;

use super::connection::{Connection, ServerAddress};
use super::{Proxies, RemoteError};
use crate::name::Gun;

/// Largest answer of a token server.
const MAX_TOKEN: usize = 256 << 10;
const CLIENT_ID: &str = "brig";

/// Who somebody is to the trust server: as to the registry.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretString,
    /// What a token server takes in a password's place.
    pub identity_token: SecretString,
}

impl Credentials {
    /// Whether there are none.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.identity_token.is_empty() && self.username.is_empty()
    }
}

/// What is going to be done to a repository; tokens are for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reading.
    Pull,
    /// Reading and publishing.
    Push,
    /// Everything: deleting, and new keys of the server's.
    All,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::All => "*",
        }
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The header that answers the first of a refusal's challenges that can be.
pub(crate) async fn answer(
    refusal: &HeaderMap,
    credentials: &Credentials,
    way: (&WebConnector, &Proxies),
    gun: Option<&Gun>,
    action: Action,
) -> Result<HeaderValue, RemoteError> {
    let challenges = refusal.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    for challenge in challenges.flat_map(Challenge::parse_all) {
        match challenge.scheme.as_str() {
            "bearer" => return bearer(&challenge, credentials, way, gun, action).await,
            "basic" if !credentials.username.is_empty() => return basic(credentials),
            _ => {}
        }
    }
    Err(RemoteError::Unauthorized)
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, RemoteError> {
    let pair = SecretString::new(format!(
        "{}:{}",
        credentials.username,
        credentials.password.expose_secret()
    ));
    secret_header(&format!("Basic {}", STANDARD.encode(pair.expose_secret())))
}

fn secret_header(text: &str) -> Result<HeaderValue, RemoteError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| RemoteError::Answer("token"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn bearer(
    challenge: &Challenge,
    credentials: &Credentials,
    (tls, proxies): (&WebConnector, &Proxies),
    gun: Option<&Gun>,
    action: Action,
) -> Result<HeaderValue, RemoteError> {
    // SECURITY: the trust server names who gets the password. Its name may be any, but only over
    // TLS, verified as for the trust server itself.
    let realm = challenge.parameter("realm");
    let (address, query) =
        ServerAddress::parse_uri(realm).map_err(|_| RemoteError::Realm(realm.to_owned()))?;
    let service = challenge.parameter("service");
    let scope = match gun {
        Some(gun) => format!("repository:{gun}:{}", action.as_str()),
        None => challenge.parameter("scope").to_owned(),
    };
    let mut pairs = Vec::new();
    let mut request = Request::new(Bytes::new());
    let path = if address.path().is_empty() { "/" } else { address.path() };
    if credentials.identity_token.is_empty() {
        if !credentials.username.is_empty() {
            pairs.push(("account", credentials.username.as_str()));
            request.headers_mut().insert(AUTHORIZATION, basic(credentials)?);
        }
        pairs.push(("scope", &scope));
        pairs.push(("service", service));
        let query =
            if query.is_empty() { form(&pairs) } else { format!("{query}&{}", form(&pairs)) };
        *request.uri_mut() = uri(&format!("{path}?{query}"))?;
    } else {
        pairs.push(("grant_type", "refresh_token"));
        pairs.push(("refresh_token", credentials.identity_token.expose_secret()));
        pairs.push(("service", service));
        pairs.push(("client_id", CLIENT_ID));
        pairs.push(("scope", &scope));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri(path)?;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        *request.body_mut() = form(&pairs).into();
    }
    let connection = Connection::new(address, tls.clone()).through(proxies.clone());
    let answer = connection.exchange(request, MAX_TOKEN).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(RemoteError::Credentials),
        status => return Err(RemoteError::Status(status.as_u16())),
    }
    let token: Token =
        serde_json::from_slice(&answer.body).map_err(|_| RemoteError::Answer("token"))?;
    let token = token.token.filter(|t| !t.is_empty()).or(token.access_token).unwrap_or_default();
    let token = SecretString::new(token);
    if token.is_empty() {
        return Err(RemoteError::Answer("token"));
    }
    secret_header(&format!("Bearer {}", token.expose_secret()))
}

fn uri(text: &str) -> Result<http::Uri, RemoteError> {
    text.parse().map_err(|_| RemoteError::Request(text.to_owned()))
}

/// `application/x-www-form-urlencoded`.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_as_the_real_clients_do() {
        let scope = form(&[("account", "u"), ("scope", "repository:h:5000/a:pull,push")]);
        assert_eq!(scope, "account=u&scope=repository%3Ah%3A5000%2Fa%3Apull%2Cpush");
    }
}
