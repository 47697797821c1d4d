//! From a request to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::hash;
use brig_trust::{Gun, Key};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED,
    PRAGMA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Incoming};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::Semaphore;

use crate::auth::{self, Authentication};
use crate::fault::Fault;
use crate::feed;
use crate::metrics::Metrics;
use crate::multipart::{self, MAX_UPLOAD};
use crate::place::Place;
use crate::publish::Upload;
use crate::repositories::{Repositories, refused};
use crate::repository::Repository;
use crate::route::Route;
use crate::server::CacheAges;
use crate::storage::StoredFile;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
/// Kibibytes of uploads that are in memory at a time.
const UPLOAD_ROOM: usize = 256 << 10;
/// How long an upload waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for an upload's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) type Answer = Response<Full<Bytes>>;

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) place: Place,
    pub(crate) authentication: Authentication,
    pub(crate) prefixes: Vec<String>,
    pub(crate) ages: CacheAges,
    pub(crate) metrics: Metrics,
    room: Semaphore,
    in_flight: AtomicU64,
}

impl Service {
    pub(crate) fn new(
        place: Place,
        authentication: Authentication,
        prefixes: Vec<String>,
        ages: CacheAges,
    ) -> Self {
        Self {
            place,
            authentication,
            prefixes,
            ages,
            metrics: Metrics::default(),
            room: Semaphore::new(UPLOAD_ROOM),
            in_flight: AtomicU64::new(0),
        }
    }

    /// Answers everything; what fails on our side is a 500 and a line in the log.
    pub(crate) async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let route = Route::parse(request.method(), request.uri().path());
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let answer = match self.admit(request.headers(), &route).await {
            Ok(()) => self.handle(&route, request).await.unwrap_or_else(|fault| error(&fault)),
            Err(refusal) => *refusal,
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.metrics.answered(route.label(), answer.status().as_u16(), started.elapsed());
        answer
    }

    async fn admit(&self, headers: &HeaderMap, route: &Route) -> Result<(), Box<Answer>> {
        let access = route.access();
        let Err(challenge) = self.authentication.check(headers, &access).await else {
            return Ok(());
        };
        let mut answer = error(&Fault::unauthorized(auth::detail(&access)));
        if let Ok(value) = HeaderValue::from_str(&challenge.0) {
            answer.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        Err(Box::new(answer))
    }

    async fn handle(
        self: &Arc<Self>,
        route: &Route,
        request: Request<Incoming>,
    ) -> Result<Answer, Fault> {
        if route.gun().is_some_and(|gun| !self.serves(gun)) {
            let is_upload = matches!(route, Route::Upload { .. });
            return Err(if is_upload { Fault::invalid_gun() } else { Fault::not_found() });
        }
        let now = OffsetDateTime::now_utc();
        match route.clone() {
            Route::Ping => Ok(body(StatusCode::OK, TEXT, "{}".into())),
            Route::Health => self.health().await,
            Route::Metrics => {
                let text = self.metrics.text();
                Ok(body(StatusCode::OK, "text/plain; version=0.0.4", text.into()))
            }
            Route::Newest { gun, role } => {
                let repository = self.repository(&gun, now).await?.ok_or_else(Fault::not_found)?;
                let file = repository.newest(&role).ok_or_else(Fault::not_found)?;
                Ok(self.file(file, self.ages.newest, request.headers()))
            }
            Route::Version { gun, role, version } => {
                let stored = self
                    .blocking(move |all| Ok(all.storage().version(&gun, &role, version)?))
                    .await?;
                let file = stored.ok_or_else(Fault::not_found)?;
                Ok(self.file(&file, self.ages.fixed, request.headers()))
            }
            Route::Hash { gun, digest } => {
                let digest = digest.ok_or_else(Fault::not_found)?;
                let repository = self.place.repositories()?.at_hand(&gun, now);
                if let Some(file) = repository.as_ref().and_then(|one| one.by_digest(&digest)) {
                    return Ok(self.file(file, self.ages.fixed, request.headers()));
                }
                let stored =
                    self.blocking(move |all| Ok(all.storage().by_digest(&gun, &digest)?)).await?;
                let file = stored.ok_or_else(Fault::not_found)?;
                Ok(self.file(&file, self.ages.fixed, request.headers()))
            }
            Route::Upload { gun } => {
                self.upload(gun, request, now).await?;
                Ok(Response::new(Full::default()))
            }
            Route::Delete { gun } => {
                self.blocking(move |all| all.delete(&gun, now)).await?;
                Ok(Response::new(Full::default()))
            }
            Route::Key { gun, role } => {
                public_key(&self.blocking(move |all| all.key(&gun, role, now)).await?)
            }
            Route::NewKey { gun, role } => {
                public_key(&self.blocking(move |all| all.new_key(&gun, role, now)).await?)
            }
            Route::Feed { gun } => {
                let (stretch, limit) = feed::parse(request.uri().query().unwrap_or_default())?;
                let changes = self
                    .blocking(move |all| Ok(all.storage().changes(gun.as_ref(), stretch, limit)?))
                    .await?;
                let answer = feed::answer(&changes).map_err(|_| Fault::internal())?;
                Ok(body(StatusCode::OK, JSON, answer))
            }
            Route::NotAllowed => {
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                Ok(answer)
            }
            Route::Unknown => Err(Fault::no_such_path()),
        }
    }

    fn serves(&self, gun: &Gun) -> bool {
        self.prefixes.is_empty()
            || self.prefixes.iter().any(|prefix| gun.as_str().starts_with(prefix.as_str()))
    }

    async fn repository(
        self: &Arc<Self>,
        gun: &Gun,
        now: OffsetDateTime,
    ) -> Result<Option<Arc<Repository>>, Fault> {
        if let Some(repository) = self.place.repositories()?.at_hand(gun, now) {
            return Ok(Some(repository));
        }
        let gun = gun.clone();
        self.blocking(move |all| all.current(&gun, now)).await
    }

    /// Runs what reads disks or signs; once it has begun it ends, whether or not the client waits.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Repositories) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let repositories = self.place.repositories()?;
        tokio::task::spawn_blocking(move || work(&repositories))
            .await
            .unwrap_or_else(|_| Err(Fault::internal()))
    }

