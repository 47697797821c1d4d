//! Reading answers within bounds, and what error answers mean.

use brig_types::challenge::Challenge;
use brig_types::reference::Reference;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::error::RegistryError;
use crate::limits::MAX_ERROR_BODY;

const MAX_DETAIL: usize = 1_000;

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn read(
    response: &mut Response,
    limit: u64,
    what: &'static str,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { what, limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let url = response.url().to_string();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| RegistryError::Request {
        method: "Get",
        url: url.clone(),
        source: source.without_url(),
    })? {
        body.extend_from_slice(&chunk);
        if u64::try_from(body.len()).is_ok_and(|len| len > limit) {
            return Err(too_large());
        }
    }
    Ok(body)
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Detail>,
    /// What some token servers send instead.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's first error as (code, docker's text of it).
async fn detail(mut response: Response) -> (String, String) {
    let Ok(body) = read(&mut response, MAX_ERROR_BODY, "error").await else {
        return Default::default();
    };
    let Ok(errors) = serde_json::from_slice::<Errors>(&body) else {
        return Default::default();
    };
    match errors.errors.into_iter().next() {
        Some(first) => {
            let words = first.code.to_ascii_lowercase().replace('_', " ");
            let message = if first.message.is_empty() { words.clone() } else { first.message };
            (first.code, clean(&format!("{words}: {message}")))
        }
        None => (String::new(), clean(&errors.details.unwrap_or_default())),
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect()
}

/// What an error answer to a request for a repository's content means, in docker's words.
pub(super) async fn error(
    response: Response,
    method: &'static str,
    url: &str,
    reference: &Reference,
) -> RegistryError {
    let status = response.status();
    let insufficient = response
        .headers()
        .get_all("www-authenticate")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Challenge::parse_all)
        .any(|c| c.parameter("error") == "insufficient_scope");
    let (code, text) = detail(response).await;
    let or =
        |text: String, fallback: &str| if text.is_empty() { fallback.to_owned() } else { text };
    let name = reference.familiar_name();
    match (status, code.as_str()) {
        (StatusCode::UNAUTHORIZED, _) if insufficient => RegistryError::Denied {
            name,
            detail: "denied: requested access to the resource is denied".to_owned(),
        },
        (_, "DENIED") | (StatusCode::FORBIDDEN, _) => RegistryError::Denied {
            name,
            detail: or(text, "denied: requested access to the resource is denied"),
        },
        (_, "NAME_UNKNOWN") => RegistryError::NameUnknown {
            name,
            detail: or(text, "name unknown: repository name not known to registry"),
        },
        (_, "MANIFEST_UNKNOWN") => RegistryError::ManifestUnknown {
            reference: reference.familiar(),
            detail: "manifest unknown: manifest unknown".to_owned(),
        },
        (StatusCode::NOT_FOUND, _) if url.contains("/manifests/") => {
            RegistryError::ManifestUnknown {
                reference: reference.familiar(),
                detail: or(text, "manifest unknown: manifest unknown"),
            }
        }
        (StatusCode::UNAUTHORIZED, _) => {
            RegistryError::Unauthorized(or(text, "unauthorized: authentication required"))
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            let text = text.strip_prefix("toomanyrequests: ").unwrap_or(&text).to_owned();
            RegistryError::TooManyRequests(or(text, "too many requests"))
        }
        _ => unexpected(status, method, url, text),
    }
}

/// What an error answer of a token server means.
pub(super) async fn token_error(
    response: Response,
    method: &'static str,
    url: &str,
) -> RegistryError {
    let status = response.status();
    let (_, text) = detail(response).await;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Unauthorized(if text.is_empty() {
                "unauthorized: incorrect username or password".to_owned()
            } else {
                text
            })
        }
        StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests(text),
        _ => unexpected(status, method, url, text),
    }
}

fn unexpected(status: StatusCode, method: &'static str, url: &str, text: String) -> RegistryError {
    let detail = if text.is_empty() { text } else { format!(": {text}") };
    RegistryError::Status { method, url: url.to_owned(), status: status.to_string(), detail }
}
