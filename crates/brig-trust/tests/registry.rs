//! A registry that misbehaves, and one that is busy: what the client refuses, what it never sends,
//! and that no signature is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use brig_pki::hash::sha256;
use brig_trust::cosign::{
    Annotations, Attaching, Expected, Identity, KeyPair, Placement, Source as _, attach, find,
    judge, signature_tag,
};
use brig_trust::registry::{Registry, RegistryError, RegistrySettings};
use brig_trust::remote::Credentials;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use brig_types::secret::SecretString;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

type Asked = (String, String, HeaderMap, Bytes);
type Handler = dyn Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync;

/// A registry over plain HTTP that answers as it is told.
struct Fake {
    address: String,
    seen: Arc<Mutex<Vec<Asked>>>,
    /// Ends with this.
    _server: JoinSet<()>,
}

impl Fake {
    async fn start(
        handler: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&seen));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let path = head.uri.path_and_query().unwrap().to_string();
                        let asked = (head.method.to_string(), path, head.headers, body);
                        let answer = handler(&asked);
                        log.lock().unwrap().push(asked);
                        Ok::<_, hyper::Error>(answer)
                    }
                });
                connections
                    .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen, _server: server }
    }

    fn reference(&self) -> Reference {
        Reference::parse(&format!("{}/team/app:1.0", self.address)).unwrap()
    }

    async fn open(&self) -> Registry {
        let credentials = Credentials {
            username: "u".to_owned(),
            password: SecretString::new("pw".to_owned()),
            identity_token: SecretString::default(),
        };
        let settings = RegistrySettings { certificates: Vec::new(), ..RegistrySettings::default() };
        Registry::open(&self.reference(), credentials, &settings).await.unwrap()
    }

    /// Requests that carried credentials.
    fn told(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|a| a.2.contains_key("authorization")).map(|a| a.1.clone()).collect()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

fn digest() -> Digest {
    Digest::from_sha256([0xab; 32])
}

#[tokio::test]
async fn what_has_another_digest_or_size_is_refused() {
    let fake = Fake::start(|(_, path, ..)| match path.as_str() {
        "/v2/" => answer(200, &[], ""),
        path if path.contains("large") => answer(200, &[], vec![b'x'; (4 << 20) + 1]),
        _ => answer(200, &[], "other bytes"),
    })
    .await;
    let registry = fake.open().await;
    let found = registry.manifest(digest().as_str()).await;
    assert!(matches!(found, Err(RegistryError::Digest { .. })), "{found:?}");
    let found = registry.blob(&digest(), 1000).await;
    assert!(matches!(found, Err(RegistryError::Digest { .. })), "{found:?}");
    let found = registry.blob(&Digest::from_sha256(sha256(b"other bytes")), 5).await;
    assert!(matches!(found, Err(RegistryError::TooLarge { .. })), "{found:?}");
    let found = registry.manifest("large").await;
    assert!(matches!(found, Err(RegistryError::TooLarge { .. })), "{found:?}");
}

#[tokio::test]
async fn redirects_carry_nothing_and_lead_to_nowhere_unsafe() {
    let elsewhere = Fake::start(|_| answer(200, &[], "blob")).await;
    let there = format!("http://{}/blob", elsewhere.address);
    let fake = Fake::start(move |(_, path, headers, _)| {
        let known = headers.contains_key("authorization");
        match path.as_str() {
            "/v2/" => answer(200, &[], ""),
            _ if !known => answer(401, &[("www-authenticate", "Basic realm=r")], ""),
            path if path.contains("round") => answer(307, &[("location", path)], ""),
            path if path.contains("moved") => {
                answer(307, &[("location", "/v2/team/app/manifests/landed")], "")
            }
            path if path.contains("landed") => answer(200, &[], "found"),
            path if path.contains("odd") => answer(302, &[("location", "//evil.example/x")], ""),
            _ => answer(307, &[("location", &there)], ""),
        }
    })
    .await;
    let registry = fake.open().await;
    assert_eq!(registry.manifest("moved").await.unwrap().unwrap(), b"found");
    let round = registry.manifest("round").await;
    assert!(matches!(round, Err(RegistryError::Status { status: 307, .. })), "{round:?}");
    for name in ["elsewhere", "odd"] {
        let refused = registry.manifest(name).await;
        assert!(matches!(refused, Err(RegistryError::Redirect(_))), "{name}: {refused:?}");
    }
    let blob = registry.blob(&digest(), 100).await;
    assert!(matches!(blob, Err(RegistryError::Redirect(_))), "{blob:?}");
    assert_eq!(elsewhere.seen.lock().unwrap().len(), 0);
    assert!(!fake.told().is_empty());
}