    async fn upload(
        self: &Arc<Self>,
        gun: Gun,
        request: Request<Incoming>,
        now: OffsetDateTime,
    ) -> Result<(), Fault> {
        let too_large = || Fault::malformed_upload("the upload is larger than 32 MiB");
        let (head, content) = request.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let announced = head.headers.get(CONTENT_LENGTH).and_then(|_| content.size_hint().exact());
        let size = announced.map_or(Ok(MAX_UPLOAD), usize::try_from).unwrap_or(usize::MAX);
        if size > MAX_UPLOAD {
            return Err(too_large());
        }
        let kibibytes = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(ROOM_TIMEOUT, self.room.acquire_many(kibibytes));
        let _room = room.await.ok().and_then(Result::ok).ok_or_else(Fault::overloaded)?;
        let content =
            tokio::time::timeout(BODY_TIMEOUT, Limited::new(content, MAX_UPLOAD).collect())
                .await
                .map_err(|_| Fault::malformed_upload("the body did not arrive in time"))?
                .map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
                    true => too_large(),
                    false => Fault::malformed_upload("the body ended early"),
                })?
                .to_bytes();
        self.blocking(move |all| {
            let parts = multipart::parse(&content_type, &content).map_err(|e| refused(&e))?;
            all.publish(&gun, &Upload::read(parts)?, now)
        })
        .await
    }

    async fn health(self: &Arc<Self>) -> Result<Answer, Fault> {
        match self.blocking(|all| Ok(all.storage().check()?)).await {
            Ok(()) => Ok(body(StatusCode::OK, JSON, "{}".into())),
            Err(_) => {
                let text = "{\"storage\":\"the trust database cannot be read\"}";
                Ok(body(StatusCode::INTERNAL_SERVER_ERROR, JSON, text.into()))
            }
        }
    }

    /// A file, or the word that the client has it already.
    fn file(&self, file: &StoredFile, age: u32, headers: &HeaderMap) -> Answer {
        let tag = format!("\"{}\"", hash::hex(&file.digest));
        let is_known = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|one| one.trim().trim_start_matches("W/"))
            .any(|one| one == tag || one == "*");
        let mut answer = match is_known {
            true => Response::new(Full::default()),
            false => body(StatusCode::OK, TEXT, file.bytes.clone()),
        };
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let age = match age {
            0 => "max-age=0, no-cache, no-store".to_owned(),
            age if age == self.ages.newest => {
                format!("public, max-age={age}, s-maxage={age}, must-revalidate")
            }
            age => format!("public, max-age={age}, s-maxage={age}"),
        };
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                answer.headers_mut().insert(name, value);
            }
        };
        if age.starts_with("max-age=0") {
            set(PRAGMA, "no-cache");
        }
        set(CACHE_CONTROL, &age);
        set(ETAG, &tag);
        set(LAST_MODIFIED, &http_date(file.stored));
        answer
    }
}

fn http_date(at: OffsetDateTime) -> String {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.to_offset(time::UtcOffset::UTC).format(&format).unwrap_or_default()
}

/// The key as the real server writes it.
fn public_key(key: &Key) -> Result<Answer, Fault> {
    let public = STANDARD.encode(key.public());
    let text = format!(
        "{{\"keytype\":\"{}\",\"keyval\":{{\"public\":\"{public}\",\"private\":null}}}}",
        key.keytype().as_str()
    );
    Ok(body(StatusCode::OK, JSON, text.into()))
}

fn error(fault: &Fault) -> Answer {
    body(fault.status, JSON, fault.body())
}

fn body(status: StatusCode, content_type: &'static str, content: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(content));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
