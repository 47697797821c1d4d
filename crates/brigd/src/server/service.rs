//! From a request to its handler: version, route, access, then the handler, then the headers
//! that every answer has.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use brig_access::{Facts, Object};
use brig_api::version::MAX;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tracing::Instrument as _;

use super::body::{self, Response};
use super::call::{Call, Payload};
use super::error::ApiError;
use super::open::{OpenRequest, Standing};
use super::peer::PeerWatch;
use super::pool::Busy;
use super::query::Query;
use super::route::{BodyRule, Lifetime, Params, Route, Router};
use super::unread::{self, RequestBody};
use super::version;
use crate::access::{Authorized, Principal, judge, object};
use crate::state::AppState;

/// Longest path of a request.
const MAX_PATH: usize = 8 << 10;

/// Answers requests.
#[derive(Clone, Debug)]
pub struct ApiService {
    state: AppState,
    router: Arc<Router>,
}

impl ApiService {
    /// A service over these routes.
    #[must_use]
    pub const fn new(state: AppState, router: Arc<Router>) -> Self {
        Self { state, router }
    }

    /// The daemon.
    #[must_use]
    pub const fn state(&self) -> &AppState {
        &self.state
    }

    /// Answers one request; its connection is busy since it came.
    ///
    /// Dropping the future ends a handler that only reads; one that changes something goes on.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        principal: Arc<Principal>,
        peer: PeerWatch,
        busy: Busy,
    ) -> Response {
        let slot = peer.slot().clone();
        let mut standing = None;
        let (parts, body) = request.into_parts();
        let (body, unread) = unread::split(body, &parts.headers, peer.unread());
        let request = Request::from_parts(parts, body);
        let outcome = self.dispatch(request, principal, peer, &mut standing).await;
        unread.drain().await;
        let mut response = match outcome {
            Ok(response) => response,
            Err(error) => {
                if error.status().is_server_error() {
                    tracing::warn!(
                        status = error.status().as_u16(),
                        error = error.message(),
                        "request failed"
                    );
                } else {
                    tracing::debug!(
                        status = error.status().as_u16(),
                        error = error.message(),
                        "request refused"
                    );
                }
                error.into_response()
            }
        };
        common_headers(response.headers_mut());
        if self.state.swarm.is_stale() {
            // The swarm's objects are those that this manager knew when it lost the others.
            response.headers_mut().insert("brig-stale", HeaderValue::from_static("true"));
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            slot.hold();
        }
        // The work is over when the last byte of the answer is.
        response.map(|body| body::held(body, (busy, standing)))
    }

    async fn dispatch(
        &self,
        mut request: Request<RequestBody>,
        principal: Arc<Principal>,
        mut peer: PeerWatch,
        standing: &mut Option<Arc<Standing>>,
    ) -> Result<Response, ApiError> {
        let raw = request.uri().path();
        if raw.len() > MAX_PATH {
            return Err(ApiError::page_not_found());
        }
        let decoded =
            percent_decode_str(raw).decode_utf8().map_err(|_| ApiError::page_not_found())?;
        let (version, path) = version::split(&decoded)?;
        let Some((route, mut params)) = self.router.find(request.method(), path, version) else {
            return Err(ApiError::page_not_found());
        };
        tracing::debug!(method = %request.method(), path, %version, %principal, "request");
        let upgrade = request
            .headers()
            .contains_key(header::UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        let mut query = Query::parse(request.uri().query());
        let (parts, body) = request.into_parts();
        let mut body = Payload::Incoming(body);
        let (authorized, object) =
            self.authorize(&principal, route, &mut params, &mut query, &mut body).await?;
        if !judge::reads_body(route) {
            let (params, query) = (params.clone(), query.clone());
            let open = OpenRequest { principal, route, params, query, object, peer: peer.clone() };
            let place = Arc::new(self.state.open.enter(open));
            if !Arc::ptr_eq(authorized.rules(), &self.state.gate.rules()) {
                // They changed since, and it was not yet known to whoever looked through.
                place.review(&self.state).await;
            }
            peer = peer.during(Arc::clone(&place));
            *standing = Some(place);
        }
        let call = Call {
            state: self.state.clone(),
            authorized,
            route,
            version,
            params,
            query,
            headers: parts.headers,
            body,
            upgrade,
            peer,
        };
        self.run(route, call).await
    }

    /// Asks the rules, about what the request is and what its body says.
    async fn authorize(
        &self,
        principal: &Arc<Principal>,
        route: &'static Route,
        params: &mut Params,
        query: &mut Query,
        body: &mut Payload,
    ) -> Result<(Authorized, Option<Object>), ApiError> {
        let gate = &self.state.gate;
        let rules = gate.rules();
        if rules.unrestricted(principal) || rules.powerless(principal) {
            // Nothing that the request says could make a difference; its path is enough for the
            // log, and nobody's body is worth reading.
            let name = params.object().or_else(|| query.text("name")).unwrap_or_default();
            let object = Object::named(object::kind(route.action), name);
            let facts = Facts::default();
            let authorized = gate.authorize(rules, principal, route.action, &object, &facts)?;
            return Ok((authorized, None));
        }
        let bytes = match route.body {
            BodyRule::Json(limit) if judge::reads_body(route) => {
                let bytes = std::mem::take(body).read(limit).await?;
                *body = Payload::Read(bytes.clone());
                bytes
            }
            BodyRule::Json(_) | BodyRule::Stream => Bytes::new(),
        };
        let object = judge::object(&self.state, route, params, query).await;
        let facts = judge::facts(&self.state, route, params, query, &object, &bytes).await?;
        let authorized = gate.authorize(rules, principal, route.action, &object, &facts)?;
        // SECURITY: the name may mean something else by the time the handler looks it up.
        if !object.id.is_empty() && !route.path.starts_with("/exec/") {
            match params.object() {
                Some(_) => params.pin(object.id.clone()),
                None => query.pin(judge::OBJECT_KEY, object.id.clone()),
            }
        }
        Ok((authorized, Some(object)))
    }

    async fn run(&self, route: &'static Route, call: Call) -> Result<Response, ApiError> {
        let span = tracing::debug_span!("call", action = route.action.name());
        // A bug in one handler must not take the daemon down, nor leave its client without answer.
        let (state, authorized) = (Arc::clone(&self.state), call.authorized.clone());
        let handler = AssertUnwindSafe((route.handler)(call)).catch_unwind();
        let handler = async move {
            let outcome = handler.await;
            let status = match &outcome {
                Ok(Ok(response)) => response.status(),
                Ok(Err(error)) => error.status(),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            state.gate.answered(&authorized, status);
            outcome
        }
        .instrument(span);
        let outcome = match route.lifetime {
            Lifetime::Connection => handler.await,
            Lifetime::Detached => match self.state.tasks.spawn(handler).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(ApiError::system("the request was interrupted")),
            },
        };
        outcome.unwrap_or_else(|_| {
            tracing::error!(?route, "a handler panicked");
            Err(ApiError::system("internal error; see the daemon's log"))
        })
    }
}

fn common_headers(headers: &mut HeaderMap) {
    const SERVER: HeaderValue =
        HeaderValue::from_static(concat!("brig/", env!("CARGO_PKG_VERSION"), " (linux)"));
    headers.insert(header::SERVER, SERVER);
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    if let Ok(version) = HeaderValue::from_str(&MAX.to_string()) {
        headers.insert("api-version", version);
    }
}
