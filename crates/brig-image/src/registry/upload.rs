//! Sending blobs and manifests to a registry.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brig_types::digest::Digest;
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::header::{LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::Instant;

use super::answer;
use super::session::{MakeBody, Session, method_name};
use super::transfer::is_passing;
use crate::error::RegistryError;
use crate::progress::LayerState;

/// Size of the pieces that a file is read in.
const PIECE: usize = 256 << 10;
/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Longest time in which nothing of a body is taken and nothing is answered.
const STALLED: Duration = Duration::from_secs(120);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A blob that lies in a file.
#[derive(Clone, Debug)]
pub(crate) struct BlobFile {
    pub(crate) file: Arc<File>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One blob on its way to the registry.
pub(crate) struct Upload<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) blob: &'a BlobFile,
    pub(crate) report: &'a (dyn Fn(LayerState) + Send + Sync),
}

impl Upload<'_> {
    /// Sends the blob; goes on where the registry says it is when the transfer broke off.
    pub(crate) async fn run(self) -> Result<(), RegistryError> {
        let settings = self.session.client().settings();
        let mut pause = settings.retry_pause;
        let mut attempt = 0_u32;
        let mut place: Option<Url> = None;
        let sent = Arc::new(AtomicU64::new(0));
        loop {
            let before = sent.load(Ordering::Relaxed);
            let error = match self.attempt(&mut place, &sent).await {
                Ok(()) => return Ok(()),
                Err(error) if is_passing(&error) => error,
                Err(error) => return Err(error),
            };
            if sent.load(Ordering::Relaxed) > before {
                attempt = 0;
                pause = settings.retry_pause;
            }
            attempt += 1;
            if attempt >= settings.download_attempts.max(1) {
                return Err(error);
            }
            tracing::debug!(
                digest = %self.blob.digest,
                error = %brig_types::error::chain(&error),
                "sending a layer broke off"
            );
            (self.report)(LayerState::Retrying {
                seconds: u64::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(1),
            });
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn attempt(
        &self,
        place: &mut Option<Url>,
        sent: &Arc<AtomicU64>,
    ) -> Result<(), RegistryError> {
        let known = match place.take() {
            Some(url) => self.session.upload_status(&url).await,
            None => None,
        };
        let (url, offset) = match known {
            Some((url, offset)) if offset <= self.blob.size => (url, offset),
            _ => (self.session.begin_upload().await?, 0),
        };
        *place = Some(url.clone());
        sent.store(offset, Ordering::Relaxed);
        let left = self.blob.size - offset;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(left));
        if offset > 0 {
            let range = format!("{offset}-{}", self.blob.size.saturating_sub(1));
            if let Ok(range) = HeaderValue::try_from(range) {
                headers.insert(CONTENT_RANGE, range);
            }
        }
        let (blob, counter) = (self.blob.clone(), Arc::clone(sent));
        let body = move || {
            counter.store(offset, Ordering::Relaxed);
            Ok(reqwest::Body::wrap_stream(pieces(blob.clone(), offset, Arc::clone(&counter))))
        };
        let request = self.session.send_body(Method::PATCH, &url, &headers, Some(&body));
        let response = self.watched(request, sent).await?;
        let response = self.session.expect(response, "Patch", &url, StatusCode::ACCEPTED).await?;
        let url = self.session.location(&response, &url)?;
        *place = Some(url.clone());
        self.session.finish_upload(url, &self.blob.digest).await
    }

    /// Waits for the answer as long as something moves, and tells how far it is.
    async fn watched(
        &self,
        request: impl Future<Output = Result<Response, RegistryError>>,
        sent: &AtomicU64,
    ) -> Result<Response, RegistryError> {
        tokio::pin!(request);
        let total = self.blob.size;
        let mut last = (sent.load(Ordering::Relaxed), Instant::now());
        loop {
            tokio::select! {
                answer = &mut request => {
                    let current = sent.load(Ordering::Relaxed);
                    (self.report)(LayerState::Pushing { current, total });
                    return answer;
                }
                () = tokio::time::sleep(REPORT_EVERY) => {
                    let current = sent.load(Ordering::Relaxed);
                    if current != last.0 {
                        (self.report)(LayerState::Pushing { current, total });
                        last = (current, Instant::now());
                    } else if last.1.elapsed() > STALLED {
                        let digest = self.blob.digest.clone();
                        return Err(RegistryError::Broken { digest, at: current, size: total });
                    }
                }
            }
        }
    }
}

/// The file from an offset on, read piece by piece.
fn pieces(
    blob: BlobFile,
    offset: u64,
    sent: Arc<AtomicU64>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures_util::stream::try_unfold(offset, move |at| {
        let (blob, sent) = (blob.clone(), Arc::clone(&sent));
        async move {
            let left = blob.size.saturating_sub(at);
            if left == 0 {
                return Ok(None);
            }
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let file = Arc::clone(&blob.file);
            let piece = tokio::task::spawn_blocking(move || -> io::Result<Vec<u8>> {
                let mut piece = vec![0; want];
                file.read_exact_at(&mut piece, at)?;
                Ok(piece)
            })
            .await
            .map_err(io::Error::other)??;
            let next = at + u64::try_from(piece.len()).unwrap_or(left);
            sent.store(next, Ordering::Relaxed);
            Ok(Some((Bytes::from(piece), next)))
        }
    })
}

