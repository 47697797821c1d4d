//! Talking to one registry about one repository: authentication, redirects, manifests, small blobs.

use brig_pki::hash::sha256;
use brig_types::challenge::Challenge;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use brig_types::secret::SecretString;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::endpoint::{Endpoint, same_origin};
use super::{Credentials, RegistryClient, Use, answer, token};
use crate::error::RegistryError;
use crate::limits::MAX_MANIFEST;
use crate::manifest::{Descriptor, INDEX_TYPES, MANIFEST_TYPES};

const MAX_REDIRECTS: usize = 5;
/// Most pages of a list of tags that are followed.
const MAX_TAG_PAGES: usize = 1_000;

/// Makes the body of a request, as often as it is sent.
pub(super) type MakeBody<'b> = &'b (dyn Fn() -> Result<reqwest::Body, RegistryError> + Sync);

/// A conversation about one repository.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(super) client: &'a RegistryClient,
    pub(super) endpoint: Endpoint,
    pub(super) reference: Reference,
    credentials: Option<Credentials>,
    /// What a token is asked for.
    scope: String,
    /// The value of `Authorization`, once the registry asked for one.
    authorization: Mutex<Option<SecretString>>,
}

/// A manifest's bytes with what the registry says they are.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        client: &'a RegistryClient,
        endpoint: Endpoint,
        reference: Reference,
        credentials: Option<Credentials>,
    ) -> Self {
        // SECURITY: a mirror is somebody else; it gets nothing.
        let credentials = credentials.filter(|c| !endpoint.mirror && !c.is_empty());
        let ready = credentials
            .as_ref()
            .and_then(|c| c.registry_token.as_ref())
            .filter(|token| !token.is_empty())
            .map(|token| SecretString::new(format!("Bearer {}", token.expose_secret())));
        let scope = format!("repository:{}:pull", reference.path());
        Self { client, endpoint, reference, credentials, scope, authorization: Mutex::new(ready) }
    }

    /// The conversation may also write, and read what is mounted from other repositories.
    #[must_use]
    pub(crate) fn for_push(mut self, mounted: &[String]) -> Self {
        self.scope.push_str(",push");
        for repository in mounted {
            self.scope.push_str(&format!(" repository:{repository}:pull"));
        }
        self
    }

    /// Asks the registry whether it takes the credentials, for nothing in particular.
    pub(crate) async fn login(mut self) -> Result<(), RegistryError> {
        self.scope.clear();
        let url = self.endpoint.url("")?;
        let response = self.send(Method::GET, &url, &HeaderMap::new()).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status();
        let text = format!("login attempt to {url} failed with status: {status}");
        if status == StatusCode::UNAUTHORIZED {
            return Err(RegistryError::Unauthorized(text));
        }
        Err(RegistryError::Invalid(text))
    }

    pub(super) const fn client(&self) -> &RegistryClient {
        self.client
    }

    /// All tags of the repository.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct List {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut url = self.endpoint.url(&format!("{}/tags/list", self.reference.path()))?;
        let mut tags = Vec::new();
        for _ in 0..MAX_TAG_PAGES {
            let mut response = self.send(Method::GET, &url, &HeaderMap::new()).await?;
            if !response.status().is_success() {
                return Err(answer::error(response, "Get", url.as_str(), &self.reference).await);
            }
            let next = next_page(response.headers());
            let bytes = answer::read(&mut response, MAX_MANIFEST, "list of tags").await?;
            let list: List = serde_json::from_slice(&bytes).map_err(|_| {
                RegistryError::Invalid("the list of tags is not readable".to_owned())
            })?;
            tags.extend(list.tags.unwrap_or_default());
            let Some(next) = next else { return Ok(tags) };
            // SECURITY: the list goes on below the same registry only.
            url = url
                .join(&next)
                .ok()
                .filter(|next| self.endpoint.is_below(next))
                .ok_or_else(|| RegistryError::Redirect(next.chars().take(300).collect()))?;
        }
        Err(RegistryError::TooLarge { what: "list of tags", limit: MAX_MANIFEST })
    }

    /// What a tag stands for, without fetching it: some registries count fetches. `None` when the
    /// registry does not say; then the fetch says it, or why not.
    pub(crate) async fn digest_of(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let url = self.manifest_url(tag)?;
        let response = self.send(Method::HEAD, &url, &accept_manifests()).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        Ok(header_digest(response.headers()))
    }

    /// Fetches a manifest by tag.
    pub(crate) async fn manifest_by_tag(&self, tag: &str) -> Result<Found, RegistryError> {
        self.manifest(tag, None, None).await
    }

    /// Fetches a manifest by digest.
    pub(crate) async fn manifest_by_digest(
        &self,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Found, RegistryError> {
        self.manifest(digest.as_str(), Some(digest), size).await
    }

    async fn manifest(
        &self,
        name: &str,
        expected: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<Found, RegistryError> {
        let url = self.manifest_url(name)?;
        let mut response = self.send(Method::GET, &url, &accept_manifests()).await?;
        if !response.status().is_success() {
            return Err(answer::error(response, "Get", url.as_str(), &self.reference).await);
        }
        let media_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let announced = header_digest(response.headers());
        let bytes = answer::read(&mut response, MAX_MANIFEST, "manifest").await?;
        let digest = Digest::from_sha256(sha256(&bytes));
        if let Some(expected) = expected.or(announced.as_ref())
            && *expected != digest
        {
            return Err(RegistryError::WrongDigest {
                what: "manifest",
                expected: expected.clone(),
                actual: digest,
            });
        }
        check_size("manifest", size, &bytes)?;
        Ok(Found { digest, media_type, bytes })
    }

    /// Fetches a small blob whole.
    pub(crate) async fn blob(
        &self,
        descriptor: &Descriptor,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > limit {
            return Err(RegistryError::TooLarge { what, limit });
        }
        let url = self.blob_url(&descriptor.digest)?;
        let mut response = self.send(Method::GET, &url, &HeaderMap::new()).await?;
        if !response.status().is_success() {
            return Err(answer::error(response, "Get", url.as_str(), &self.reference).await);
        }
        let bytes = answer::read(&mut response, limit, what).await?;
        check_size(what, Some(descriptor.size), &bytes)?;
        let actual = Digest::from_sha256(sha256(&bytes));
        if actual != descriptor.digest {
            return Err(RegistryError::WrongDigest {
                what,
                expected: descriptor.digest.clone(),
                actual,
            });
        }
        Ok(bytes)
    }

    /// Begins to fetch a blob at an offset.
    pub(super) async fn open_blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<Response, RegistryError> {
        let url = self.blob_url(digest)?;
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(value) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            headers.insert(RANGE, value);
        }
        let response = self.send(Method::GET, &url, &headers).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(answer::error(response, "Get", url.as_str(), &self.reference).await)
    }

    pub(super) fn manifest_url(&self, name: &str) -> Result<Url, RegistryError> {
        self.endpoint.url(&format!("{}/manifests/{name}", self.reference.path()))
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> Result<Url, RegistryError> {
        self.endpoint.url(&format!("{}/blobs/{digest}", self.reference.path()))
    }

    /// Sends a request, and once more with what the registry asks for.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response, RegistryError> {
        self.send_body(method, url, headers, None).await
    }

    /// [`Session::send`] with a body.
    pub(super) async fn send_body(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<MakeBody<'_>>,
    ) -> Result<Response, RegistryError> {
        let used = self.authorization.lock().await.clone();
        let response = self.send_as(&method, url, headers, used.as_ref(), body).await?;
        if response.status() != StatusCode::UNAUTHORIZED
            || !same_origin(response.url(), url)
            || self.credentials.as_ref().is_some_and(|c| c.registry_token.is_some())
        {
            return Ok(response);
        }
        let challenges: Vec<_> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(Challenge::parse_all)
            .collect();
        let fresh = {
            let mut authorization = self.authorization.lock().await;
            // Another transfer may have renewed the token meanwhile.
            let same = authorization.as_ref().map(SecretString::expose_secret)
                == used.as_ref().map(SecretString::expose_secret);
            if same {
                let Some(fresh) = self.authorize(&challenges, &method, url).await? else {
                    return Ok(response);
                };
                *authorization = Some(fresh);
            }
            authorization.clone()
        };
        self.send_as(&method, url, headers, fresh.as_ref(), body).await
    }

    async fn authorize(
        &self,
        challenges: &[Challenge],
        method: &Method,
        url: &Url,
    ) -> Result<Option<SecretString>, RegistryError> {
        use base64::Engine as _;
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            let token = token::fetch(
                self.client,
                self.endpoint.reach,
                bearer,
                &self.scope,
                self.credentials.as_ref(),
            )
            .await?;
            return Ok(Some(SecretString::new(format!("Bearer {}", token.expose_secret()))));
        }
        if challenges.iter().any(|c| c.scheme == "basic") {
            let Some(credentials) = self.credentials.as_ref().filter(|c| !c.username.is_empty())
            else {
                return Err(RegistryError::NoCredentials {
                    method: method_name(method),
                    url: url.to_string(),
                });
            };
            let pair = format!("{}:{}", credentials.username, credentials.password.expose_secret());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            return Ok(Some(SecretString::new(format!("Basic {encoded}"))));
        }
        Ok(None)
    }

    async fn send_as(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&SecretString>,
        body: Option<MakeBody<'_>>,
    ) -> Result<Response, RegistryError> {
        let mut target = url.clone();
        let mut reach = self.endpoint.reach;
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client.client(&target, reach, Use::of(body.is_some())).await?;
            let mut request =
                client.request(method.clone(), target.clone()).headers(headers.clone());
            if let Some(body) = body {
                request = request.body(body()?);
            }
            // SECURITY: the registry's credentials are for the registry, not for the storage that
            // it sends its clients to.
            if let Some(authorization) = authorization
                && self.endpoint.is_origin_of(&target)
            {
                let mut value = HeaderValue::from_str(authorization.expose_secret())
                    .map_err(|_| RegistryError::Invalid("unusable credentials".to_owned()))?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let response = request.send().await.map_err(|source| RegistryError::Request {
                method: method_name(method),
                url: target.to_string(),
                source: source.without_url(),
            })?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| RegistryError::Redirect(String::new()))?;
            let refused =
                || RegistryError::Redirect(location.chars().take(300).collect::<String>());
            let next = target.join(location).map_err(|_| refused())?;
            // SECURITY: what began with proof goes on with proof; nobody else's plain HTTP.
            reach = match self.client.reach_of(&next) {
                Some(next_reach) if next_reach <= self.endpoint.reach => next_reach,
                _ => return Err(refused()),
            };
            target = next;
        }
        Err(RegistryError::Redirect("more than five redirects".to_owned()))
    }
}

fn accept_manifests() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for media_type in MANIFEST_TYPES.iter().chain(&INDEX_TYPES) {
        headers.append(ACCEPT, HeaderValue::from_static(media_type));
    }
    headers
}

fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get("docker-content-digest")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Digest::parse(text).ok())
}

fn check_size(what: &'static str, size: Option<u64>, bytes: &[u8]) -> Result<(), RegistryError> {
    let actual = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    match size {
        Some(expected) if expected != actual => {
            Err(RegistryError::WrongSize { what, expected, actual })
        }
        _ => Ok(()),
    }
}

/// The address of the next page (RFC 8288).
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get("link")?.to_str().ok()?;
    let (address, rest) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| address.to_owned())
}

pub(super) fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "Head",
        "POST" => "Post",
        "PUT" => "Put",
        "PATCH" => "Patch",
        _ => "Get",
    }
}
