//! A registry of a few dozen lines that can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use brig_types::digest::Digest;
use serde_json::json;

use crate::make::{digest, gzip};

/// What a request looked like.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

/// How to answer a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) media_type: String,
    pub(crate) body: Vec<u8>,
    /// Close the connection after so many bytes of each answer.
    pub(crate) break_after: Option<usize>,
    /// Answer ranges with the whole body.
    pub(crate) ignore_ranges: bool,
    /// Claim this length instead of the body's.
    pub(crate) claim_length: Option<usize>,
    /// Redirect there instead.
    pub(crate) location: Option<String>,
    /// Wait before the answer.
    pub(crate) delay_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) contents: BTreeMap<String, Content>,
    /// `Basic` value that is wanted, on every `/v2/` path.
    pub(crate) basic: Option<String>,
    /// Bearer token that is wanted; `/token` hands it out.
    pub(crate) token: Option<String>,
    /// Realm in the challenge; this registry's `/token` by default.
    pub(crate) realm: Option<String>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) active: usize,
    pub(crate) most_active: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeRegistry {
    pub(crate) address: String,
    pub(crate) config: Arc<Mutex<Config>>,
}

impl FakeRegistry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = Self { address, config: Arc::default() };
        let server = registry.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || {
                    let _ = server.serve(stream);
                });
            }
        });
        registry
    }

    pub(crate) fn put(&self, path: &str, content: Content) {
        self.config.lock().unwrap().contents.insert(path.to_owned(), content);
    }

    pub(crate) fn edit(&self, path: &str, change: impl FnOnce(&mut Content)) {
        change(self.config.lock().unwrap().contents.get_mut(path).unwrap());
    }

    pub(crate) fn blob(&self, repository: &str, body: Vec<u8>) -> String {
        let path = format!("/v2/{repository}/blobs/{}", digest(&body));
        let media_type = "application/octet-stream".to_owned();
        self.put(&path, Content { media_type, body, ..Content::default() });
        path
    }

    pub(crate) fn manifest(&self, repository: &str, tag: &str, media_type: &str, body: Vec<u8>) {
        let content =
            Content { media_type: media_type.to_owned(), body: body.clone(), ..Content::default() };
        self.put(&format!("/v2/{repository}/manifests/{}", digest(&body)), content.clone());
        self.put(&format!("/v2/{repository}/manifests/{tag}"), content);
    }

    /// Publishes an image with gzip layers; returns (manifest digest, layer paths).
    pub(crate) fn image(
        &self,
        repository: &str,
        tag: &str,
        layers: &[Vec<u8>],
    ) -> (Digest, Vec<String>) {
        let config = crate::make::config(layers, tag);
        let mut paths = Vec::new();
        let mut descriptors = Vec::new();
        for layer in layers {
            let blob = gzip(layer);
            descriptors.push(json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": digest(&blob).as_str(), "size": blob.len(),
            }));
            paths.push(self.blob(repository, blob));
        }
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest(&config).as_str(), "size": config.len(),
            },
            "layers": descriptors,
        }))
        .unwrap();
        self.blob(repository, config);
        let id = digest(&manifest);
        self.manifest(repository, tag, media_type, manifest);
        (id, paths)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.config.lock().unwrap().seen.clone()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
        let mut seen = Seen {
            method: method.to_owned(),
            path: path.to_owned(),
            authorization: None,
            range: None,
        };
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => seen.authorization = Some(value.to_owned()),
                "range" => seen.range = Some(value.to_owned()),
                "content-length" => length = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let content = {
            let mut config = self.config.lock().unwrap();
            config.seen.push(seen.clone());
            config.active += 1;
            config.most_active = config.most_active.max(config.active);
            config.contents.get(seen.path.split('?').next().unwrap_or_default()).cloned()
        };
        let result = self.answer(stream, &seen, content);
        self.config.lock().unwrap().active -= 1;
        result
    }

    fn answer(
        &self,
        mut stream: TcpStream,
        seen: &Seen,
        content: Option<Content>,
    ) -> std::io::Result<()> {
        let (basic, token, realm) = {
            let config = self.config.lock().unwrap();
            (config.basic.clone(), config.token.clone(), config.realm.clone())
        };
        let mut send = |status: &str, headers: &str, body: &[u8]| {
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
            stream.write_all(head.as_bytes())?;
            if seen.method != "HEAD" {
                stream.write_all(body)?;
            }
            stream.flush()
        };
        if seen.path.starts_with("/token") {
            let body = json!({"token": token}).to_string();
            let headers = format!("Content-Length: {}\r\n", body.len());
            return send("200 OK", &headers, body.as_bytes());
        }
        let refused = |challenge: &str| {
            let body =
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            let length = body.len();
            (format!("WWW-Authenticate: {challenge}\r\nContent-Length: {length}\r\n"), body)
        };
        if let Some(basic) = basic
            && seen.authorization.as_deref() != Some(&basic)
        {
            let (headers, body) = refused("Basic realm=\"test\"");
            return send("401 Unauthorized", &headers, body.as_bytes());
        }
        if let Some(token) = token
            && seen.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            let realm = realm.unwrap_or_else(|| format!("http://{}/token", self.address));
            let (headers, body) = refused(&format!("Bearer realm=\"{realm}\",service=\"test\""));
            return send("401 Unauthorized", &headers, body.as_bytes());
        }
        let Some(content) = content else {
            let body = if seen.path.contains("/manifests/") {
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#
            } else {
                r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#
            };
            let headers = format!("Content-Length: {}\r\n", body.len());
            return send("404 Not Found", &headers, body.as_bytes());
        };
        std::thread::sleep(std::time::Duration::from_millis(content.delay_ms));
        if let Some(location) = content.location {
            let headers = format!("Location: {location}\r\nContent-Length: 0\r\n");
            return send("307 Temporary Redirect", &headers, b"");
        }
        let from = seen
            .range
            .as_deref()
            .filter(|_| !content.ignore_ranges)
            .and_then(|range| range.strip_prefix("bytes="))
            .and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        let body = &content.body[from.unwrap_or(0)..];
        let length = content.claim_length.unwrap_or(body.len());
        let mut headers =
            format!("Content-Length: {length}\r\nContent-Type: {}\r\n", content.media_type);
        if seen.path.contains("/manifests/") {
            headers += &format!("Docker-Content-Digest: {}\r\n", digest(&content.body));
        }
        if let Some(from) = from {
            let (last, whole) = (content.body.len() - 1, content.body.len());
            headers += &format!("Content-Range: bytes {from}-{last}/{whole}\r\n");
        }
        let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
        let end = content.break_after.map_or(body.len(), |after| after.min(body.len()));
        send(status, &headers, &body[..end])
    }
}