#[tokio::test]
async fn passwords_go_to_the_registry_alone() {
    // A token server without TLS, an upload somewhere else, a registry that is never content.
    let stranger = Fake::start(|_| answer(201, &[], "")).await;
    let realm = format!("Bearer realm=\"http://{}/token\",service=s", stranger.address);
    let fake = Fake::start(move |(_, path, ..)| match path.as_str() {
        "/v2/" => answer(200, &[], ""),
        _ => answer(401, &[("www-authenticate", &realm)], ""),
    })
    .await;
    let refused = fake.open().await.manifest("1.0").await;
    assert!(matches!(refused, Err(RegistryError::Realm(_))), "{refused:?}");
    assert!(fake.told().is_empty());

    let place = format!("http://{}/upload", stranger.address);
    let fake = Fake::start(move |(method, path, ..)| match (method.as_str(), path.as_str()) {
        (_, "/v2/") => answer(200, &[], ""),
        ("HEAD", _) => answer(404, &[], ""),
        _ => answer(202, &[("location", &place)], ""),
    })
    .await;
    let refused = fake.open().await.put_blob(&digest(), b"x").await;
    assert!(matches!(refused, Err(RegistryError::Redirect(_))), "{refused:?}");
    assert_eq!(stranger.seen.lock().unwrap().len(), 0);

    let fake = Fake::start(|(_, path, ..)| match path.as_str() {
        "/v2/" => answer(200, &[], ""),
        _ => answer(401, &[("www-authenticate", "Basic realm=r")], ""),
    })
    .await;
    let refused = fake.open().await.manifest("1.0").await;
    assert!(matches!(refused, Err(RegistryError::Unauthorized { .. })), "{refused:?}");
    assert_eq!(fake.told().len(), 1);
}

/// A registry that keeps what it is given.
#[derive(Default)]
struct Kept {
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
    /// How many manifests are put aside for another signer's.
    to_lose: usize,
    lists_referrers: bool,
    listed: Vec<String>,
}

impl Kept {
    fn answer(&mut self, (method, path, headers, body): &Asked) -> Response<Full<Bytes>> {
        let rest = path.strip_prefix("/v2/team/app/").unwrap_or_default();
        let (what, which) = rest.split_once('/').unwrap_or_default();
        match (method.as_str(), what) {
            (_, "") => answer(200, &[], ""),
            ("PUT", "manifests") => {
                if which.ends_with(".sig") && self.to_lose > 0 {
                    self.to_lose -= 1;
                    return answer(201, &[], "");
                }
                let kind = headers["content-type"].to_str().unwrap().to_owned();
                let digest = Digest::from_sha256(sha256(body)).to_string();
                self.manifests.insert(digest.clone(), (kind.clone(), body.clone()));
                self.manifests.insert(which.to_owned(), (kind, body.clone()));
                if self.lists_referrers {
                    self.listed.push(digest);
                    return answer(201, &[("oci-subject", which)], "");
                }
                answer(201, &[], "")
            }
            ("GET", "manifests") => match self.manifests.get(which) {
                Some((kind, body)) => answer(200, &[("content-type", kind)], body.clone()),
                None => answer(404, &[], ""),
            },
            ("GET" | "HEAD", "blobs") => match self.blobs.get(which) {
                Some(body) if method == "GET" => answer(200, &[], body.clone()),
                Some(_) => answer(200, &[], ""),
                None => answer(404, &[], ""),
            },
            ("POST", "blobs") => {
                answer(202, &[("location", "/v2/team/app/blobs/uploads/1?state=x")], "")
            }
            ("PUT", "blobs") => {
                let digest = Digest::from_sha256(sha256(body)).to_string();
                assert!(which.ends_with(&digest.replace(':', "%3A")), "{which}");
                self.blobs.insert(digest, body.clone());
                answer(201, &[], "")
            }
            ("GET", "referrers") if self.lists_referrers => {
                let list: Vec<_> = self
                    .listed
                    .iter()
                    .map(|digest| {
                        serde_json::json!({
                            "mediaType": "application/vnd.oci.image.manifest.v1+json",
                            "digest": digest,
                            "size": 1,
                            "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
                        })
                    })
                    .collect();
                let index = serde_json::json!({ "schemaVersion": 2, "manifests": list });
                answer(200, &[], index.to_string())
            }
            _ => answer(StatusCode::NOT_FOUND.as_u16(), &[], ""),
        }
    }
}

