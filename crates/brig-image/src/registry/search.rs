//! Searching an index: Docker Hub's v1 search API, which other registries' indexes have too.

use brig_types::reference::DEFAULT_DOMAIN;
use brig_types::secret::SecretString;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;

use super::endpoint::{Reach, index_candidates};
use super::{Credentials, RegistryClient, Use, answer};
use crate::error::{ImageError, RegistryError};
use crate::store::ImageStore;

/// Longest answer of an index.
const MAX_RESULTS: u64 = 4 << 20;

/// One repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// In the words of whoever owns it.
    #[serde(default, deserialize_with = "nullable")]
    pub description: String,
    /// How many people like it.
    #[serde(default)]
    pub star_count: i64,
    /// Kept by the index itself.
    #[serde(default)]
    pub is_official: bool,
    /// Built from a source repository.
    #[serde(default)]
    pub is_automated: bool,
}

fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<SearchResult>,
}

impl ImageStore {
    /// Searches the index that a term names (`host/words`; Docker Hub without a host).
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        auth: Option<Credentials>,
    ) -> Result<Vec<SearchResult>, ImageError> {
        let (domain, words) = split(term);
        if words.is_empty() || domain.is_empty() {
            return Err(ImageError::Search(format!("invalid search term {term:?}")));
        }
        let registry = &self.shared.registry;
        let mut last: Option<RegistryError> = None;
        for (mut url, reach) in index_candidates(domain, registry.settings())? {
            url.query_pairs_mut().append_pair("q", words).append_pair("n", &limit.to_string());
            match ask(registry, &url, reach, auth.as_ref()).await {
                Err(error @ RegistryError::Request { .. }) => last = Some(error),
                other => return Ok(other?),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Invalid("no endpoint".to_owned())).into())
    }
}

async fn ask(
    registry: &RegistryClient,
    url: &reqwest::Url,
    reach: Reach,
    auth: Option<&Credentials>,
) -> Result<Vec<SearchResult>, RegistryError> {
    let mut request = registry.client(url, reach, Use::Ask).await?.get(url.clone());
    if let Some(auth) = auth {
        let token = auth.identity_token.as_ref().filter(|token| !token.is_empty());
        request = match token {
            Some(token) => {
                let text = SecretString::new(format!("Bearer {}", token.expose_secret()));
                let mut value = HeaderValue::from_str(text.expose_secret())
                    .map_err(|_| RegistryError::Invalid("unusable credentials".to_owned()))?;
                value.set_sensitive(true);
                request.header(AUTHORIZATION, value)
            }
            None if !auth.username.is_empty() => {
                request.basic_auth(&auth.username, Some(auth.password.expose_secret()))
            }
            None => request,
        };
    }
    let mut response = request.send().await.map_err(|source| RegistryError::Request {
        method: "Get",
        url: url.to_string(),
        source: source.without_url(),
    })?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(RegistryError::Invalid(format!("Unexpected status code {status}")));
    }
    let bytes = answer::read(&mut response, MAX_RESULTS, "search result").await?;
    let results: Results = serde_json::from_slice(&bytes)
        .map_err(|_| RegistryError::Invalid("error decoding registry search results".to_owned()))?;
    Ok(results.results)
}

/// Index and words of a term, by docker's rule of what a host is.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let host = match first {
                "docker.io" | "index.docker.io" => DEFAULT_DOMAIN,
                host => host,
            };
            (host, if host == DEFAULT_DOMAIN { bare(rest) } else { rest })
        }
        _ => (DEFAULT_DOMAIN, bare(term)),
    }
}

/// Official images are known by their last name.
fn bare(term: &str) -> &str {
    term.strip_prefix("library/").unwrap_or(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_index() {
        for (term, index, words) in [
            ("busybox", "docker.io", "busybox"),
            ("library/busybox", "docker.io", "busybox"),
            ("team/app", "docker.io", "team/app"),
            ("docker.io/library/x", "docker.io", "x"),
            ("127.0.0.1:5000/team/app", "127.0.0.1:5000", "team/app"),
            ("localhost/x", "localhost", "x"),
            ("reg.example/", "reg.example", ""),
        ] {
            assert_eq!(split(term), (index, words), "{term}");
        }
    }
}