impl Session<'_> {
    /// The size of a blob that the repository has.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let url = self.blob_url(digest)?;
        let response = self.send(Method::HEAD, &url, &HeaderMap::new()).await.map_err(for_push)?;
        match response.status() {
            status if status.is_success() => Ok(response
                .headers()
                .get(CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| text.parse().ok())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(response, "Head", &url).await),
        }
    }

    /// Asks the registry to take a blob from another of its repositories. Whether it did.
    pub(crate) async fn mount_blob(
        &self,
        digest: &Digest,
        from: &str,
    ) -> Result<bool, RegistryError> {
        let mut url = self.uploads_url()?;
        url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        let response = self.send(Method::POST, &url, &HeaderMap::new()).await.map_err(for_push)?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // It began an upload instead; nothing will come of that one.
                if let Ok(begun) = self.location(&response, &url) {
                    let _ = self.send(Method::DELETE, &begun, &HeaderMap::new()).await;
                }
                Ok(false)
            }
            status if status.is_client_error() => Ok(false),
            _ => Err(self.refused(response, "Post", &url).await),
        }
    }

    /// Sends a small blob in one go.
    pub(crate) async fn put_blob(
        &self,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let mut url = self.begin_upload().await?;
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let body = || Ok(reqwest::Body::from(bytes.to_vec()));
        let response = self.send_within(Method::PUT, &url, &headers, &body).await?;
        self.expect(response, "Put", &url, StatusCode::CREATED).await.map(drop)
    }

    /// Publishes a manifest under a tag.
    pub(crate) async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let url = self.manifest_url(tag)?;
        let mut headers = HeaderMap::new();
        let media_type = HeaderValue::try_from(media_type)
            .map_err(|_| RegistryError::Invalid(format!("media type {media_type:?}")))?;
        headers.insert(CONTENT_TYPE, media_type);
        let body = || Ok(reqwest::Body::from(bytes.to_vec()));
        let response = self.send_within(Method::PUT, &url, &headers, &body).await?;
        self.expect(response, "Put", &url, StatusCode::CREATED).await.map(drop)
    }

    async fn send_within(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: MakeBody<'_>,
    ) -> Result<Response, RegistryError> {
        let name = method_name(&method);
        let request = self.send_body(method, url, headers, Some(body));
        tokio::time::timeout(STALLED, request)
            .await
            .map_err(|_| RegistryError::NoAnswer { method: name, url: url.to_string() })?
            .map_err(for_push)
    }

    fn uploads_url(&self) -> Result<Url, RegistryError> {
        self.endpoint.url(&format!("{}/blobs/uploads/", self.reference.path()))
    }

    async fn begin_upload(&self) -> Result<Url, RegistryError> {
        let url = self.uploads_url()?;
        let response = self.send(Method::POST, &url, &HeaderMap::new()).await.map_err(for_push)?;
        let response = self.expect(response, "Post", &url, StatusCode::ACCEPTED).await?;
        self.location(&response, &url)
    }

    /// Where an upload that broke off goes on, and from which byte.
    async fn upload_status(&self, url: &Url) -> Option<(Url, u64)> {
        let response = self.send(Method::GET, url, &HeaderMap::new()).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let range = response.headers().get(RANGE)?.to_str().ok()?;
        let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
        let last: u64 = last.parse().ok()?;
        // The protocol cannot tell one byte from none; `0-0` is taken as none.
        let offset = if last == 0 { 0 } else { last.checked_add(1)? };
        let next = self.location(&response, url).unwrap_or_else(|_| url.clone());
        Some((next, offset))
    }

    async fn finish_upload(&self, mut url: Url, digest: &Digest) -> Result<(), RegistryError> {
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let body = || Ok(reqwest::Body::from(Vec::new()));
        let response = self.send_within(Method::PUT, &url, &HeaderMap::new(), &body).await?;
        self.expect(response, "Put", &url, StatusCode::CREATED).await.map(drop)
    }

    /// Where the registry says that it goes on.
    ///
    /// SECURITY: what began with proof goes on with proof, as for redirects; credentials only go
    /// to the registry itself ([`Session::send_body`]).
    fn location(&self, response: &Response, url: &Url) -> Result<Url, RegistryError> {
        let text = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| RegistryError::Invalid("the upload has no location".to_owned()))?;
        url.join(text)
            .ok()
            .filter(|next| {
                self.client.reach_of(next).is_some_and(|reach| reach <= self.endpoint.reach)
            })
            .ok_or_else(|| RegistryError::Redirect(text.chars().take(300).collect()))
    }

    async fn expect(
        &self,
        response: Response,
        method: &'static str,
        url: &Url,
        status: StatusCode,
    ) -> Result<Response, RegistryError> {
        let got = response.status();
        if got == status || (got.is_success() && status == StatusCode::CREATED) {
            return Ok(response);
        }
        Err(self.refused(response, method, url).await)
    }

    async fn refused(&self, response: Response, method: &'static str, url: &Url) -> RegistryError {
        for_push(answer::error(response, method, url.as_str(), &self.reference).await)
    }
}

/// Refusals in the words that docker has for pushes.
fn for_push(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Denied { detail, .. } => RegistryError::PushDenied(detail),
        RegistryError::NoCredentials { .. } => {
            RegistryError::Unauthorized("no basic auth credentials".to_owned())
        }
        other => other,
    }
}
