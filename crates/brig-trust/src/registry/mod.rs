//! One repository of a registry, as far as signatures take it: manifests and small blobs, read and
//! written (OCI distribution 1.1, docker's token authentication).
//!
//! SECURITY: TLS with verified certificates, except on loopback and for hosts that the user listed;
//! credentials go to the registry and to the token server that it names over TLS, never along a
//! redirect; every answer is bounded; what is fetched by digest has that digest.

mod client;
mod error;

use std::net::IpAddr;
use std::path::PathBuf;

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::cosign::Source;
use crate::remote::Credentials;
use client::Client;
pub use error::RegistryError;

/// Largest manifest.
const MAX_MANIFEST: usize = 4 << 20;
/// Largest answer that is only looked at for its status.
const MAX_SMALL: usize = 256 << 10;
/// Everything that an image's or a signature's manifest may be.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// `host` or `host:port` that may be reached without verified TLS, or without TLS.
    pub insecure: Vec<String>,
    /// Folders `<host[:port]>/` with `*.crt` (authorities) and `*.cert`, `*.key` (client); the
    /// first one that has the host counts.
    pub certificates: Vec<PathBuf>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self { insecure: Vec::new(), certificates: vec![PathBuf::from("/etc/docker/certs.d")] }
    }
}

impl RegistrySettings {
    /// Whether a registry may be reached without verified TLS: those on this machine, and those
    /// that are listed.
    fn is_insecure(&self, authority: &str, host: &str) -> bool {
        let is_loopback = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_loopback || self.insecure.iter().any(|listed| listed == authority || listed == host)
    }
}

/// A manifest as the registry has it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Manifest {
    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_sha256(sha256(&self.body))
    }
}

/// One repository.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    /// Within the registry, such as `library/busybox`.
    path: String,
}

impl Registry {
    /// Finds out how a reference's registry is reached.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open(
        reference: &Reference,
        credentials: Credentials,
        settings: &RegistrySettings,
    ) -> Result<Self, RegistryError> {
        let client = Client::open(reference.domain(), credentials, settings).await?;
        Ok(Self { client, path: reference.path().to_owned() })
    }

    fn path(&self, what: &str, which: &str) -> String {
        format!("/v2/{}/{what}/{which}", self.path)
    }

    /// The manifest of a tag, or the one with a digest; `None` if there is none.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest_with_type(
        &self,
        reference: &str,
    ) -> Result<Option<Manifest>, RegistryError> {
        let accept = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFESTS))]);
        let path = self.path("manifests", reference);
        let Some(answer) = self.client.get(&path, accept, MAX_MANIFEST).await? else {
            return Ok(None);
        };
        if let Ok(digest) = Digest::parse(reference) {
            client::check(&digest, &answer.body)?;
        }
        let media_type = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let media_type = media_type.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        Ok(Some(Manifest { media_type: media_type.trim().to_owned(), body: answer.body }))
    }

    /// The digest that a reference means now; `None` if there is no such image.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        let asked = match reference.digest() {
            Some(digest) => digest.as_str(),
            None => reference.tag().unwrap_or(brig_types::reference::DEFAULT_TAG),
        };
        Ok(self.manifest_with_type(asked).await?.map(|manifest| manifest.digest()))
    }

    /// Puts a blob there, unless it is there.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn put_blob(&self, digest: &Digest, blob: &[u8]) -> Result<(), RegistryError> {
        let path = self.path("blobs", digest.as_str());
        let empty = || (HeaderMap::new(), Bytes::new());
        let there = self.client.send(&Method::HEAD, &path, empty(), MAX_SMALL).await?;
        if there.status == StatusCode::OK {
            return Ok(());
        }
        let uploads = self.path("blobs", "uploads/");
        let begun = self.client.send(&Method::POST, &uploads, empty(), MAX_SMALL).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Err(self.client.refused("POST", &uploads, &begun));
        }
        let location = begun.headers.get(LOCATION).and_then(|l| l.to_str().ok());
        let location = location.ok_or(RegistryError::Answer("place for an upload"))?;
        let place = self.client.own(location)?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{separator}digest=sha256%3A{}", digest.hex());
        let kind = HeaderValue::from_static("application/octet-stream");
        let content = (HeaderMap::from_iter([(CONTENT_TYPE, kind)]), Bytes::copy_from_slice(blob));
        let done = self.client.send(&Method::PUT, &place, content, MAX_SMALL).await?;
        if done.status == StatusCode::CREATED {
            return Ok(());
        }
        Err(self.client.refused("PUT", &path, &done))
    }

    /// Puts a manifest under a tag or its digest. Answers whether the registry has listed it with
    /// the referrers of its subject.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &'static str,
        body: Vec<u8>,
    ) -> Result<bool, RegistryError> {
        let path = self.path("manifests", reference);
        let kind = HeaderValue::from_static(media_type);
        let content = (HeaderMap::from_iter([(CONTENT_TYPE, kind)]), Bytes::from(body));
        let done = self.client.send(&Method::PUT, &path, content, MAX_SMALL).await?;
        if done.status == StatusCode::CREATED || done.status == StatusCode::OK {
            return Ok(done.headers.contains_key("oci-subject"));
        }
        Err(self.client.refused("PUT", &path, &done))
    }
}

impl Source for Registry {
    type Error = RegistryError;

    async fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        Ok(self.manifest_with_type(reference).await?.map(|manifest| manifest.body))
    }

    async fn blob(&self, digest: &Digest, limit: usize) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = self.path("blobs", digest.as_str());
        let Some(answer) = self.client.get(&path, HeaderMap::new(), limit).await? else {
            return Ok(None);
        };
        client::check(digest, &answer.body)?;
        Ok(Some(answer.body))
    }

    async fn referrers(&self, digest: &Digest) -> Result<Option<Vec<u8>>, RegistryError> {
        let kind = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
        let accept = HeaderMap::from_iter([(ACCEPT, kind)]);
        let path = self.path("referrers", digest.as_str());
        Ok(self.client.get(&path, accept, MAX_MANIFEST).await?.map(|answer| answer.body))
    }
}