#[tokio::test]
async fn no_signature_is_lost() {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let serving = Arc::clone(&kept);
    let fake = Fake::start(move |asked| serving.lock().unwrap().answer(asked)).await;
    let registry = fake.open().await;
    let image = b"{\"an\":\"image\"}";
    let digest = Digest::from_sha256(sha256(image));
    registry
        .put_manifest("1.0", "application/vnd.oci.image.manifest.v1+json", image.to_vec())
        .await
        .unwrap();
    let reference = fake.reference();
    assert_eq!(registry.resolve(&reference).await.unwrap(), Some(digest.clone()));
    let pairs = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let (name, annotations) = (reference.name(), Annotations::new());
    let sign = async |pair: &KeyPair, digest: &Digest, placement| {
        let repository = name.as_str();
        let what = Attaching { repository, digest, pair, annotations: &annotations, placement };
        attach(&registry, &what).await
    };
    let signers = async || {
        let keys = [pairs[0].public().clone(), pairs[1].public().clone()];
        let identity = Identity::Repository;
        let expected = Expected {
            reference: &reference,
            digest: &digest,
            identity,
            annotations: &annotations,
        };
        let found = find(&registry, &digest).await.unwrap();
        let judgement = judge(&found, &keys, &expected);
        assert!(judgement.refused.is_empty());
        judgement.signers().len()
    };
    sign(&pairs[0], &digest, Placement::Tag).await.unwrap();
    // Another signer was faster, twice: what was put is not there.
    kept.lock().unwrap().to_lose = 2;
    sign(&pairs[1], &digest, Placement::Tag).await.unwrap();
    assert_eq!(kept.lock().unwrap().to_lose, 0);
    assert_eq!(signers().await, 2);
    // Each time.
    kept.lock().unwrap().to_lose = 100;
    let contended = sign(&pairs[1], &digest, Placement::Tag).await.unwrap_err();
    assert!(contended.to_string().contains("sign again"), "{contended}");
    // An image that is not there is not signed.
    let nothing = sign(&pairs[0], &Digest::from_sha256([0; 32]), Placement::Tag).await;
    assert!(nothing.unwrap_err().to_string().contains("is not in the registry"));

    // As referrers, in both kinds of registries.
    for lists_referrers in [false, true] {
        {
            let mut kept = kept.lock().unwrap();
            kept.manifests.remove(&signature_tag(&digest));
            kept.manifests.remove(&format!("sha256-{}", digest.hex()));
            kept.lists_referrers = lists_referrers;
        }
        for pair in &pairs {
            sign(pair, &digest, Placement::Referrer).await.unwrap();
        }
        assert_eq!(signers().await, 2);
        let tag = format!("sha256-{}", digest.hex());
        assert_eq!(kept.lock().unwrap().manifests.contains_key(&tag), !lists_referrers);
    }
}
