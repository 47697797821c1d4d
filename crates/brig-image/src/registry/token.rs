//! Getting a bearer token (distribution's token and OAuth2 specifications).

use brig_types::challenge::Challenge;
use brig_types::secret::SecretString;
use reqwest::Url;
use serde::Deserialize;

use super::endpoint::Reach;
use super::{Credentials, RegistryClient, Use, answer};
use crate::error::RegistryError;
use crate::limits::MAX_TOKEN;

const CLIENT_ID: &str = "brig";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Asks the token server that a challenge names.
pub(super) async fn fetch(
    client: &RegistryClient,
    registry: Reach,
    challenge: &Challenge,
    scope: &str,
    credentials: Option<&Credentials>,
) -> Result<SecretString, RegistryError> {
    let realm = challenge.parameter("realm");
    let mut url = Url::parse(realm).map_err(|_| RegistryError::Realm(printable(realm)))?;
    // SECURITY: the registry names the server that gets the password. Its name may be any (Docker
    // Hub's is another one), but only over TLS, or where TLS is waived for the server itself and
    // was not proved for the registry either.
    let reach = match client.reach_of(&url) {
        Some(Reach::Plain) if registry == Reach::Tls => None,
        reach => reach,
    }
    .filter(|_| url.username().is_empty() && url.password().is_none())
    .ok_or_else(|| RegistryError::Realm(printable(realm)))?;
    let http = client.client(&url, reach, Use::Ask).await?;
    let service = challenge.parameter("service");

    let refresh =
        credentials.and_then(|c| c.identity_token.as_ref()).filter(|token| !token.is_empty());
    let (method, request) = if let Some(refresh) = refresh {
        let mut form = Url::parse("form:/").map_err(|_| RegistryError::Realm(printable(realm)))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh.expose_secret())
            .append_pair("service", service)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", scope);
        let body = form.query().unwrap_or_default().to_owned();
        let request = http
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        ("Post", request)
    } else {
        {
            let mut pairs = url.query_pairs_mut();
            if let Some(credentials) = credentials
                && !credentials.username.is_empty()
            {
                pairs.append_pair("account", &credentials.username);
            }
            // Several scopes are several parameters here, one text in a form.
            for scope in scope.split_ascii_whitespace() {
                pairs.append_pair("scope", scope);
            }
            if !service.is_empty() {
                pairs.append_pair("service", service);
            }
        }
        let mut request = http.get(url.clone());
        if let Some(credentials) = credentials
            && !credentials.username.is_empty()
        {
            request = request
                .basic_auth(&credentials.username, Some(credentials.password.expose_secret()));
        }
        ("Get", request)
    };
    let place = printable(url.as_str());
    let mut response = request.send().await.map_err(|source| RegistryError::Request {
        method,
        url: place.clone(),
        source: source.without_url(),
    })?;
    if !response.status().is_success() {
        return Err(answer::token_error(response, method, &place).await);
    }
    let body = answer::read(&mut response, MAX_TOKEN, "token").await?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| RegistryError::Invalid("the token server's answer is not JSON".to_owned()))?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
    // It becomes a header: nothing but visible ASCII.
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(RegistryError::Invalid("the token server sent no usable token".to_owned()));
    }
    Ok(SecretString::new(token))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
